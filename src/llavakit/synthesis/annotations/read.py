"""Annotations from any files: what each is, joined by picture, filtered by licence, with what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llavakit.errors import LlavakitError
from llavakit.synthesis.annotations.coco import read_coco
from llavakit.synthesis.annotations.draft import Draft
from llavakit.synthesis.annotations.files import read_file
from llavakit.synthesis.annotations.rows import read_rows
from llavakit.synthesis.annotations.visual_genome import read_visual_genome
from llavakit.synthesis.context import Annotated


@dataclass(frozen=True, slots=True)
class Annotations:
    """Pictures with what is known of them. left_out: what could not be used or was changed, by reason."""

    pictures: list[Annotated]
    left_out: Counter[str] = field(default_factory=Counter)


def read_annotations(paths: Sequence[Path], *, licences: Collection[str] | None = None) -> Annotations:
    """Read annotation files of any mixture of data sets.

    Pictures come in the order of the data sets' first files, and within one in the order in which they are listed.
    A picture of which nothing is said at all is left out.

    Args:
        licences: keep pictures under these alone, by name (whatever its case) or by COCO's number.

    Raises:
        LlavakitError: a file cannot be read or is of no form that is known, or no picture is under a licence named.
    """
    if not paths:
        raise LlavakitError("No annotations were named; give at least one file.")
    left_out: Counter[str] = Counter()
    files = [read_file(path) for path in {path.resolve(): path for path in paths}.values()]
    drafts: list[Draft] = []
    done: set[str] = set()
    for file in files:
        family = file.form.partition("_")[0]
        if family == "rows":
            drafts += read_rows(file, left_out)
        elif family not in done:
            done.add(family)
            together = [other for other in files if other.form.partition("_")[0] == family]
            read = read_coco if family == "coco" else read_visual_genome
            drafts += read(together, left_out)
    if licences is not None:
        drafts = _licensed(drafts, licences, left_out)
    pictures: dict[tuple[str, str], Annotated] = {}
    for draft in drafts:
        picture = draft.annotated()
        if not (picture.captions or picture.boxes or picture.regions or picture.words):
            left_out["pictures of which nothing is said"] += 1
        elif (picture.source, str(picture.id)) in pictures:
            left_out["pictures given twice"] += 1
        else:
            pictures[picture.source, str(picture.id)] = picture
    return Annotations(list(pictures.values()), left_out)


def _licensed(drafts: Sequence[Draft], licences: Collection[str], left_out: Counter[str]) -> list[Draft]:
    there = {(draft.licence_number, draft.licence) for draft in drafts if draft.licence}
    known = {name.casefold() for pair in there for name in pair if name}
    if unknown := sorted(name for name in licences if name.casefold() not in known):
        listed = "; ".join(f"{number} {name}".strip() for number, name in sorted(there)) or "none at all"
        raise LlavakitError(
            f"No picture is under the licence {unknown[0]!r}; the files name these: {listed}."
        )
    wanted = {name.casefold() for name in licences}
    kept = []
    for draft in drafts:
        if wanted & ({draft.licence.casefold(), draft.licence_number.casefold()} - {""}):
            kept.append(draft)
        else:
            left_out[f"pictures under another licence: {draft.licence or 'none named'}"] += 1
    return kept
