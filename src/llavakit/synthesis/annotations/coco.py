"""COCO's files: captions and instances, joined by the pictures' ids.

Files of 2014 and of 2017 name the same picture differently and number it alike; it stays one picture, under the name
that came first. Boxes of crowds are flagged. A file may hold captions, boxes or both, and boxes alone are enough.

Knows what stands in the files, not how they are opened.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.synthesis.annotations.draft import BadBox, Draft, corners
from llavakit.synthesis.annotations.files import Content
from llavakit.synthesis.context import Box

_NAME_2014 = re.compile(r"COCO_(?:train|val|test)\d{4}_(?=\d{12}\.)")


def read_coco(files: Sequence[Content], left_out: Counter[str]) -> list[Draft]:
    """The pictures of all files in the order in which they are first listed.

    Raises:
        LlavakitError: an entry lacks a field, or one id stands for two pictures.
    """
    drafts: dict[Any, Draft] = {}
    for file in files:
        _pictures(file, drafts)
    told: set[tuple[str, Any]] = set()
    for file in files:
        categories = {
            _field(entry, "id", file.path, "categories"): _field(entry, "name", file.path, "categories")
            for entry in file.data.get("categories", [])
        }
        for entry in file.data["annotations"]:
            what = "captions" if "caption" in entry else "boxes"
            mark = what, entry.get("id")
            if mark[1] is not None and mark in told:
                left_out[f"{what} given twice"] += 1
                continue
            told.add(mark)
            draft = drafts.get(_field(entry, "image_id", file.path, "annotations"))
            if draft is None:
                left_out[f"{what} of pictures that are not listed"] += 1
            elif what == "captions":
                draft.add_caption(entry["caption"], left_out)
            else:
                _box(entry, draft, categories, file.path, left_out)
    return list(drafts.values())


def _pictures(file: Content, drafts: dict[Any, Draft]) -> None:
    licences = {entry.get("id"): entry for entry in file.data.get("licenses", []) if isinstance(entry, dict)}
    for entry in file.data["images"]:
        number = _field(entry, "id", file.path, "images")
        name = _field(entry, "file_name", file.path, "images")
        known = drafts.setdefault(number, Draft(number, name, "coco"))
        if _NAME_2014.sub("", known.image) != _NAME_2014.sub("", name):
            raise LlavakitError(
                f"The id {number} stands for {known.image} and, in {file.path}, for {name}; these are files of "
                "different data sets, read them one after the other."
            )
        known.width, known.height = entry.get("width") or known.width, entry.get("height") or known.height
        if (licence := licences.get(entry.get("license"))) and not known.licence:
            known.licence, known.licence_url = str(licence.get("name", "")), str(licence.get("url", ""))
            known.licence_number = str(licence["id"])


def _box(
    entry: dict[str, Any], draft: Draft, categories: dict[Any, str], path: Path, left_out: Counter[str]
) -> None:
    category = categories.get(_field(entry, "category_id", path, "annotations"))
    if category is None:
        left_out["boxes of categories that are not listed"] += 1
        return
    try:
        box = corners(
            _field(entry, "bbox", path, "annotations"),
            "pixel_size",
            draft.width,
            draft.height,
            "boxes",
            left_out,
        )
    except BadBox as reason:
        left_out[str(reason)] += 1
        return
    draft.boxes.append(Box(str(category), box, crowd=bool(entry.get("iscrowd"))))


def _field(entry: Any, name: str, path: Path, where: str) -> Any:
    if not isinstance(entry, dict) or name not in entry:
        raise LlavakitError(
            f"{path}: an entry of `{where}` has no {name!r}; COCO's `images`, `annotations` and `categories` refer to "
            "each other by id. Fetch the file again, or write that field."
        )
    return entry[name]
