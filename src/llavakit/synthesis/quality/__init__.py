"""Quality gates: what keeps accidents out of a data set, one file a gate.

`check` takes candidates and gives verdicts; `Settings` says which gates reject, which only note, and by which limits.
"""

from llavakit.synthesis.quality.gates import check, identity, tally
from llavakit.synthesis.quality.ratings import Ratings, rating_request, rating_verdicts, read_rating
from llavakit.synthesis.quality.settings import Settings

__all__ = [
    "Ratings",
    "Settings",
    "check",
    "identity",
    "rating_request",
    "rating_verdicts",
    "read_rating",
    "tally",
]
