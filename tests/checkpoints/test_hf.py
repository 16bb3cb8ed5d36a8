"""Names of the three layouts, and what the layout of transformers can express."""

from __future__ import annotations

import pytest
import torch

from llavakit.checkpoints.files import CheckpointError
from llavakit.checkpoints.hf import from_hub, projector_of, select_strategy, to_hub, why_not_expressible
from llavakit.checkpoints.native import from_native, to_native
from llavakit.images.geometry import ImagePolicy


def parts(projector: str) -> dict[str, dict[str, torch.Tensor]]:
    names = ["weight", "bias"] if projector == "linear" else ["0.weight", "0.bias", "2.weight", "2.bias"]
    return {
        "vision_tower": {
            "embeddings.class_embedding": torch.ones(2),
            "encoder.layers.0.mlp.fc1.bias": torch.ones(3),
        },
        "newline": {"weight": torch.ones(4)},
        "projector": {name: torch.randn(4, 4) if "weight" in name else torch.randn(4) for name in names},
        "language_model": {"model.embed_tokens.weight": torch.ones(5, 4), "lm_head.weight": torch.ones(5, 4)},
    }


@pytest.mark.parametrize("projector", ["linear", "mlp2x_gelu"])
@pytest.mark.parametrize("tower", ["clip_vision_model", "dinov2"])
@pytest.mark.parametrize("newline", [False, True])
def test_what_goes_to_the_hubs_names_comes_back(projector, tower, newline):
    before = parts(projector)
    nest = "vision_model." if tower == "clip_vision_model" else ""
    tensors = to_hub(before, tower_type=tower, projector=projector, newline=newline)
    assert f"vision_tower.{nest}embeddings.class_embedding" in tensors
    after = from_hub(tensors, projector=projector, where="here")
    assert {name.removeprefix(nest) for name in after["vision_tower"]} == set(before["vision_tower"])
    assert ("image_newline" in tensors) == bool(after["newline"]) == newline
    assert after["language_model"].keys() == before["language_model"].keys()
    assert all(torch.equal(after["projector"][name], tensor) for name, tensor in before["projector"].items())


def test_native_names_come_back():
    before = parts("linear")
    assert from_native(to_native(before), "here") == before
    with pytest.raises(CheckpointError, match="unexpected tensor stranger"):
        from_native({"stranger": torch.ones(1)}, "here")


def test_a_projector_that_is_not_the_one_announced_is_refused():
    tensors = to_hub(parts("mlp2x_gelu"), tower_type="dinov2", projector="mlp2x_gelu", newline=False)
    with pytest.raises(CheckpointError, match="second layer is not the identity"):
        from_hub(tensors, projector="linear", where="here")
    with pytest.raises(CheckpointError, match=r"unexpected tensor multi_modal_projector\.linear_3"):
        from_hub(
            tensors | {"multi_modal_projector.linear_3.bias": torch.ones(1)},
            projector="mlp2x_gelu",
            where="x",
        )
    assert projector_of({}, "here") == "mlp2x_gelu"
    assert projector_of({"projector_hidden_act": "linear"}, "here") == "linear"
    for odd in ({"projector_hidden_act": "relu"}, {"multimodal_projector_bias": False}):
        with pytest.raises(CheckpointError, match="expected gelu, or linear"):
            projector_of(odd, "here")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"projector": "linear", "select": "cls_patch", "prefix_tokens": 5}, None),
        ({"projector": "mlp3x_gelu"}, "projector is mlp3x_gelu"),
        ({"prefix_tokens": 5}, "5 tokens before the patches"),
        ({"prefix_tokens": None}, "several vision towers"),
        ({"policy": ImagePolicy("anyres")}, None),
        ({"policy": ImagePolicy("anyres"), "select": "cls_patch"}, "features are cls_patch"),
        ({"policy": ImagePolicy("anyres", max_tiles=2)}, "with at most 2 tiles' worth"),
        ({"policy": ImagePolicy("anyres", merge="flat")}, "merged as flat"),
        ({"plain_head": False}, "scales, caps or biases"),
        ({"language_names": ["transformer.wte.weight"]}, "not a decoder called model"),
    ],
)
def test_why_a_model_cannot_be_expressed(changes, words):
    fits = {"projector": "mlp2x_gelu", "select": "patch", "policy": ImagePolicy("pad"), "prefix_tokens": 1,
            "plain_head": True, "language_names": ["model.norm.weight", "lm_head.weight"]}  # fmt: skip
    found = why_not_expressible(**fits | changes)
    assert found is None if words is None else words in found


@pytest.mark.parametrize(
    ("select", "prefix", "strategy"),
    [
        ("patch", 1, "default"),
        ("patch", 0, "full"),
        ("cls_patch", 1, "full"),
        ("cls_patch", 0, "full"),
        ("cls_patch", 5, "full"),
    ],
)
def test_the_strategy_that_keeps_what_our_selection_keeps(select, prefix, strategy):
    assert select_strategy(select, prefix) == strategy
