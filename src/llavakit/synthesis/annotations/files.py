"""A file's content and which form it has, seen by what it holds.

Reads files; knows the forms by their marks alone and reads no annotation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llavakit.errors import LlavakitError

Form = Literal["coco", "vg_pictures", "vg_regions", "vg_objects", "vg_relationships", "rows"]

EXPECTED = (
    "expected COCO captions or instances, Visual Genome's image_data, region_descriptions, objects or relationships, "
    "or JSONL with `image` and `captions` or `instances` on each line"
)


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds. Rows of JSONL come with the numbers of their lines."""

    path: Path
    form: Form
    data: Any
    lines: tuple[int, ...] = ()


def read_file(path: Path) -> Content:
    """Read a file and see what it is.

    Raises:
        LlavakitError: it is missing, no text, a web page, cut or damaged JSON, or of no form that is known.
    """
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise LlavakitError(f"{path} is not there; give the path of an annotations file.") from error
    except IsADirectoryError as error:
        raise LlavakitError(f"{path} is a folder; name the annotations files in it.") from error
    except UnicodeDecodeError as error:
        raise LlavakitError(f"{path} is no UTF-8 text; unpack it if it is an archive.") from error
    except OSError as error:
        raise LlavakitError(f"{path} cannot be read: {error.strerror}.") from error
    text = text.rstrip()
    start = text.lstrip()[:200]
    if not start:
        raise LlavakitError(f"{path} is empty; {EXPECTED}.")
    if start.startswith("<"):
        raise LlavakitError(
            f"{path} is a web page (it begins with {start[:20]!r}), most likely of a download that was refused; "
            "fetch the file again."
        )
    if start.startswith("version https://git-lfs"):
        raise LlavakitError(f"{path} is a pointer of Git LFS and not the file; fetch it with `git lfs pull`.")
    if start.startswith("{") and _has_rows(text):
        return _rows(path, text)
    try:
        data = json.loads(text, object_hook=_lean)
    except json.JSONDecodeError as error:
        raise LlavakitError(
            f"{path} is not whole JSON: {error.msg} at line {error.lineno}, character {error.colno} (byte "
            f"{len(text[: error.pos].encode())}); fetch or write the file again."
        ) from error
    if isinstance(data, dict) and "image" in data:  # the only line of its file
        return Content(path, "rows", [data], (1,))
    return Content(path, _form(path, data), data)


def _lean(entry: dict[str, Any]) -> dict[str, Any]:
    """Outlines are most of COCO's bytes and are not used: dropped while reading, they never add up in memory."""
    entry.pop("segmentation", None)
    return entry


def _has_rows(text: str) -> bool:
    """Whether the first of several lines is an object by itself."""
    end = text.find("\n", text.index("{"))
    if end < 0:
        return False
    try:
        return isinstance(json.loads(text[:end]), dict)
    except json.JSONDecodeError:
        return False


def _rows(path: Path, text: str) -> Content:
    rows, numbers = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise LlavakitError(
                f"{path}: line {number} is not whole JSON ({error.msg} at character {error.colno}); "
                "fetch or write the file again."
            ) from error
        if not isinstance(row, dict):
            raise LlavakitError(
                f"{path}: line {number} holds {type(row).__name__}; every line is one picture's object."
            )
        rows.append(row)
        numbers.append(number)
    if not any("image" in row for row in rows):
        raise LlavakitError(f"{path} has lines with {_keys(rows[0])}; {EXPECTED}.")
    return Content(path, "rows", rows, tuple(numbers))


def _form(path: Path, data: Any) -> Form:
    if isinstance(data, dict):
        if isinstance(data.get("images"), list) and isinstance(data.get("annotations"), list):
            return "coco"
        raise LlavakitError(f"{path} holds an object with {_keys(data)}; {EXPECTED}.")
    first = data[0] if isinstance(data, list) and data else None
    if not isinstance(first, dict):
        found = "an empty list" if data == [] else f"a {type(data).__name__}"
        raise LlavakitError(f"{path} holds {found}; {EXPECTED}.")
    if "image" in first and "conversations" not in first:
        return "rows"
    marks: tuple[tuple[str, Form], ...] = (
        ("regions", "vg_regions"),
        ("objects", "vg_objects"),
        ("relationships", "vg_relationships"),
        ("coco_id", "vg_pictures"),
    )
    for mark, form in marks:
        if mark in first:
            return form
    if {"image_id", "url", "width", "height"} <= set(first):
        return "vg_pictures"
    raise LlavakitError(f"{path} holds a list of objects with {_keys(first)}; {EXPECTED}.")


def _keys(entry: dict[str, Any]) -> str:
    names = [f"`{name}`" for name in list(entry)[:6]]
    return ", ".join(names) + (", ..." if len(entry) > 6 else "") if names else "no keys"
