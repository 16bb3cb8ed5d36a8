"""Projectors have the layout of the original LLaVA."""

from __future__ import annotations

import pytest
import torch

from llavakit.errors import LlavakitError
from llavakit.model.llava import Llava
from llavakit.model.projectors import build_projector


def test_linear_is_one_layer():
    projector = build_projector("linear", 3, 5)
    assert {k: tuple(v.shape) for k, v in projector.state_dict().items()} == {"weight": (5, 3), "bias": (5,)}


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_mlp_has_its_linear_layers_at_even_places(layers):
    projector = build_projector(f"mlp{layers}x_gelu", 3, 5)
    expected = {f"{2 * n}.{kind}" for n in range(layers) for kind in ("weight", "bias")}
    assert set(projector.state_dict()) == expected
    assert projector(torch.randn(2, 4, 3)).shape == (2, 4, 5)


@pytest.mark.parametrize("name", ["mlp0x_gelu", "mlp2x_relu", "identity", "", "mlp2x_gelu "])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(LlavakitError, match="mlp2x_gelu"):
        build_projector(name, 3, 5)


def test_the_seed_alone_decides_the_first_weights(parts):
    def weights(seed):
        torch.rand(3)
        model = Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"], seed=seed)
        return model.projector.state_dict()["0.weight"]

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
