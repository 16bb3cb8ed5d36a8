"""What a text-only teacher is told of a picture: its captions and its boxes, written as symbols.

A picture's captions stand one a line; after an empty line come the boxes, one a line, as
`category: [left, top, right, bottom]` in fractions of the picture with three decimals (LLaVA, section 3). They are read
from the two files in which COCO publishes them.

This room reads annotations. It opens no picture and knows no teacher.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llavakit.errors import LlavakitError

Corners = tuple[float, float, float, float]
"""Left, top, right, bottom, in fractions of the picture."""


@dataclass(frozen=True, slots=True)
class Box:
    """A category and its corners. crowd: the box stands for several that were not told apart, so it is not counted."""

    category: str
    corners: Corners
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the picture and a phrase about it, as Visual Genome has them."""

    phrase: str
    corners: Corners


@dataclass(frozen=True, slots=True)
class Word:
    """A word that is written in the picture, and where it stands."""

    text: str
    corners: Corners | None = None


@dataclass(frozen=True, slots=True)
class Relation:
    """Two of the picture's boxes, by their places in the list, and what holds between them: `riding`, `left of`."""

    subject: int
    predicate: str
    object: int


@dataclass(frozen=True, slots=True)
class Annotated:
    """A picture's file name with what people said of it.

    width, height: pixels, 0 where they are not known. source: the data set, such as `coco`. licence: its name, as the
    data set tells it; "" where it does not.
    """

    id: int | str
    image: str
    captions: tuple[str, ...]
    boxes: tuple[Box, ...]
    regions: tuple[Region, ...] = ()
    words: tuple[Word, ...] = ()
    relations: tuple[Relation, ...] = ()
    width: int = 0
    height: int = 0
    source: str = ""
    licence: str = ""
    licence_url: str = ""


def symbols(picture: Annotated) -> str:
    """The captions and boxes as the text that stands for the picture before a text-only teacher."""
    boxes = [
        f"{box.category}: [{', '.join(f'{value:.3f}' for value in box.corners)}]" for box in picture.boxes
    ]
    return "\n".join(picture.captions) + "\n\n" + "\n".join(boxes)


def read_coco(captions: Path, instances: Path) -> list[Annotated]:
    """Join a COCO captions file with its instances file, in the order of the captions file's pictures.

    Raises:
        LlavakitError: a file is missing, is not JSON, or lacks one of COCO's lists or fields.
    """
    told, seen = _load(captions), _load(instances)
    try:
        categories = {entry["id"]: entry["name"] for entry in seen["categories"]}
        pictures = {entry["id"]: entry for entry in told["images"]}
        written: dict[int, list[str]] = {number: [] for number in pictures}
        for entry in told["annotations"]:
            written[entry["image_id"]].append(entry["caption"].strip())
        boxed: dict[int, list[Box]] = {number: [] for number in pictures}
        for entry in seen["annotations"]:
            if entry["image_id"] in pictures:
                picture = pictures[entry["image_id"]]
                box = _corners(entry["bbox"], picture["width"], picture["height"])
                boxed[entry["image_id"]].append(Box(categories[entry["category_id"]], box))
    except KeyError as error:
        raise LlavakitError(
            f"{captions} and {instances} do not fit together as COCO annotations: {error} is missing; "
            "expected `images`, `annotations` and `categories` that refer to each other by id."
        ) from error
    return [
        Annotated(number, picture["file_name"], tuple(written[number]), tuple(boxed[number]))
        for number, picture in pictures.items()
    ]


def _corners(bbox: Iterable[float], width: float, height: float) -> tuple[float, float, float, float]:
    left, top, across, down = bbox
    return left / width, top / height, (left + across) / width, (top + down) / height


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise LlavakitError(f"{path} is not there; give the path of a COCO annotations file.") from error
    except json.JSONDecodeError as error:
        raise LlavakitError(f"{path} is not whole JSON ({error}); fetch or write the file again.") from error
    if not isinstance(content, dict):
        raise LlavakitError(
            f"{path} holds a JSON {type(content).__name__}; a COCO annotations file is an object."
        )
    return content
