"""The original's config.json: what older and other folders say is read as the original's code reads it."""

from __future__ import annotations

import pytest

from llavakit.checkpoints.files import CheckpointError
from llavakit.checkpoints.original_config import announced, describe, original_config, read_pinpoints
from llavakit.images.geometry import V16_GRIDS, Grid, ImagePolicy, choose_grid

V16 = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
LEAST = {"model_type": "llava", "mm_vision_tower": "openai/clip", "mm_vision_select_layer": -2}


@pytest.mark.parametrize("value", [V16, str(V16), str([tuple(point) for point in V16])])
def test_pinpoints_are_width_and_height_in_their_order(value):
    assert read_pinpoints(value, "here") == (tuple((w, h) for w, h in V16), False)
    config = LEAST | {"image_grid_pinpoints": value, "image_aspect_ratio": "anyres"}
    policy = describe(config, "here").policy(336, "here")
    assert policy.grids == V16_GRIDS
    assert choose_grid(policy.grids, 336, 300, 200) == Grid(1, 2)  # a tie, which the first takes


def test_a_range_of_tiles_counts_height_fastest():
    points, in_tiles = read_pinpoints("(1x1),...,(2x3)", "here")
    assert (points, in_tiles) == (((1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)), True)
    config = LEAST | {
        "image_grid_pinpoints": "(1x1),...,(2x3)", "image_aspect_ratio": "anyres_max_9",
        "mm_patch_merge_type": "spatial_unpad",
    }  # fmt: skip
    policy = describe(config, "here").policy(384, "here")
    assert policy.grids == tuple(Grid(*point) for point in points) and policy.max_tiles == 9


@pytest.mark.parametrize("value", [None, [], "", "axb", [[336]], [[336, 1.5]], 7, {"a": 1}])
def test_other_pinpoints_are_refused(value):
    with pytest.raises(CheckpointError, match="here: image_grid_pinpoints is"):
        read_pinpoints(value, "here")


@pytest.mark.parametrize(
    ("changes", "tuned"),
    [
        ({}, False),
        ({"unfreeze_mm_vision_tower": True}, True),
        ({"mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model"}, True),
        ({"mm_tunable_parts": "mm_mlp_adapter", "unfreeze_mm_vision_tower": False}, False),
    ],
)
def test_a_folder_says_whether_its_tower_was_tuned(changes, tuned):
    assert describe(LEAST | changes, "here").tuned == tuned


def test_only_the_language_models_keys_are_given_to_it():
    config = LEAST | {
        "hidden_size": 8, "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}, "torch_dtype": "float16",
        "mm_hidden_size": 4, "tune_mm_mlp_adapter": False, "tokenizer_padding_side": "right", "use_mm_proj": True,
        "architectures": ["LlavaLlamaForCausalLM"], "image_aspect_ratio": "pad",
    }  # fmt: skip
    assert describe(config, "here").language_model == {
        "model_type": "llama",
        "hidden_size": 8,
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5},
    }


@pytest.mark.parametrize("rope", [{"rope_type": "default", "rope_theta": 1e6}, {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}])  # fmt: skip
def test_what_is_written_is_read_as_it_was(rope):
    text = {"model_type": "qwen2", "hidden_size": 8, "max_position_embeddings": 64, "rope_parameters": rope}
    policy = ImagePolicy("anyres", (Grid(2, 1), Grid(1, 2)), max_tiles=4, several="pad")
    config = original_config(
        text_config=text, tower="openai/clip", tuned=True, tower_width=4, layer=-2, select="patch", projector="linear",
        policy=policy, image_size=28, dtype="float32", template="qwen",
    )  # fmt: skip
    assert announced(config) and "rope_parameters" not in config
    found = describe(config, "here")
    assert found.language_model == text
    assert found.policy(28, "here") == policy
    assert (found.tower, found.tuned, found.template, found.projector) == (
        "openai/clip",
        True,
        "qwen",
        "linear",
    )


def test_folders_of_transformers_are_not_taken_for_the_originals():
    assert not announced({"model_type": "llava", "text_config": {}, "mm_vision_tower": "x"})
    assert not announced({"model_type": "llava"})
    assert announced({"model_type": "llava_mistral"})
