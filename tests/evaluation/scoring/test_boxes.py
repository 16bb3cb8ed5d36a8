"""Boxes in answers: how they are read, on which scale, and how far they overlap."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavakit.evaluation.scoring.boxes import (
    Corners,
    Scale,
    boxes_in,
    from_pixels,
    in_pixels,
    iou,
    lmms_hit,
    pointed,
)

SMALL = st.tuples(*[st.integers(0, 7)] * 4)
SCALES: tuple[Scale, ...] = ("square", "picture", "hundredths", "thousandths", "pixels")


def cells(box: Corners) -> set[tuple[int, int]]:
    """The unit squares that a box of whole numbers covers."""
    left, top, right, bottom = map(int, box)
    return set(itertools.product(range(left, right), range(top, bottom)))


@given(SMALL, SMALL)
def test_the_overlap_is_what_counting_squares_gives(one: Corners, other: Corners) -> None:
    mine, theirs = cells(one), cells(other)
    counted = len(mine & theirs) / len(mine | theirs) if mine and theirs else 0
    assert iou(one, other) == pytest.approx(counted)


@given(*[st.tuples(*[st.floats(-1e6, 1e6)] * 4)] * 2)
def test_the_overlap_is_symmetric_and_a_share(one: Corners, other: Corners) -> None:
    assert iou(one, other) == iou(other, one)
    assert 0 <= iou(one, other) <= 1


@given(st.sampled_from(SCALES), SMALL, st.integers(1, 5000), st.integers(1, 5000))
def test_a_scale_read_back_gives_the_box(scale: Scale, box: Corners, width: int, height: int) -> None:
    assert in_pixels(from_pixels(box, scale, width, height), scale, width, height) == pytest.approx(
        box, abs=1e-6
    )


@pytest.mark.parametrize(
    ("scale", "box"),
    [
        ("picture", (100, 50, 200, 100)), ("square", (100, 0, 200, 100)), ("hundredths", (1, 0.5, 2, 1)),
        ("thousandths", (0.1, 0.05, 0.2, 0.1)), ("pixels", (0.5, 0.5, 1, 1)),
    ],
)  # fmt: skip
def test_half_and_whole_on_every_scale(scale: Scale, box: Corners) -> None:
    # 200 wide, 100 high; the square has 50 pixels of padding above and below
    assert in_pixels((0.5, 0.5, 1, 1), scale, 200, 100) == pytest.approx(
        (100, 50, 200, 150) if scale == "square" else box
    )


def test_the_square_of_a_high_picture_is_padded_left_and_right() -> None:
    assert in_pixels((0.5, 0.5, 0.75, 1), "square", 100, 201) == (50.5, 100.5, 100.75, 201)
    assert in_pixels((0, 0, 1, 1), "square", 100, 201) == (-50, 0, 151, 201)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("[0.1, 0.2, 0.3, 0.4]", [(0.1, 0.2, 0.3, 0.4)]), ("It is [0,.5,1,1.0].", [(0, 0.5, 1, 1)]),
        ("(1, 2, 3, 4)", [(1, 2, 3, 4)]), ("<box>(12,34),(56,78)</box>", [(12, 34, 56, 78)]),
        ("<box>[[243, 469, 558, 746]]</box>", [(243, 469, 558, 746)]), ("{<1><2><33><44>}", [(1, 2, 33, 44)]),
        ('{"bbox_2d": [1, 2, 3, 4], "label": "dog"}', [(1, 2, 3, 4)]), ("[-1, 0, 2, 2]", [(-1, 0, 2, 2)]),
        ("[1, 2, 3, 4] and [5, 6, 7, 8]", [(1, 2, 3, 4), (5, 6, 7, 8)]), ("[\n 1,\n 2,\n 3,\n 4\n]", [(1, 2, 3, 4)]),
        ("[1, 2, 3]", []), ("[1, 2, 3, 4, 5]", []), ("1, 2, 3, 4", []), ("[1, 2, nan, inf]", []), ("", []), ("[" * 100_000, []),
        ("[1, " * 25_000, []), ("9" * 100_000, []), ("[0.1, 0.2,\x00 0.3, 0.4]", []), ("[1e9, 2, 3, 4]", []),
    ],
)  # fmt: skip
def test_boxes_as_the_field_writes_them(text: str, boxes: list[Corners]) -> None:
    assert list(boxes_in(text)) == boxes


@pytest.mark.parametrize(
    ("answer", "scale", "note"),
    [
        ("[0.1, 0.1, 0.5, 0.5]", "picture", ""), ("the dog", "picture", "no box found"),
        ("[10, 10, 50, 50]", "picture", "numbers of another scale"), ("[0.1, 0.1, 0.5, 0.5]", "pixels", "numbers of another scale"),
        ("[10, 10, 50, 50]", "pixels", ""), ("[0.5, 0.1, 0.1, 0.5]", "picture", "corners in the wrong order"),
        ("[0, 0, 1, 1] [0, 0, 1, 1]", "picture", "several boxes, the first taken"),
        ("[0, 0, 1.04, 1]", "picture", "a box that reaches outside the picture"), ("[0, 0, 1, 1]", "picture", ""),
        ("[0, 0.25, 1, 0.75]", "square", ""), ("[0, 0.1, 1, 0.75]", "square", "a box that reaches outside the picture"),
        ("[0, 0, 1000, 1000]", "thousandths", ""), ("[0, 0, 1000, 1000]", "hundredths", "numbers of another scale"),
    ],
)  # fmt: skip
def test_what_is_odd_about_a_box_is_told(answer: str, scale: Scale, note: str) -> None:
    assert pointed(answer, scale, 200, 100).note == note


@pytest.mark.parametrize(
    ("answer", "hit"),
    [
        ("[0.25, 0.25, 0.75, 0.75]", True), ("[0.25, 0.25, 0.5, 0.75]", True), ("[0.25, 0.25, 0.49, 0.75]", False), ("", False),
        ("(0.25, 0.25, 0.75, 0.75)", False), ("[0.75, 0.75, 0.25, 0.25]", False), ("[50, 25, 150, 75]", False),
        ("[.25, .25, .75, .75]", False),
    ],
)  # fmt: skip
def test_lmms_eval_reads_square_brackets_as_parts_of_the_picture(answer: str, hit: bool) -> None:
    assert lmms_hit(answer, (50, 25, 150, 75), 200, 100) is hit
