"""Projectors: from the vision tower's features to the language model's width.

Two families, in the module layout of the original LLaVA (an `nn.Sequential` whose linear layers stand at the even
indices), so that the original projector files fit: `linear`, the single layer of LLaVA v1, and `mlpNx_gelu`, N linear
layers with an exact GELU between them (`mlp2x_gelu` is LLaVA v1.5's).

Knows names and widths. Knows nothing of towers or language models.
"""

from __future__ import annotations

import re

from torch import nn

from llavakit.errors import LlavakitError

_MLP = re.compile(r"mlp([1-9]\d*)x_gelu")


def projector_layers(name: str) -> int:
    """How many linear layers the projector called `name` has; raises LlavakitError for an unknown name."""
    if name == "linear":
        return 1
    match = _MLP.fullmatch(name)
    if match is None:
        raise LlavakitError(
            f"projector {name!r} is unknown; expected 'linear' or 'mlpNx_gelu' with N at least 1, e.g. 'mlp2x_gelu'"
        )
    return int(match.group(1))


def build_projector(name: str, in_width: int, out_width: int) -> nn.Module:
    """A freshly initialised projector from (..., in_width) to (..., out_width).

    `linear` is one `nn.Linear` (keys `weight`, `bias`); `mlpNx_gelu` is an `nn.Sequential` (keys `0.*`, `2.*`, ...).
    """
    count = projector_layers(name)
    if name == "linear":
        return nn.Linear(in_width, out_width)
    layers: list[nn.Module] = [nn.Linear(in_width, out_width)]
    for _ in range(count - 1):
        layers += [nn.GELU(), nn.Linear(out_width, out_width)]
    return nn.Sequential(*layers)
