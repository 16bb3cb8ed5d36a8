"""Integers about pictures: token counts, crops and pads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavakit.errors import LlavakitError
from llavakit.images.geometry import (
    ImagePolicy,
    TowerGeometry,
    centre_crop_box,
    pad_box,
    shortest_edge_size,
    square_crop_box,
    token_count,
)

sides = st.integers(1, 20_000)


@pytest.mark.parametrize(
    ("image_size", "patch_size", "extra", "tokens"),
    [
        (224, 14, 0, 256),
        (336, 14, 0, 576),
        (336, 14, 1, 577),
        (384, 14, 0, 729),
        (224, 16, 0, 196),
        (96, 12, 0, 64),
    ],
)
@pytest.mark.parametrize("policy", ["square", "pad"])
def test_a_picture_takes_the_patches_of_one_tile(
    policy: str, image_size: int, patch_size: int, extra: int, tokens: int
) -> None:
    tower = TowerGeometry(image_size, patch_size, extra)
    assert (
        token_count(ImagePolicy(policy), tower, 640, 480)
        == token_count(ImagePolicy(policy), tower, 1, 4000)
        == tokens
    )


def test_what_cannot_be_is_refused() -> None:
    tower = TowerGeometry(336, 14)
    with pytest.raises(
        LlavakitError, match="image policy 'stretch' is not known; expected one of square, pad"
    ):
        ImagePolicy("stretch")
    with pytest.raises(LlavakitError, match="0x10 pixels"):
        token_count(ImagePolicy("pad"), tower, 0, 10)
    with pytest.raises(LlavakitError, match="patch_size 14"):
        TowerGeometry(13, 14)
    with pytest.raises(LlavakitError, match="square of 336 pixels"):
        centre_crop_box(336, 335, 336)


@given(width=sides, height=sides, edge=st.integers(1, 1024))
def test_the_shorter_side_becomes_the_edge_and_the_crop_fits(width: int, height: int, edge: int) -> None:
    scaled = shortest_edge_size(width, height, edge)
    assert min(scaled) == edge
    # The processor of transformers computes the longer side in floating point.
    assert max(scaled) == int(edge * max(width, height) / min(width, height))
    left, top, right, bottom = centre_crop_box(*scaled, edge)
    assert (right - left, bottom - top) == (edge, edge)
    assert left >= 0 and top >= 0 and right <= scaled[0] and bottom <= scaled[1]
    assert abs((left + right) - scaled[0]) <= 1 and abs((top + bottom) - scaled[1]) <= 1


@given(width=sides, height=sides)
def test_a_padded_picture_stands_whole_in_the_middle_of_the_square(width: int, height: int) -> None:
    side, (left, top, right, bottom) = pad_box(width, height)
    assert side == max(width, height)
    assert (right - left, bottom - top) == (width, height)
    assert (side - right) - left in (0, 1) and (side - bottom) - top in (0, 1)


@given(width=sides, height=sides)
def test_the_square_policy_sees_the_largest_square_in_the_middle(width: int, height: int) -> None:
    left, top, right, bottom = square_crop_box(width, height)
    assert right - left == bottom - top == min(width, height)
    assert left >= 0 and top >= 0 and right <= width and bottom <= height
