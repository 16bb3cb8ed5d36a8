"""From the features of a picture's tiles to the rows that stand for it in the sequence.

The order, what is cut away and where a newline's row stands all come from the picture's `Layout`, the same that
counted its positions. Under `anyres` with `spatial_unpad`: the whole picture's features, then the tiles' stitched into
one plane, without padding, every row of the plane closed by the newline's row (the merge types of LLaVA v1.6). A
video's frame is its tile's features, pooled to a smaller square (the pooling of LLaVA-NeXT, after the projector).

Knows features and layouts. Knows no tower and no text.

Shapes: N tiles of one picture or of several, P features of a tile, D LLM width, H W side of a tile's features,
M rows of the sequence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llavakit.images.geometry import Layout


class Newline(nn.Module):
    """The row (D) that ends a line of features under `anyres` with `spatial_unpad`; begun as LLaVA begins it."""

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(width, generator=generator) * width**-0.5)


def arrange(features_NPD: Tensor, layouts: Sequence[Layout], newline_D: Tensor) -> Tensor:
    """The rows (M, D) of several pictures, one after the other, whose tiles' features follow each other likewise.

    newline_D: the row that ends a line; read where a layout asks for it.
    """
    if all(one.grid is None and not one.newline and one.pooled is None for one in layouts):
        return features_NPD.flatten(0, 1)
    pieces = features_NPD.split([one.tiles for one in layouts])
    return torch.cat([_rows(piece, one, newline_D) for piece, one in zip(pieces, layouts, strict=True)])


def _rows(features_NPD: Tensor, layout: Layout, newline_D: Tensor) -> Tensor:
    if layout.pooled is not None:
        return _pooled(features_NPD[0], layout)
    newline_1D = newline_D.to(features_NPD.dtype)[None]
    if layout.grid is None:
        whole = features_NPD.flatten(0, 1)
        return torch.cat([whole, newline_1D]) if layout.newline else whole
    if layout.rows == layout.columns == (0, 0):
        return features_NPD.flatten(0, 1)
    plane_HWD = _stitch(features_NPD[1:], layout)
    if layout.newline:
        plane_HWD = torch.cat([plane_HWD, newline_1D.expand(len(plane_HWD), 1, -1)], dim=1)
    return torch.cat([features_NPD[0], plane_HWD.flatten(0, 1)])


def _pooled(features_PD: Tensor, layout: Layout) -> Tensor:
    side, smaller = math.isqrt(len(features_PD)), math.isqrt(layout.tokens)
    plane_1DHW = features_PD.view(1, side, side, -1).permute(0, 3, 1, 2)
    if layout.pooled == "average":
        plane_1DHW = F.avg_pool2d(plane_1DHW, side // smaller)
    else:
        plane_1DHW = F.interpolate(plane_1DHW, size=(smaller, smaller), mode="bilinear")
    return plane_1DHW[0].permute(1, 2, 0).flatten(0, 1)


def _stitch(tiles_NPD: Tensor, layout: Layout) -> Tensor:
    """The features of the grid's tiles in one plane (H, W, D): padding cut away, and scaled where it is too large."""
    assert layout.grid is not None
    side = round(tiles_NPD.shape[1] ** 0.5)
    columns, rows = layout.grid
    tiles = tiles_NPD.view(rows, columns, side, side, -1)
    plane_HWD = tiles.transpose(1, 2).reshape(rows * side, columns * side, -1)
    (top, bottom), (left, right) = layout.rows, layout.columns
    plane_HWD = plane_HWD[top:bottom, left:right]
    if layout.resized is None:
        return plane_HWD
    plane_1DHW = plane_HWD.permute(2, 0, 1)[None]
    return F.interpolate(plane_1DHW, size=layout.resized, mode="bilinear")[0].permute(1, 2, 0)
