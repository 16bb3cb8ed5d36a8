"""The one error that a user is meant to read.

Every room raises `LlavakitError`, or a subclass that says more, for a mistake that the user can mend: a file that is
not there, a row that cannot be used, a recipe key that does not exist. The command line shows its sentence and
leaves with a non-zero exit code. Anything else that escapes is a fault of llavakit and keeps its traceback.
"""

from __future__ import annotations


class LlavakitError(Exception):
    """A mistake the user can mend, told in one sentence: the thing, what was found, what was expected, what to do."""
