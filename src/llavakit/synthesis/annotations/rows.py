"""One picture a line: `image` with any of `captions`, `instances`, `regions`, `words` (or `ocr`) and `relations`.

    {"image": "a/1.jpg", "captions": ["A dog."], "instances": [{"category": "dog", "bbox": [0.1, 0.2, 0.5, 0.9]}],
     "regions": [{"phrase": "a wet nose", "bbox": [...]}], "words": ["EXIT", {"text": "14", "bbox": [...]}],
     "relations": [{"subject": 0, "predicate": "on", "object": 1}],
     "id": 1, "source": "mine", "licence": "CC BY 4.0", "licence_url": "...", "width": 640, "height": 480,
     "box_format": "corners"}

Boxes are corners in fractions of the picture unless `box_format` says otherwise. The contexts of LLaVA-Bench (COCO) are
written so. Knows what stands in the rows, not how the file is opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.synthesis.annotations.draft import BOX_FORMATS, BadBox, Draft, corners
from llavakit.synthesis.annotations.files import Content
from llavakit.synthesis.context import Box, Corners, Region, Relation, Word

_LISTS = ("captions", "instances", "regions", "words", "ocr", "relations")


def read_rows(file: Content, left_out: Counter[str]) -> list[Draft]:
    """The pictures of a file in its order; an id that is missing is the name, a source that is missing the file's.

    Raises:
        LlavakitError: a row has no `image`, a list that is none, an unknown `box_format`, a relation between boxes that
            are not there, or boxes over 1 where fractions were expected. The line is named.
    """
    lines = file.lines or tuple(range(1, len(file.data) + 1))
    return [
        _draft(
            row,
            f"{file.path}: line {line}" if file.lines else f"{file.path}: entry {line}",
            file.path,
            left_out,
        )
        for row, line in zip(file.data, lines, strict=True)
    ]


def _draft(row: dict[str, Any], where: str, path: Path, left_out: Counter[str]) -> Draft:
    if not isinstance(row.get("image"), str) or not row["image"]:
        raise LlavakitError(f"{where} has no `image`; every row names its picture's file.")
    for name in _LISTS:
        if not isinstance(row.get(name) or [], list):
            raise LlavakitError(f"{where}: `{name}` is {type(row[name]).__name__}; expected a list.")
    form = row.get("box_format", "corners")
    if form not in BOX_FORMATS:
        raise LlavakitError(f"{where}: `box_format` is {form!r}; it is one of {', '.join(BOX_FORMATS)}.")
    number = row.get("id")
    draft = Draft(
        number if isinstance(number, int | str) else row["image"],
        row["image"],
        str(row.get("source") or path.stem),
        _size(row.get("width")),
        _size(row.get("height")),
        str(row.get("licence") or row.get("license") or ""),
        str(row.get("licence_url") or row.get("license_url") or ""),
    )

    def box(entry: dict[str, Any], what: str) -> Corners | None:
        found = entry.get("bbox")
        _expect_fractions(found, form, where)
        try:
            return corners(found, form, draft.width, draft.height, what, left_out)  # type: ignore[arg-type]
        except BadBox as reason:
            left_out[str(reason)] += 1
            return None

    for caption in row.get("captions") or ():
        draft.add_caption(caption, left_out)
    kept: dict[int, int] = {}
    for place, entry in enumerate(_objects(row, "instances", where)):
        category, found = str(entry.get("category") or "").strip(), box(entry, "boxes")
        if not category:
            left_out["boxes without a category"] += 1
        elif found is not None:
            kept[place] = len(draft.boxes)
            draft.boxes.append(Box(category, found, crowd=bool(entry.get("iscrowd"))))
    for entry in _objects(row, "regions", where):
        phrase, found = " ".join(str(entry.get("phrase") or "").split()), box(entry, "regions")
        if not phrase:
            left_out["regions without a phrase"] += 1
        elif found is not None:
            draft.regions.append(Region(phrase, found))
    for entry in [*(row.get("words") or ()), *(row.get("ocr") or ())]:
        told = entry if isinstance(entry, dict) else {"text": entry}
        text = " ".join(str(told.get("text") or "").split())
        if text:
            draft.words.append(Word(text, box(told, "words' boxes") if told.get("bbox") else None))
        else:
            left_out["words that are empty"] += 1
    for entry in _objects(row, "relations", where):
        _relate(entry, draft, kept, len(row.get("instances") or ()), where, left_out)
    return draft


def _relate(
    entry: dict[str, Any], draft: Draft, kept: dict[int, int], total: int, where: str, left_out: Counter[str]
) -> None:
    ends = entry.get("subject"), entry.get("object")
    predicate = str(entry.get("predicate") or "").strip()
    if not predicate or not all(isinstance(end, int) and 0 <= end < total for end in ends):
        raise LlavakitError(
            f"{where}: a relation is {entry}; expected `subject` and `object` as places in `instances` (0 to "
            f"{total - 1}) and a `predicate`."
        )
    subject, object_ = kept.get(ends[0]), kept.get(ends[1])  # type: ignore[arg-type]
    if subject is None or object_ is None:
        left_out["relations of things without a box"] += 1
    else:
        draft.relations.append(Relation(subject, predicate, object_))


def _objects(row: dict[str, Any], name: str, where: str) -> Sequence[dict[str, Any]]:
    entries = row.get(name) or []
    if not all(isinstance(entry, dict) for entry in entries):
        raise LlavakitError(f"{where}: `{name}` holds something that is no object.")
    return list(entries)


def _expect_fractions(box: Any, form: str, where: str) -> None:
    if form.startswith("pixel") or not isinstance(box, list):
        return
    if any(isinstance(value, int | float) and value > 2 for value in box):
        raise LlavakitError(
            f'{where}: the box {box} is not in fractions of the picture; say `"box_format": "pixel_corners"` or '
            '`"pixel_size"` in the row, and `width` and `height`.'
        )


def _size(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0
