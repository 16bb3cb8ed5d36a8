"""Integers about pictures: how many positions a picture takes, and where it is cropped or padded.

Pure functions of (width, height) and of the tower's numbers; no picture is opened here, and neither PIL nor torch is
known. The data index counts with `layout`, the model puts features in order by it, and `pixels` cuts, crops and pads
with the rest, so that what is counted is what is made.

Sizes are (width, height) in pixels, after EXIF orientation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llavakit.errors import LlavakitError

POLICIES = ("square", "pad", "anyres")
MERGES = ("flat", "spatial", "spatial_unpad")
POOLINGS = ("average", "bilinear")


class Grid(NamedTuple):
    """How many tiles stand beside and below each other: (columns, rows)."""

    columns: int
    rows: int


# The pinpoints of the released v1.6 models, in tiles: [336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008].
V16_GRIDS = (Grid(1, 2), Grid(2, 1), Grid(2, 2), Grid(3, 1), Grid(1, 3))
# Those that the v1.6 announcement names: {2x2, 1x{2,3,4}, {2,3,4}x1}.
V16_ANNOUNCED_GRIDS = (Grid(2, 2), Grid(1, 2), Grid(1, 3), Grid(1, 4), Grid(2, 1), Grid(3, 1), Grid(4, 1))

# `anyres_max_N` leaves features as they are until they are this many times, along a side, over what is allowed.
_TOLERATED = 1.1


class Box(NamedTuple):
    """A rectangle in pixels; `right` and `bottom` lie just outside, as PIL counts."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, slots=True)
