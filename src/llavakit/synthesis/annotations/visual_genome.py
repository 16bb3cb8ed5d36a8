"""Visual Genome's files: regions, objects and relationships, joined with the list of pictures by the pictures' ids.

Sizes and file names are in `image_data.json` alone, so that one is always needed.

Knows what stands in the files, not how they are opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlparse

from llavakit.errors import LlavakitError
from llavakit.synthesis.annotations.draft import BadBox, Draft, corners
from llavakit.synthesis.annotations.files import Content
from llavakit.synthesis.context import Box, Region, Relation


def read_visual_genome(files: Sequence[Content], left_out: Counter[str]) -> list[Draft]:
    """The pictures of image_data.json in its order.

    A picture's file is named by the last two parts of its address, such as `VG_100K/2319788.jpg`.

    Raises:
        LlavakitError: image_data.json is not among the files, or an entry lacks a field.
    """
    listing = [file for file in files if file.form == "vg_pictures"]
    if files and not listing:
        raise LlavakitError(
            f"{files[0].path} is of Visual Genome, and the sizes of its pictures are in image_data.json; "
            "name that file too."
        )
    drafts: dict[Any, Draft] = {}
    for file in listing:
        for entry in file.data:
            number, address = _number(entry, file), str(_field(entry, "url", file))
            name = "/".join(PurePosixPath(urlparse(address).path).parts[-2:])
            width, height = _field(entry, "width", file), _field(entry, "height", file)
            if number in drafts:
                left_out["pictures given twice"] += 1
            drafts.setdefault(number, Draft(number, name, "visual_genome", width, height))
    placed: dict[Any, dict[Any, int]] = {}
    for file, draft, entry in _entries(files, "vg_regions", drafts, left_out):
        for region in entry["regions"]:
            phrase = " ".join(str(_field(region, "phrase", file)).split())
            box = _corners(region, ("x", "y", "width", "height"), draft, "regions", left_out)
            if not phrase:
                left_out["regions without a phrase"] += 1
            elif box is not None:
                draft.regions.append(Region(phrase, box))
    for file, draft, entry in _entries(files, "vg_objects", drafts, left_out):
        for thing in entry["objects"]:
            _place(thing, draft, placed.setdefault(draft.id, {}), file, left_out)
    for file, draft, entry in _entries(files, "vg_relationships", drafts, left_out):
        for relation in entry["relationships"]:
            places = placed.setdefault(draft.id, {})
            subject, object_ = (
                _place(_field(relation, end, file), draft, places, file, left_out)
                for end in ("subject", "object")
            )
            predicate = str(_field(relation, "predicate", file)).strip().lower()
            if subject is None or object_ is None or not predicate:
                left_out["relations of things without a box"] += 1
            else:
                draft.relations.append(Relation(subject, predicate, object_))
    return list(drafts.values())


def _entries(
    files: Sequence[Content], form: str, drafts: dict[Any, Draft], left_out: Counter[str]
) -> Iterator[tuple[Content, Draft, dict[str, Any]]]:
    what = form.removeprefix("vg_")
    for file in files:
        if file.form == form:
            for entry in file.data:
                if (draft := drafts.get(_number(entry, file))) is None:
                    left_out[f"{what} of pictures that are not listed"] += len(_field(entry, what, file))
                else:
                    _field(entry, what, file)
                    yield file, draft, entry


def _place(
    thing: dict[str, Any], draft: Draft, places: dict[Any, int], file: Content, left_out: Counter[str]
) -> int | None:
    """Where a thing stands among its picture's boxes; it is put there when it is met first."""
    number = _field(thing, "object_id", file)
    if number in places:
        return places[number]
    names = thing.get("names") or [thing.get("name", "")]
    name = str(names[0]).strip().lower()
    box = _corners(thing, ("x", "y", "w", "h"), draft, "boxes", left_out)
    if box is None or not name:
        return None
    places[number] = len(draft.boxes)
    draft.boxes.append(Box(name, box))
    return places[number]


def _corners(
    entry: dict[str, Any], names: Sequence[str], draft: Draft, what: str, left_out: Counter[str]
) -> tuple[float, float, float, float] | None:
    try:
        box = [entry.get(name) for name in names]
        return corners(box, "pixel_size", draft.width, draft.height, what, left_out)
    except BadBox as reason:
        left_out[str(reason)] += 1
        return None


def _number(entry: Any, file: Content) -> Any:
    """A picture's id: `image_id`, or `id` in files that call it so."""
    if isinstance(entry, dict) and "image_id" not in entry and "id" in entry:
        return entry["id"]
    return _field(entry, "image_id", file)


def _field(entry: Any, name: str, file: Content) -> Any:
    if not isinstance(entry, dict) or name not in entry:
        raise LlavakitError(
            f"{file.path}: an entry has no {name!r}, which this file of Visual Genome has for each; fetch it again."
        )
    return entry[name]
