"""What a text-only teacher is told of a picture: its captions and its boxes, written as symbols.

A picture's captions stand one a line; after an empty line come the boxes, one a line, as
`category: [left, top, right, bottom]` in fractions of the picture with up to three decimals (LLaVA, section 3).
`annotations` reads them.

Data and its text alone: opens no file and knows no teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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


Part = Literal["captions", "boxes", "regions", "words", "relations"]


def symbols(picture: Annotated, parts: Sequence[Part] = ("captions", "boxes")) -> str:
    """What is known of the picture as the text that stands for it before a text-only teacher.

    Captions and boxes are written as LLaVA writes them: no heading, an empty line between both, corners rounded to
    three decimals and printed as numbers (`0.24`). The other parts follow under a heading. A part of which nothing is
    known is left out, so the text is empty when nothing is.
    """
    return "\n\n".join(text for part in parts if (text := _written(picture, part)))


def _written(picture: Annotated, part: Part) -> str:
    if part == "captions":
        return "\n".join(picture.captions)
    if part == "boxes":
        return "\n".join(f"{box.category}: {_corners_text(box.corners)}" for box in picture.boxes)
    if part == "regions":
        lines = [f"{region.phrase}: {_corners_text(region.corners)}" for region in picture.regions]
        return "\n".join(["Regions:", *lines]) if lines else ""
    if part == "words":
        lines = [
            f'"{word.text}"' + (f": {_corners_text(word.corners)}" if word.corners else "")
            for word in picture.words
        ]
        return "\n".join(["Words in the picture:", *lines]) if lines else ""
    lines = [
        f"{_named(picture, one.subject)} {one.predicate} {_named(picture, one.object)}"
        for one in picture.relations
    ]
    return "\n".join(["Relations:", *lines]) if lines else ""


def _named(picture: Annotated, number: int) -> str:
    """A box by its category, and by its place among those of the category where there are several."""
    category = picture.boxes[number].category
    alike = [place for place, box in enumerate(picture.boxes) if box.category == category]
    return category if len(alike) == 1 else f"{category} {alike.index(number) + 1}"


def _corners_text(corners: Corners) -> str:
    return f"[{', '.join(str(round(float(value), 3)) for value in corners)}]"
