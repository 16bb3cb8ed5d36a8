"""A picture while its annotations come together from several files, and how its boxes become fractions of it.

Knows no file and no data set.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llavakit.synthesis.context import Annotated, Box, Corners, Region, Relation, Word

BOX_FORMATS = ("corners", "size", "pixel_corners", "pixel_size")
"""Left, top and right, bottom or width, height; in fractions of the picture or in pixels. COCO's is `pixel_size`."""

_SLACK = 1e-6


class BadBox(ValueError):
    """A box of which nothing is left, with a reason that can be counted."""


@dataclass(slots=True)
class Draft:
    """What is known of a picture so far. licence_number: its number in the file's own list, as text."""

    id: int | str
    image: str
    source: str
    width: float = 0
    height: float = 0
    licence: str = ""
    licence_url: str = ""
    licence_number: str = ""
    captions: list[str] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)

    def add_caption(self, text: Any, left_out: Counter[str]) -> None:
        """A caption on one line of its own, whatever blanks it holds; one that is empty or no text is counted."""
        written = (
            " ".join(line.strip() for line in text.splitlines()).strip() if isinstance(text, str) else ""
        )
        if written:
            self.captions.append(written)
        else:
            left_out["captions that are empty or no text"] += 1

    def annotated(self) -> Annotated:
        return Annotated(
            self.id,
            self.image,
            tuple(self.captions),
            tuple(self.boxes),
            tuple(self.regions),
            tuple(self.words),
            tuple(self.relations),
            int(self.width),
            int(self.height),
            self.source,
            self.licence,
            self.licence_url,
        )


def corners(
    box: Sequence[Any], form: str, width: float, height: float, what: str, left_out: Counter[str]
) -> Corners:
    """A box as fractions of its picture. One that reaches over the picture's edge is clipped, and counted.

    what: boxes of which sort are counted, such as `boxes` or `regions`.

    Raises:
        BadBox: it is not four finite numbers, has no size, or lies outside of the picture.
    """
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise BadBox(f"{what} that are not four numbers")
    first, second, third, fourth = box
    if form.endswith("size"):
        third, fourth = first + third, second + fourth
    if form.startswith("pixel"):
        if width <= 0 or height <= 0:
            raise BadBox(f"{what} in pixels of pictures whose size is not known")
        first, second, third, fourth = first / width, second / height, third / width, fourth / height
    if third <= first or fourth <= second:
        raise BadBox(f"{what} without size")
    if first >= 1 or second >= 1 or third <= 0 or fourth <= 0:
        raise BadBox(f"{what} outside of their picture")
    if min(first, second) < -_SLACK or max(third, fourth) > 1 + _SLACK:
        left_out[f"{what} clipped at their picture's edge (kept)"] += 1
    return max(0.0, first), max(0.0, second), min(1.0, third), min(1.0, fourth)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
