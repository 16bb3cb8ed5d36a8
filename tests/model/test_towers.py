"""Towers of every family give the hidden state and the rows that were asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, CLIPModel

from llavakit.errors import LlavakitError
from llavakit.model import towers
from llavakit.model.towers import load_tower, tower_features

from .conftest import PATCHES, TILE, VISION, tile

PREFIX = {"clip": 1, "siglip": 0, "dinov2": 1, "dinov2_registers": 5}


@pytest.mark.parametrize("name", PREFIX)
@pytest.mark.parametrize("layer", [-1, -2, -4, 0, 1, 3])
@pytest.mark.parametrize("select", ["patch", "cls_patch"])
def test_features_are_the_named_hidden_state_without_or_with_the_prefix(parts, name, layer, select):
    tower, spec, geometry = load_tower(parts[name], vision_feature_layer=layer, vision_feature_select=select)
    tiles = torch.cat([tile(1), tile(2)])
    with torch.no_grad():
        found = tower_features(tower, tiles, layer, select)
        expected = AutoModel.from_pretrained(parts[name])(tiles, output_hidden_states=True).hidden_states[
            layer
        ]
    expected = expected[:, PREFIX[name] :] if select == "patch" else expected
    assert torch.equal(found, expected)
    assert geometry.tokens == found.shape[1] == PATCHES + (PREFIX[name] if select == "cls_patch" else 0)
    assert spec.image_size == TILE


@pytest.mark.parametrize("name", PREFIX)
def test_layers_behind_the_one_that_is_read_are_not_run(parts, name):
    tower, _, _ = load_tower(parts[name])
    ran = []
    path = towers._LAYERS[tower.config.model_type]
    for number, layer in enumerate(tower.get_submodule(path)):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    tower_features(tower, tile(1), -2, "patch")
    assert ran == [0, 1]
    assert len(tower.get_submodule(path)) == VISION["num_hidden_layers"]


def test_a_whole_clip_gives_its_vision_half(parts):
    tower, _, _ = load_tower(parts["clip_full"])
    with torch.no_grad():
        expected = CLIPModel.from_pretrained(parts["clip_full"]).vision_model(
            tile(1), output_hidden_states=True
        )
        assert torch.equal(tower_features(tower, tile(1), -2, "cls_patch"), expected.hidden_states[-2])
    assert not any("text" in name for name, _ in tower.named_parameters())


def test_pixels_come_from_the_file_beside_the_tower_or_are_clips(parts):
    assert load_tower(parts["siglip"])[1].mean == (0.5, 0.5, 0.5)
    bare = load_tower(parts["clip_bare"])[1]
    assert (bare.image_size, bare.mean) == (TILE, towers.CLIP_MEAN)


def _copy(source: str, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def test_what_is_no_tower_is_refused_in_a_sentence(parts, tmp_path):
    with pytest.raises(LlavakitError, match="no such file or folder"):
        load_tower("./nowhere")
    with pytest.raises(LlavakitError, match="vision tower: a model of type llama"):
        load_tower(parts["llama"])
    with pytest.raises(LlavakitError, match="hidden states -4 to 3"):
        load_tower(parts["clip"], vision_feature_layer=-5)
    with pytest.raises(LlavakitError, match="'patch' or 'cls_patch'"):
        load_tower(parts["clip"], vision_feature_select="cls")
    pickled = _copy(parts["clip"], tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(LlavakitError, match=r"no model\.safetensors"):
        load_tower(str(pickled))
    other = _copy(parts["clip"], tmp_path / "other")
    processor = json.loads((other / "preprocessor_config.json").read_text())
    processor["crop_size"] = {"height": 14, "width": 14}
    (other / "preprocessor_config.json").write_text(json.dumps(processor))
    with pytest.raises(LlavakitError, match="tiles of 14 pixels but the tower reads 28"):
        load_tower(str(other))
    custom = _copy(parts["clip"], tmp_path / "custom")
    config = json.loads((custom / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (custom / "config.json").write_text(json.dumps(config))
    (custom / "mine.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(LlavakitError, match="never runs"):
        load_tower(str(custom))
    short = _copy(parts["clip"], tmp_path / "short")
    weights = short / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(LlavakitError, match="cannot be opened"):
        load_tower(str(short))
    config = json.loads((parts_config := Path(parts["clip"]) / "config.json").read_text())
    deeper = _copy(parts["clip"], tmp_path / "deeper")
    (deeper / parts_config.name).write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(LlavakitError, match="weights of CLIPVisionModel are not in its file"):
        load_tower(str(deeper))
