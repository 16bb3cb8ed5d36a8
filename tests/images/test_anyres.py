"""AnyRes in whole numbers: the released models' token counts, the rules of transformers, and tiles that fit them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension
from transformers.models.llava_next.modeling_llava_next import unpad_image

from llavakit.errors import LlavakitError
from llavakit.images.geometry import (
    V16_ANNOUNCED_GRIDS,
    V16_GRIDS,
    Grid,
    ImagePolicy,
    TowerGeometry,
    choose_grid,
    fitted_box,
    layout,
    token_count,
    unpadded_grid,
)
from llavakit.images.pixels import PixelSpec, to_tiles

CLIP = TowerGeometry(336, 14)
SIGLIP = TowerGeometry(384, 14)
ANYRES = ImagePolicy("anyres")
sides = st.integers(1, 4000)

# (width, height): chosen grid, kept columns x rows, positions in all
RELEASED = {
    (336, 336): ((1, 2), (24, 24), 1176), (224, 224): ((1, 2), (24, 24), 1176), (100, 100): ((1, 2), (24, 24), 1176),
    (672, 672): ((2, 2), (48, 48), 2928), (1024, 1024): ((2, 2), (48, 48), 2928),
    (336, 672): ((1, 2), (24, 48), 1776), (672, 336): ((2, 1), (48, 24), 1752),
    (336, 1344): ((1, 3), (18, 72), 1944), (1344, 336): ((3, 1), (72, 18), 1890),
    (336, 1008): ((1, 3), (24, 72), 2376), (1008, 336): ((3, 1), (72, 24), 2328),
    (640, 480): ((2, 2), (48, 36), 2340), (500, 375): ((2, 2), (48, 36), 2340), (800, 600): ((2, 2), (48, 36), 2340),
    (1024, 768): ((2, 2), (48, 36), 2340), (480, 640): ((2, 2), (36, 48), 2352), (375, 500): ((2, 2), (36, 48), 2352),
    (427, 640): ((2, 2), (32, 48), 2160), (1920, 1080): ((2, 2), (48, 28), 1948), (1080, 1920): ((2, 2), (28, 48), 1968),
    (1700, 2200): ((2, 2), (38, 48), 2448),
}  # fmt: skip


@pytest.mark.parametrize(("size", "expected"), RELEASED.items())
def test_the_released_models_counts(
    size: tuple[int, int], expected: tuple[tuple[int, int], tuple[int, int], int]
) -> None:
    found = layout(ANYRES, CLIP, *size)
    kept = (found.columns[1] - found.columns[0], found.rows[1] - found.rows[0])
    assert (found.grid, kept, found.tokens) == expected


@pytest.mark.parametrize(
    ("size", "tokens"),
    [((200, 300), 1476), ((300, 200), 976), ((100, 200), 1776), ((200, 100), 876)],
)
def test_small_pictures_settle_ties_as_the_original_does(size: tuple[int, int], tokens: int) -> None:
    assert token_count(ANYRES, CLIP, *size) == tokens


@pytest.mark.parametrize(("size", "tokens"), [((640, 480), 2929), ((768, 768), 3699), ((384, 384), 1513)])
def test_another_tower(size: tuple[int, int], tokens: int) -> None:
    assert token_count(ANYRES, SIGLIP, *size) == tokens


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        ((384, 384), 1485),
        ((1024, 768), 4725),
        ((1920, 1080), 7269),
        ((2304, 2304), 7371),
        ((1152, 1152), 7371),
    ],
)
def test_at_most_nine_tiles_worth(size: tuple[int, int], tokens: int) -> None:
    grids = tuple(Grid(i, j) for i in range(1, 7) for j in range(1, 7))
    assert token_count(ImagePolicy("anyres", grids, max_tiles=9), SIGLIP, *size) == tokens


@pytest.mark.parametrize(("merge", "tokens"), [("flat", 5 * 576), ("spatial", 5 * 576)])
def test_without_unpadding_every_feature_is_kept(merge: str, tokens: int) -> None:
    assert token_count(ImagePolicy("anyres", merge=merge), CLIP, 640, 480) == tokens


@given(sides, sides, st.sampled_from([V16_GRIDS, V16_ANNOUNCED_GRIDS]), st.sampled_from([CLIP, SIGLIP]))
@settings(max_examples=400, deadline=None)
def test_rules_are_those_of_transformers(
    width: int, height: int, grids: tuple[Grid, ...], tower: TowerGeometry
) -> None:
    size = tower.image_size
    pinpoints = [[grid.rows * size, grid.columns * size] for grid in grids]
    best = select_best_resolution((height, width), pinpoints)
    grid = choose_grid(grids, size, width, height)
    assert (grid.rows * size, grid.columns * size) == tuple(best)
    box = fitted_box(width, height, grid.columns * size, grid.rows * size)
    stand_in = np.broadcast_to(np.zeros(1, dtype=np.uint8), (3, height, width))
    resized = get_patch_output_size(stand_in, best, input_data_format=ChannelDimension.FIRST)
    assert (box.bottom - box.top, box.right - box.left) == tuple(resized)
    columns, rows = grid.columns * tower.side, grid.rows * tower.side
    plane = torch.arange(rows * columns).view(1, rows, columns)
    (top, bottom), (left, right) = unpadded_grid(columns, rows, width, height)
    assert torch.equal(plane[:, top:bottom, left:right], unpad_image(plane, (height, width)))


@pytest.mark.parametrize("size", [(55, 176), (176, 110), (205, 656), (352, 110), (376, 893), (423, 752)])
def test_unpadding_is_exact_where_floats_are_not(size: tuple[int, int]) -> None:
    columns, rows = 24, 48
    plane = torch.arange(rows * columns).view(1, rows, columns)
    (top, bottom), (left, right) = unpadded_grid(columns, rows, *size)
    assert torch.equal(plane[:, top:bottom, left:right], unpad_image(plane, size[::-1]))


@given(sides, sides)
@settings(max_examples=40, deadline=None)
def test_as_many_tiles_are_cut_as_are_laid_out(width: int, height: int) -> None:
    spec, tower = PixelSpec(8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), TowerGeometry(8, 4)
    tiles = to_tiles(Image.new("RGB", (width, height)), ANYRES, spec)
    assert tuple(tiles.shape) == (layout(ANYRES, tower, width, height).tiles, 3, 8, 8)


def test_tiles_are_the_whole_picture_and_then_its_parts_row_by_row() -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]
    picture = Image.new("RGB", (16, 16))
    for number, colour in enumerate(colours):
        picture.paste(
            colour, ((number % 2) * 8, (number // 2) * 8, (number % 2) * 8 + 8, (number // 2) * 8 + 8)
        )
    spec = PixelSpec(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    tiles = to_tiles(picture, ImagePolicy("anyres", (Grid(2, 2),)), spec)
    assert len(tiles) == 5
    for tile, colour in zip(tiles[1:], colours, strict=True):
        assert (tile * 255).mean((1, 2)).tolist() == pytest.approx(colour, abs=0.1)


def test_a_picture_of_another_shape_stands_in_the_middle_on_black() -> None:
    spec = PixelSpec(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    tiles = to_tiles(Image.new("RGB", (16, 8), "white"), ImagePolicy("anyres", (Grid(2, 2),)), spec)
    assert tiles[0].eq(1).all(), "the whole picture is squeezed, not padded"
    assert tiles[1, 0, :, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert tiles[3, 0, :, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_several_pictures_are_padded_or_tiled() -> None:
    assert token_count(ANYRES, CLIP, 640, 480, pictures=2) == 577
    assert token_count(ImagePolicy("anyres", several="anyres"), CLIP, 640, 480, pictures=2) == 2340


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ImagePolicy("anyres", merge="stacked"), "merge 'stacked' is not known"),
        (lambda: ImagePolicy("anyres", ()), "expected at least one"),
        (lambda: ImagePolicy("anyres", (Grid(0, 1),)), "of one tile or more"),
        (lambda: ImagePolicy("anyres", merge="flat", max_tiles=4), "max_tiles is 4 with merge flat"),
        (lambda: ImagePolicy("anyres", several="first"), "several 'first'"),
        (lambda: layout(ANYRES, TowerGeometry(336, 14, 1), 10, 10), "extra tokens a tile have"),
        (lambda: layout(ANYRES, CLIP, 0, 10), "a picture cannot be 0x10"),
    ],
)
def test_what_cannot_be_is_told(make, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(LlavakitError, match=words):
        make()
