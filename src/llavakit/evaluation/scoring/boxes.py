"""Boxes in answers: how they are written, on which scale their numbers are, and how far two boxes overlap.

A box is left, top, right, bottom. Nothing is guessed: which scale an answer's numbers are on is told, not seen, and a
box whose corners come in the wrong order is empty, as in the tools of the field. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Corners = tuple[float, float, float, float]
"""Left, top, right, bottom."""

Scale = Literal["square", "picture", "hundredths", "thousandths", "pixels"]
"""What numbers in an answer are parts of.

square: 0 to 1 of the picture padded to a square, as LLaVA-1.5 is trained (its repository, issue 606). picture: 0 to 1
of the picture. hundredths, thousandths: 0 to 100 and 0 to 1000 of the picture. pixels: of the picture.
"""

_FULL: dict[Scale, float] = {"square": 1, "picture": 1, "hundredths": 100, "thousandths": 1000}

_N = r"(-?(?:[0-9]{1,9}(?:\.[0-9]{1,20})?|\.[0-9]{1,20}))"
_AND = r"\s{0,8},\s{0,8}"
_BOX = re.compile(
    rf"[\[(]\s{{0,8}}{_N}{_AND}{_N}{_AND}{_N}{_AND}{_N}\s{{0,8}}[\])]"  # [l, t, r, b] and (l, t, r, b)
    rf"|\(\s{{0,8}}{_N}{_AND}{_N}\s{{0,8}}\)\s{{0,8}},?\s{{0,8}}\(\s{{0,8}}{_N}{_AND}{_N}\s{{0,8}}\)"  # (l,t),(r,b)
    rf"|<{_N}>\s{{0,8}}<{_N}>\s{{0,8}}<{_N}>\s{{0,8}}<{_N}>"  # <l><t><r><b>
)


def boxes_in(text: str) -> Iterator[Corners]:
    """The boxes that are written in a text, as they stand, in order."""
    for match in _BOX.finditer(text):
        left, top, right, bottom = (float(number) for number in match.groups() if number is not None)
        yield left, top, right, bottom


def in_pixels(box: Corners, scale: Scale, width: float, height: float) -> Corners:
    """A box of an answer in pixels of the picture.

    LLaVA pads on both sides alike, a pixel more behind where the difference is odd.
    """
    left, top, right, bottom = box
    if scale == "pixels":
        return box
    if scale == "square":
        side = max(width, height)
        before, above = (side - width) // 2, (side - height) // 2
        return left * side - before, top * side - above, right * side - before, bottom * side - above
    full = _FULL[scale]
    return left / full * width, top / full * height, right / full * width, bottom / full * height


def from_pixels(box: Corners, scale: Scale, width: float, height: float) -> Corners:
    """The numbers that an answer on this scale has for a box in pixels of the picture."""
    left, top, right, bottom = box
    if scale == "pixels":
        return box
    if scale == "square":
        side = max(width, height)
        before, above = (side - width) // 2, (side - height) // 2
        return (left + before) / side, (top + above) / side, (right + before) / side, (bottom + above) / side
    full = _FULL[scale]
    return left / width * full, top / height * full, right / width * full, bottom / height * full


def area(box: Corners) -> float:
    """The area; 0 where a corner stands before the one it comes behind."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def iou(one: Corners, other: Corners) -> float:
    """What both boxes cover over what either covers, 0 to 1; 0 where one of them is empty."""
    if not area(one) or not area(other):
        return 0.0
    both = area((max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])))
    return min(1.0, both / (area(one) + area(other) - both))


@dataclass(frozen=True, slots=True)
class Pointed:
    """What an answer points at. box: in pixels of the picture, None where none is written. note: what is odd about it,
    the weightiest alone; "" where nothing is."""

    box: Corners | None
    note: str = ""


def pointed(answer: str, scale: Scale, width: float, height: float) -> Pointed:
    """The first box of an answer on a scale, for a picture of so many pixels."""
    found = boxes_in(answer)
    first = next(found, None)
    if first is None:
        return Pointed(None, "no box found")
    full = _FULL.get(scale, max(width, height))
    box = in_pixels(first, scale, width, height)
    if max(first) > 1.05 * full or min(first) < -0.05 * full or (full > 1 and max(first) <= 1):
        return Pointed(box, "numbers of another scale")
    if first[2] < first[0] or first[3] < first[1]:
        return Pointed(box, "corners in the wrong order")
    if next(found, None) is not None:
        return Pointed(box, "several boxes, the first taken")
    if min(box) < -1 or box[2] > width + 1 or box[3] > height + 1:
        return Pointed(box, "a box that reaches outside the picture")
    return Pointed(box)


_LMMS = r"(-?\d+(?:\.\d+)?)"
_BRACKETED = re.compile(rf"\[\s*{_LMMS},\s*{_LMMS},\s*{_LMMS},\s*{_LMMS}\s*\]")


def lmms_hit(answer: str, truth: Corners, width: float, height: float, least: float = 0.5) -> bool:
    """Whether lmms-eval's `refcoco_bbox_rec` takes the answer for right.

    It reads four numbers in square brackets as parts of the picture, whatever they are, and four times 0 where there
    are none or one begins with its point; areas of boxes in the wrong order may be negative.
    """
    match = _BRACKETED.search(answer)
    mine = [float(number) for number in match.groups()] if match else [0.0] * 4
    true = [truth[0] / width, truth[1] / height, truth[2] / width, truth[3] / height]
    across = max(0.0, min(mine[2], true[2]) - max(mine[0], true[0]))
    down = max(0.0, min(mine[3], true[3]) - max(mine[1], true[1]))
    areas = (mine[2] - mine[0]) * (mine[3] - mine[1]) + (true[2] - true[0]) * (true[3] - true[1])
    union = areas - across * down
    return bool(union) and across * down / union >= least
