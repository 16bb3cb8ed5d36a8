"""Projectors have the layout of the original LLaVA."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from llavakit.errors import LlavakitError
from llavakit.model.llava import Llava
from llavakit.model.projectors import build_projector, pool, reduced_side, shuffle


def test_linear_is_one_layer():
    projector = build_projector("linear", 3, 5, 2)
    assert {k: tuple(v.shape) for k, v in projector.state_dict().items()} == {"weight": (5, 3), "bias": (5,)}


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_mlp_has_its_linear_layers_at_even_places(layers):
    projector = build_projector(f"mlp{layers}x_gelu", 3, 5, 2)
    expected = {f"{2 * n}.{kind}" for n in range(layers) for kind in ("weight", "bias")}
    assert set(projector.state_dict()) == expected
    assert projector(torch.randn(2, 4, 3)).shape == (2, 4, 5)


@pytest.mark.parametrize(
    "name",
    ["mlp0x_gelu", "mlp2x_relu", "identity", "", "mlp2x_gelu ", "avgpool2", "maxpool2-linear", "resampler"],
)
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(LlavakitError, match="mlp2x_gelu"):
        build_projector(name, 3, 5, 2)


REDUCED = {
    "avgpool2-mlp2x_gelu": 3, "adaptive2-linear": 2, "adaptive4-mlp2x_gelu": 4, "shuffle2-mlp2x_gelu": 3,
    "shuffle3-linear": 2, "resampler3": 3, "resampler2": 2, "resampler4": 4,
}  # fmt: skip


@pytest.mark.parametrize(("name", "side"), REDUCED.items())
def test_a_reducer_makes_the_square_it_announces(name, side):
    assert reduced_side(name, 6) == side
    features = torch.randn(3, 36, 4, requires_grad=True)
    made = build_projector(name, 4, 5, 6)(features)
    assert made.shape == (3, side * side, 5)
    made.sum().backward()
    assert features.grad.abs().sum(-1).gt(0).all(), "every feature is read"


def test_pooling_averages_neighbours_and_shuffling_keeps_them():
    plane = torch.arange(16.0).view(1, 16, 1)
    assert pool(plane, 4, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert shuffle(plane, 4, 2)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_a_resampler_begins_as_average_pooling_and_looks_only_at_its_neighbourhood():
    torch.manual_seed(0)
    resampler = build_projector("resampler2", 4, 5, 4)
    features = torch.randn(1, 16, 4)
    assert torch.allclose(resampler(features), resampler.project(pool(features, 4, 2)))
    torch.nn.init.normal_(resampler.out.weight)
    changed = features.clone()
    changed[0, 0] += 1  # the upper left corner
    moved = (resampler(features) - resampler(changed)).abs().sum(-1)[0]
    assert moved[0] > 0 and moved[1:].eq(0).all()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("avgpool4-linear", "6 features a side are no multiple of 4"),
        ("resampler7", "a grid of 7 x 7 cannot be made of 6 x 6 features"),
    ],
)
def test_a_square_that_cannot_be_reduced_so_is_refused(name, words):
    with pytest.raises(LlavakitError, match=words):
        reduced_side(name, 6)


@pytest.mark.parametrize("name", ["avgpool2-mlp2x_gelu", "shuffle2-linear", "resampler2"])
@pytest.mark.parametrize("policy", ["pad", "anyres"])
def test_a_model_with_fewer_features_a_tile_counts_writes_and_saves_them(parts, tmp_path, name, policy):
    model = Llava.compose(
        vision_tower=parts["clip"], language_model=parts["llama"], projector=name, image_policy=policy
    )
    assert model.geometry.tokens == 4
    model.save_pretrained(tmp_path / "saved")
    again = Llava.from_pretrained(tmp_path / "saved")
    picture = Image.new("RGB", (64, 48), "red")
    assert again.geometry == model.geometry
    assert again.chat("What is this?", [picture], max_new_tokens=3) == model.chat(
        "What is this?", [picture], max_new_tokens=3
    )


def test_the_seed_alone_decides_the_first_weights(parts):
    def weights(seed):
        torch.rand(3)
        model = Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"], seed=seed)
        return model.projector.state_dict()["0.weight"]

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
