"""One format of a data set into another.

What lives here: reading every row of a file of conversations and writing those that can be read, with the rest named.
It knows readers and writers, and nothing of tokens or models.
"""

from __future__ import annotations

from pathlib import Path

from llavakit.data.index import read_rows
from llavakit.data.readers.llava import write_llava
from llavakit.errors import LlavakitError
from llavakit.recipe import DataSource

ENDINGS = (".json", ".jsonl")


def convert(
    source: Path, target: Path, images: Path | None = None, *, force: bool = False
) -> tuple[int, list[str]]:
    """Writes the conversations of `source` to `target`, JSON or JSONL by its ending.

    Returns how many were written and, for each row that could not be read, a line that says which and why.
    Raises LlavakitError when the target exists and `force` is not set, has another ending, or is the source itself, and
    when nothing in the source can be read.
    """
    if target.suffix not in ENDINGS:
        raise LlavakitError(f"{target}: expected a file that ends in {' or '.join(ENDINGS)}")
    if target.exists() and target.samefile(source):
        raise LlavakitError(f"{target}: source and target are the same file; write to another")
    if target.exists() and not force:
        raise LlavakitError(f"{target} exists already and is not replaced unless you say --force")
    if not target.parent.is_dir():
        raise LlavakitError(f"{target}: there is no folder {target.parent}; make it first")
    conversations, problems = [], []
    for row in read_rows(DataSource(path=str(source), images=None if images is None else str(images))):
        if row.conversation is None:
            problems.append(f"row {row.position}: {row.problem}")
        else:
            conversations.append(row.conversation)
    if not conversations:
        why = f"; the first: {problems[0]}" if problems else ""
        raise LlavakitError(f"{source}: not one row can be read, so nothing is written{why}")
    partial = target.with_name(f".partial-{target.name}")
    write_llava(conversations, partial)
    partial.replace(target)
    return len(conversations), problems