class TowerGeometry:
    """What of a vision tower decides the number of features of one tile.

    image_size: side of the square tile in pixels. patch_size: side of a patch; pixels that do not fill a patch are
    ignored, as the tower's convolution does (384 by 14 gives 27 x 27). extra_tokens: features kept beside those of
    the patches, 1 for `cls_patch` on a tower with a class token. reduced_side: features along one side of a tile
    behind a projector that makes fewer of them; as many as patches when None.
    """

    image_size: int
    patch_size: int
    extra_tokens: int = 0
    reduced_side: int | None = None

    def __post_init__(self) -> None:
        if self.reduced_side is not None and (self.reduced_side < 1 or self.extra_tokens):
            raise LlavakitError(
                f"a projector cannot make {self.reduced_side} features a side beside {self.extra_tokens} extra tokens; "
                "expected at least one, and vision_feature_select `patch`"
            )
        if not 1 <= self.patch_size <= self.image_size or self.extra_tokens < 0:
            raise LlavakitError(
                f"a vision tower cannot have image_size {self.image_size}, patch_size {self.patch_size} and "
                f"{self.extra_tokens} extra tokens; expected 1 <= patch_size <= image_size and no negative number"
            )

    @property
    def side(self) -> int:
        """Features along one side of a tile."""
        return self.reduced_side or self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Features of a tile: its patches (or what a projector makes of them) and the extra tokens."""
        return self.side * self.side + self.extra_tokens


def check_policy(policy: str) -> None:
    """Raises LlavakitError, naming the policies there are, for any other."""
    if policy not in POLICIES:
        raise LlavakitError(f"image policy {policy!r} is not known; expected one of {', '.join(POLICIES)}")


@dataclass(frozen=True, slots=True)
class ImagePolicy:
    """How pictures are shown to the tower.

    name: `square`, `pad` or `anyres`; the rest is read under `anyres` alone. grids: the pinpoints, in tiles, in the
    order that settles ties. merge: how the features of the tiles become one sequence. max_tiles: the N of
    `anyres_max_N`. several: what is done where a conversation has more than one picture, `pad` or `anyres`. frames:
    the most that are shown of a video. pool: how many features a side of a frame become one. pooling: `average`, or
    `bilinear`, which also fits where `pool` does not divide the side (both LLaVA-NeXT's, bilinear its default).
    """

    name: str = "pad"
    grids: tuple[Grid, ...] = V16_GRIDS
    merge: str = "spatial_unpad"
    max_tiles: int | None = None
    several: str = "pad"
    frames: int = 8
    pool: int = 2
    pooling: str = "average"

    def __post_init__(self) -> None:
        check_policy(self.name)
        if self.merge not in MERGES:
            raise LlavakitError(f"merge {self.merge!r} is not known; expected one of {', '.join(MERGES)}")
        if self.several not in ("pad", "anyres"):
            raise LlavakitError(f"several {self.several!r} is not known; expected pad or anyres")
        if not self.grids or min(min(grid) for grid in self.grids) < 1:
            raise LlavakitError(f"grids {self.grids}: expected at least one, of one tile or more each way")
        if self.max_tiles is not None and (self.max_tiles < 1 or self.merge != "spatial_unpad"):
            raise LlavakitError(
                f"max_tiles is {self.max_tiles} with merge {self.merge}; expected at least 1, with spatial_unpad"
            )
        if self.frames < 1 or self.pool < 1 or self.pooling not in POOLINGS:
            raise LlavakitError(
                f"video frames {self.frames}, pool {self.pool}, pooling {self.pooling!r}; expected at least one frame, "
                f"a pool of at least 1, and pooling {' or '.join(POOLINGS)}"
            )

    @property
    def newline(self) -> bool:
        """Whether a row of features ends with the newline's row."""
        return self.name == "anyres" and self.merge == "spatial_unpad"

    def tiling(self, pictures: int) -> bool:
        """Whether a picture of a conversation with so many is cut into tiles."""
        return self.name == "anyres" and (pictures == 1 or self.several == "anyres")


@dataclass(frozen=True, slots=True)
class Layout:
    """What becomes of one picture: its tiles, and the positions that their features take.

    tiles: how many, the whole picture first. grid: how the others stand, None for the whole alone. rows, columns: the
    first and one past the last of the stitched features that are kept (all of them without unpadding). resized:
    (rows, columns) to which the kept features are scaled, None where they stay. newline: a newline's row ends every
    row of the stitched features, or the whole picture's where there is no grid. pooled: set for a frame of a video
    alone: how its features are pooled to a square of `tokens`. tokens: positions in all.
    """

    tiles: int
    tokens: int
    grid: Grid | None = None
    rows: tuple[int, int] = (0, 0)
    columns: tuple[int, int] = (0, 0)
    resized: tuple[int, int] | None = None
    newline: bool = False
    pooled: str | None = None


def frame_layout(policy: ImagePolicy, tower: TowerGeometry) -> Layout:
    """The layout of a frame of a video, whatever its size: one tile, its features pooled, without a newline.

    Raises LlavakitError where the tower's features of a tile cannot be pooled so.
    """
    if tower.extra_tokens:
        raise LlavakitError(
            f"a frame of a video is pooled in a plane, where {tower.extra_tokens} extra tokens a tile have no place; "
            "use vision_feature_select `patch`"
        )
    if policy.pooling == "average" and tower.side % policy.pool:
        raise LlavakitError(
            f"a frame of a video has {tower.side} features a side, which is no multiple of its pool of {policy.pool}; "
            "use pooling bilinear, or a pool that divides them"
        )
    side = -(-tower.side // policy.pool)
    return Layout(1, side * side, pooled=policy.pooling)


def layout(policy: ImagePolicy, tower: TowerGeometry, width: int, height: int, pictures: int = 1) -> Layout:
    """The layout of a picture of this size in a conversation of so many pictures (frames of videos not counted).

    Under `anyres` as the original does it: the features of the whole picture, squeezed into one tile; then those of
    its tiles, stitched, without the rows or columns that are padding alone. Raises LlavakitError for an impossible
    size.
    """
    _check_size(width, height)
    if not policy.tiling(pictures):
        return Layout(1, tower.tokens + policy.newline, newline=policy.newline)
    grid = choose_grid(policy.grids, tower.image_size, width, height)
    tiles = 1 + grid.columns * grid.rows
    if policy.merge == "flat":
        return Layout(tiles, tiles * tower.tokens, grid)
    if tower.extra_tokens:
        raise LlavakitError(
            f"merge {policy.merge} lays features out in a plane, where {tower.extra_tokens} extra tokens a tile have "
            "no place; use vision_feature_select `patch`, or merge flat"
        )
    all_rows, all_columns = grid.rows * tower.side, grid.columns * tower.side
    if policy.merge == "spatial":
        return Layout(tiles, tiles * tower.tokens, grid, (0, all_rows), (0, all_columns))
    rows, columns = unpadded_grid(all_columns, all_rows, width, height)
    shape = rows[1] - rows[0], columns[1] - columns[0]
    resized = None
    if policy.max_tiles is not None:
        times = math.sqrt(shape[0] * shape[1] / (policy.max_tiles * tower.side**2))
        if times > _TOLERATED:
            shape = resized = max(1, int(shape[0] // times)), max(1, int(shape[1] // times))
    tokens = tower.tokens + shape[0] * (shape[1] + 1)
    return Layout(tiles, tokens, grid, rows, columns, resized, newline=True)


def token_count(policy: ImagePolicy, tower: TowerGeometry, width: int, height: int, pictures: int = 1) -> int:
    """Positions that a picture of this size takes in a conversation of so many pictures."""
    return layout(policy, tower, width, height, pictures).tokens


def choose_grid(grids: Sequence[Grid], tile: int, width: int, height: int) -> Grid:
    """The grid that shows most of a picture's own pixels and, of equals, wastes least; the first of those.

    The rule of LLaVA's `select_best_resolution`. Scaling up shows no more than the picture has.
    """
    _check_size(width, height)
    best, most, least = grids[0], -1, 0
    for grid in grids:
        wide, high = grid.columns * tile, grid.rows * tile
        scale = min(wide / width, high / height)  # in floats, as there: where that rounds, all choose alike
        shown = min(int(width * scale) * int(height * scale), width * height)
        wasted = wide * high - shown
        if shown > most or (shown == most and wasted < least):
            best, most, least = grid, shown, wasted
    return best


def fitted_box(width: int, height: int, wide: int, high: int) -> Box:
    """Where a picture stands when it is scaled, up or down, to fit into (wide, high) and set in the middle.

    The rule of LLaVA's `resize_and_pad_image`.
    """
    _check_size(width, height)
    across, down = wide / width, high / height  # in floats, as there
    if across < down:
        size = wide, min(math.ceil(height * across), high)
    else:
        size = min(math.ceil(width * down), wide), high
    left, top = (wide - size[0]) // 2, (high - size[1]) // 2
    return Box(left, top, left + size[0], top + size[1])


def unpadded_grid(
    columns: int, rows: int, width: int, height: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(rows, columns) that are kept of stitched features, each as first and one past the last.

    The rule of LLaVA's `unpad_image`, in whole numbers: as much is cut on both sides, so that what is kept may be one
    row or column more than the picture's part.
    """
    if width * rows > columns * height:
        cut = (rows - height * columns // width) // 2
        return (cut, rows - cut), (0, columns)
    cut = (columns - width * rows // height) // 2
    return (0, rows), (cut, columns - cut)


def shortest_edge_size(width: int, height: int, edge: int) -> tuple[int, int]:
    """(width, height) after scaling so that the shorter side is `edge`; the longer one is rounded down.

    The rule of the CLIP image processor (`size: {shortest_edge: ...}`).
    """
    _check_size(width, height)
    if width <= height:
        return edge, edge * height // width
    return edge * width // height, edge


def centre_crop_box(width: int, height: int, size: int) -> Box:
    """The `size` x `size` square in the middle, half a pixel to the upper left where it cannot be exactly there.

    The rule of the CLIP image processor (`do_center_crop`). Raises LlavakitError when the picture is smaller.
    """
    if min(width, height) < size:
        raise LlavakitError(
            f"a square of {size} pixels cannot be cropped out of a picture of {width}x{height}"
        )
    left, top = (width - size) // 2, (height - size) // 2
    return Box(left, top, left + size, top + size)


def square_crop_box(width: int, height: int) -> Box:
    """The part of a picture that the `square` policy can see, in its own pixels: the largest square in the middle."""
    _check_size(width, height)
    return centre_crop_box(width, height, min(width, height))


def pad_box(width: int, height: int) -> tuple[int, Box]:
    """(side of the square, where the picture stands in it) when a picture is padded to a square.

    The picture stands in the middle, at (long - short) // 2: one pixel less before than after when that is odd. The
    rule of LLaVA's `expand2square`.
    """
    _check_size(width, height)
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    return side, Box(left, top, left + width, top + height)


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise LlavakitError(f"a picture cannot be {width}x{height} pixels")
