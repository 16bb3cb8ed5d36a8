"""Several vision towers that look at the same tile, their features side by side.

The tile is made as the first tower wants it; for another it is brought to its size and its normalisation. Features of
another number of patches are brought, bilinear, to the first tower's square, so that every position holds what all
towers say of the same place.

Knows towers and their pixels. Knows nothing of projectors or language models.

Shapes: N tiles, C H W pixels, P features of a tile, V width of a tower's features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from llavakit.errors import LlavakitError
from llavakit.images.geometry import TowerGeometry
from llavakit.images.spec import PixelSpec
from llavakit.model.towers import Layers, feature_width, load_tower, tower_features


class FusedTowers(nn.Module):
    """Two or more towers in the place of one; the first decides tile and geometry."""

    def __init__(self, towers: Sequence[PreTrainedModel], specs: Sequence[PixelSpec]) -> None:
        super().__init__()
        self.towers = nn.ModuleList(towers)
        self.specs = tuple(specs)

    @property
    def each(self) -> list[PreTrainedModel]:
        """The towers, in order."""
        return [cast(PreTrainedModel, tower) for tower in self.towers]

    def features(self, tiles_NCHW: Tensor, layers: Layers) -> Tensor:
        """Patch features (N, P, V) with V the sum of the towers' widths."""
        first, *others = (
            tower_features(tower, self._as_wanted(tiles_NCHW, spec), layers, "patch")
            for tower, spec in zip(self.each, self.specs, strict=True)
        )
        return torch.cat(
            [first, *(_resampled(one, first.shape[1]).to(first.dtype) for one in others)], dim=-1
        )

    def width(self, layers: Layers) -> int:
        """V of `features`."""
        return sum(feature_width(tower.config, layers) for tower in self.each)

    def activation_checkpointing_enable(self, settings: dict[str, Any]) -> None:
        """As every tower of transformers has it."""
        for tower in self.each:
            tower.activation_checkpointing_enable(settings)

    def _as_wanted(self, tiles_NCHW: Tensor, spec: PixelSpec) -> Tensor:
        """Tiles made for the first tower, as another wants them."""
        own = self.specs[0]
        if (spec.mean, spec.std) != (own.mean, own.std):
            had, wants = (
                [tiles_NCHW.new_tensor(values).view(3, 1, 1) for values in (one.mean, one.std)]
                for one in (own, spec)
            )
            tiles_NCHW = (tiles_NCHW * had[1] + had[0] - wants[0]) / wants[1]
        if spec.image_size != own.image_size:
            size = (spec.image_size, spec.image_size)
            tiles_NCHW = F.interpolate(tiles_NCHW, size=size, mode="bicubic", antialias=True)
        return tiles_NCHW


def load_fused(
    sources: Sequence[str],
    *,
    image_size: int | None,
    vision_feature_layer: Layers,
    vision_feature_select: str,
    dtype: torch.dtype,
) -> tuple[FusedTowers, PixelSpec, TowerGeometry]:
    """Opens several towers as one; the arguments are those of `load_tower`, image_size being the first tower's."""
    if vision_feature_select != "patch":
        raise LlavakitError(
            f"vision_feature_select is {vision_feature_select} with {len(sources)} towers, whose class tokens do not "
            "correspond; expected 'patch'"
        )
    opened = [
        load_tower(
            source,
            image_size=image_size if number == 0 else None,
            vision_feature_layer=vision_feature_layer,
            dtype=dtype,
        )
        for number, source in enumerate(sources)
    ]
    towers, specs, geometries = zip(*opened, strict=True)
    return FusedTowers(towers, specs), specs[0], geometries[0]


def _resampled(features_NPV: Tensor, patches: int) -> Tensor:
    """Features of a square of patches as those of a square of another number."""
    if features_NPV.shape[1] == patches:
        return features_NPV
    side, new_side = round(features_NPV.shape[1] ** 0.5), round(patches**0.5)
    plane_NVHW = features_NPV.transpose(1, 2).unflatten(2, (side, side))
    resized = F.interpolate(plane_NVHW, size=(new_side, new_side), mode="bilinear", align_corners=False)
    return resized.flatten(2).transpose(1, 2)
