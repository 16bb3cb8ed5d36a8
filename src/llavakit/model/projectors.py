"""Projectors: from the vision tower's features to the language model's width, some with fewer features behind them.

A name is one of these, or a reducer and one of these with a hyphen between, e.g. `avgpool2-mlp2x_gelu`:

- `linear`, the single layer of LLaVA v1; `mlpNx_gelu`, N linear layers with an exact GELU between them (`mlp2x_gelu`
  is LLaVA v1.5's). Their module layout is that of the original LLaVA (an `nn.Sequential` whose linear layers stand at
  the even indices), so that the original projector files fit.
- reducers: `avgpoolN` averages N x N neighbours, `adaptiveN` averages to an N x N grid, `shuffleN` lays N x N
  neighbours side by side (pixel shuffle, nothing is lost), each before the projector.
- `resamplerN` by itself: an N x N grid of queries, each the average of its own neighbourhood, looks at that
  neighbourhood more closely by cross-attention. Beginning as average pooling, it needs few samples to be of use.

Knows names, widths and the square of a tile's features. Knows nothing of towers or language models.

Shapes: N tiles, P features of a tile, V width of the features, D LLM width, Q features behind a reducer.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llavakit.errors import LlavakitError

_MLP = re.compile(r"mlp([1-9]\d*)x_gelu")
_REDUCER = re.compile(r"(avgpool|adaptive|shuffle)([1-9]\d*)")
_RESAMPLER = re.compile(r"resampler([1-9]\d*)")
_KNOWN = (
    "'linear' or 'mlpNx_gelu' (e.g. 'mlp2x_gelu'), either of them behind 'avgpoolN-', 'adaptiveN-' or 'shuffleN-', "
    "or 'resamplerN'"
)


def projector_layers(name: str) -> int:
    """How many linear layers the projector called `name` has; raises LlavakitError for an unknown name."""
    if name == "linear":
        return 1
    match = _MLP.fullmatch(name)
    if match is None:
        raise LlavakitError(f"projector {name!r} is unknown; expected {_KNOWN}")
    return int(match.group(1))


def reduced_side(name: str, side: int) -> int | None:
    """Features along one side of a tile behind the projector; None where it keeps the tower's.

    Raises LlavakitError for an unknown name, and for a side that it cannot reduce.
    """
    if (match := _RESAMPLER.fullmatch(name)) is not None:
        kind, number = "resampler", int(match.group(1))
    else:
        reducer, _, rest = name.rpartition("-")
        projector_layers(rest)
        if not reducer:
            return None
        match = _REDUCER.fullmatch(reducer)
        if match is None:
            raise LlavakitError(f"projector {name!r} is unknown; expected {_KNOWN}")
        kind, number = match.group(1), int(match.group(2))
    if kind in ("resampler", "adaptive"):
        if number > side:
            raise LlavakitError(
                f"projector {name!r}: a grid of {number} x {number} cannot be made of {side} x {side} features"
            )
        return number
    if side % number:
        raise LlavakitError(
            f"projector {name!r}: {side} features a side are no multiple of {number}; expected one, or an 'adaptiveN'"
        )
    return side // number


def build_projector(name: str, in_width: int, out_width: int, side: int) -> nn.Module:
    """A freshly initialised projector from (N, P, in_width) to (N, Q, out_width).

    side: features along one side of a tile before it; P is its square where the projector reduces.
    `linear` is one `nn.Linear` (keys `weight`, `bias`); `mlpNx_gelu` is an `nn.Sequential` (keys `0.*`, `2.*`, ...);
    behind a reducer their keys are the same.
    """
    left = reduced_side(name, side)
    if left is None:
        return _project(name, in_width, out_width)
    if name.startswith("resampler"):
        return Resampler(in_width, out_width, side, left)
    reducer, _, rest = name.rpartition("-")
    inner = _project(
        rest, in_width * (side // left) ** 2 if reducer.startswith("shuffle") else in_width, out_width
    )
    return _reduced(inner, reducer.startswith("shuffle"), side, left)


def _project(name: str, in_width: int, out_width: int) -> nn.Module:
    count = projector_layers(name)
    if name == "linear":
        return nn.Linear(in_width, out_width)
    layers: list[nn.Module] = [nn.Linear(in_width, out_width)]
    for _ in range(count - 1):
        layers += [nn.GELU(), nn.Linear(out_width, out_width)]
    return nn.Sequential(*layers)


def _reduced(inner: nn.Module, shuffled: bool, side: int, left: int) -> nn.Module:
    """The projector with its reducer before it."""

    def reduce(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (shuffle(inputs[0], side, left) if shuffled else pool(inputs[0], side, left),)

    inner.register_forward_pre_hook(reduce)
    return inner


def pool(features_NPV: Tensor, side: int, left: int) -> Tensor:
    """Averages side x side features to left x left: (N, left * left, V)."""
    plane_NVHW = features_NPV.transpose(1, 2).unflatten(2, (side, side))
    return F.adaptive_avg_pool2d(plane_NVHW, left).flatten(2).transpose(1, 2)


def shuffle(features_NPV: Tensor, side: int, left: int) -> Tensor:
    """Lays neighbours side by side: (N, left * left, V * (side // left) ** 2)."""
    each = side // left
    tiles, _, width = features_NPV.shape
    grid = features_NPV.view(tiles, left, each, left, each, width)
    return grid.transpose(2, 3).reshape(tiles, left * left, each * each * width)


class Resampler(nn.Module):
    """left x left queries, each looking at its own neighbourhood of the side x side features.

    A query is its neighbourhood's average with a place of its own added; keys and values are the features with their
    place in the neighbourhood added. What attention finds is added to the query through a matrix that begins at
    zero, and an `mlp2x_gelu` makes it as wide as the language model.
    """

    def __init__(self, in_width: int, out_width: int, side: int, left: int, heads: int = 4) -> None:
        super().__init__()
        self.side, self.left = side, left
        self.heads = heads if in_width % heads == 0 else 1
        self.window = -(-side // left)
        self.places = nn.Parameter(torch.randn(self.window**2, in_width) * 0.02)
        self.queries = nn.Parameter(torch.randn(left**2, in_width) * 0.02)
        self.norm = nn.LayerNorm(in_width)
        self.query, self.key = nn.Linear(in_width, in_width), nn.Linear(in_width, in_width)
        self.value, self.out = nn.Linear(in_width, in_width), nn.Linear(in_width, in_width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.project = _project("mlp2x_gelu", in_width, out_width)

    def forward(self, features_NPV: Tensor) -> Tensor:
        pooled_NQV = pool(features_NPV, self.side, self.left)
        near_NQXV = self._neighbourhoods(features_NPV)
        query = self._heads(self.query(self.norm(pooled_NQV) + self.queries)[:, :, None])
        inside = self.norm(near_NQXV) + self.places
        key, value = self._heads(self.key(inside)), self._heads(self.value(inside))
        found = F.scaled_dot_product_attention(query, key, value)
        found_NQV = found.transpose(2, 3).flatten(3)[:, :, 0]
        return self.project(pooled_NQV + self.out(found_NQV))

    def _neighbourhoods(self, features_NPV: Tensor) -> Tensor:
        """The X = window ** 2 features around each query (N, Q, X, V); they overlap where sides do not divide."""
        starts = [min(place * self.side // self.left, self.side - self.window) for place in range(self.left)]
        around = [[start + step for step in range(self.window)] for start in starts]
        rows = torch.tensor(around, device=features_NPV.device)
        places = rows[:, None, :, None] * self.side + rows[None, :, None, :]
        return features_NPV[:, places.flatten(0, 1).flatten(1)]

    def _heads(self, x_NQXV: Tensor) -> Tensor:
        return x_NQXV.unflatten(-1, (self.heads, -1)).transpose(2, 3)
