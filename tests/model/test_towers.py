"""Towers of every family give the hidden state and the rows that were asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, CLIPModel
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from llavakit.errors import LlavakitError
from llavakit.images.geometry import ImagePolicy
from llavakit.images.pixels import to_tiles
from llavakit.model import towers
from llavakit.model.fused import load_fused
from llavakit.model.llava import Llava
from llavakit.model.towers import load_tower, tower_features

from .conftest import PATCH, PATCHES, TILE, VISION, tile

PREFIX = {"clip": 1, "siglip": 0, "dinov2": 1, "dinov2_registers": 5}
TOWERS = (*PREFIX, "siglip2")


@pytest.mark.parametrize("name", PREFIX)
@pytest.mark.parametrize("layer", [-1, -2, -4, 0, 1, 3])
@pytest.mark.parametrize("select", ["patch", "cls_patch"])
def test_features_are_the_named_hidden_state_without_or_with_the_prefix(parts, name, layer, select):
    tower, spec, geometry = load_tower(parts[name], vision_feature_layer=layer, vision_feature_select=select)
    tiles = torch.cat([tile(1).tiles_NCHW, tile(2).tiles_NCHW])
    with torch.no_grad():
        found = tower_features(tower, tiles, layer, select)
        expected = AutoModel.from_pretrained(parts[name])(tiles, output_hidden_states=True).hidden_states[
            layer
        ]
    expected = expected[:, PREFIX[name] :] if select == "patch" else expected
    assert torch.equal(found, expected)
    assert geometry.tokens == found.shape[1] == PATCHES + (PREFIX[name] if select == "cls_patch" else 0)
    assert spec.image_size == TILE


def test_siglip_2_of_any_shape_reads_a_tile_as_its_own_processor_cuts_it(parts):
    tower, spec, geometry = load_tower(parts["siglip2"])
    assert (spec.image_size, geometry.tokens) == (TILE, PATCHES)
    picture = Image.effect_mandelbrot((TILE, TILE), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    made = Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=PATCHES)(picture, return_tensors="pt")
    tiles = to_tiles(picture, ImagePolicy("square"), spec)
    with torch.no_grad():
        expected = tower(**made, output_hidden_states=True).hidden_states[-2]
        torch.testing.assert_close(tower_features(tower, tiles, -2, "patch"), expected)


@pytest.mark.parametrize("name", TOWERS)
def test_several_layers_stand_side_by_side(parts, name):
    tower, _, _ = load_tower(parts[name], vision_feature_layer=(-2, 1, -1))
    with torch.no_grad():
        found = tower_features(tower, tile(1).tiles_NCHW, (-2, 1, -1), "patch")
        each = [tower_features(tower, tile(1).tiles_NCHW, layer, "patch") for layer in (-2, 1, -1)]
    assert torch.equal(found, torch.cat(each, dim=-1))


@pytest.mark.parametrize("name", TOWERS)
def test_a_tower_reads_tiles_of_another_size(parts, name):
    tower, spec, geometry = load_tower(parts[name], image_size=42)
    assert (spec.image_size, geometry.side) == (42, 6)
    with torch.no_grad():
        features = tower_features(tower, torch.randn(1, 3, 42, 42), -2, "patch")
    assert features.shape == (1, 36, 24) and features.isfinite().all()


def test_interpolated_positions_are_those_of_the_same_places(parts):
    tower, _, _ = load_tower(parts["clip"])
    table = "embeddings.position_embedding.weight"
    ramp = torch.arange(4.0).repeat_interleave(4)
    tower.get_parameter(table).data[1:] = ramp[:, None].expand(-1, 24)
    larger = towers.resize_positions(tower, 56).get_parameter(table).data[1:, 0].view(8, 8)
    assert torch.equal(larger, larger[:, :1].expand(8, 8))
    assert larger[:, 0].diff().gt(0).all()
    assert torch.equal(towers.resize_positions(tower, TILE).get_parameter(table), tower.get_parameter(table))


def test_fused_towers_say_of_each_place_what_each_of_them_says(parts):
    fused, spec, geometry = load_fused(
        [parts["clip"], parts["siglip"]],
        image_size=None, vision_feature_layer=-2, vision_feature_select="patch", dtype=torch.float32,
    )  # fmt: skip
    picture = Image.effect_mandelbrot((TILE, TILE), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    found = fused.features(to_tiles(picture, ImagePolicy("square"), spec), -2)
    assert found.shape == (1, geometry.tokens, fused.width(-2)) == (1, PATCHES, 48)
    for part, name in zip(found.split(24, dim=-1), ("clip", "siglip"), strict=True):
        tower, own, _ = load_tower(parts[name])
        alone = tower_features(tower, to_tiles(picture, ImagePolicy("square"), own), -2, "patch")
        torch.testing.assert_close(part, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", ["clip", "dinov2"])
def test_a_model_of_fused_towers_of_two_sizes_saves_and_opens(parts, tmp_path, first):
    model = Llava.compose(
        vision_tower=[parts[first], parts["siglip"]], image_size=42, language_model=parts["llama"],
        vision_feature_layer=[-2, -1],
    )  # fmt: skip
    model.save_pretrained(tmp_path / "saved")
    again = Llava.from_pretrained(tmp_path / "saved")
    picture = Image.effect_mandelbrot((60, 40), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    mine, other = (
        one.encode_images(to_tiles(picture, one.settings.image_policy, one.pixels)) for one in (model, again)
    )
    assert mine.shape == (1, 36, 32) and torch.equal(mine, other)
    assert again.settings == model.settings


def test_fused_towers_have_no_class_token(parts):
    with pytest.raises(LlavakitError, match="with 2 towers, whose class tokens do not correspond"):
        Llava.compose(
            vision_tower=[parts["clip"], parts["siglip"]], language_model=parts["llama"],
            vision_feature_select="cls_patch",
        )  # fmt: skip


@pytest.mark.parametrize("name", PREFIX)
def test_layers_behind_the_one_that_is_read_are_not_run(parts, name):
    tower, _, _ = load_tower(parts[name])
    ran = []
    path = towers._LAYERS[tower.config.model_type]
    for number, layer in enumerate(tower.get_submodule(path)):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    tower_features(tower, tile(1).tiles_NCHW, -2, "patch")
    assert ran == [0, 1]
    assert len(tower.get_submodule(path)) == VISION["num_hidden_layers"]


def test_a_whole_clip_gives_its_vision_half(parts):
    tower, _, _ = load_tower(parts["clip_full"])
    with torch.no_grad():
        expected = CLIPModel.from_pretrained(parts["clip_full"]).vision_model(
            tile(1).tiles_NCHW, output_hidden_states=True
        )
        assert torch.equal(
            tower_features(tower, tile(1).tiles_NCHW, -2, "cls_patch"), expected.hidden_states[-2]
        )
    assert not any("text" in name for name, _ in tower.named_parameters())


def test_pixels_come_from_the_file_beside_the_tower_or_are_clips(parts):
    assert load_tower(parts["siglip"])[1].mean == (0.5, 0.5, 0.5)
    bare = load_tower(parts["clip_bare"])[1]
    assert (bare.image_size, bare.mean) == (TILE, towers.CLIP_MEAN)


def _copy(source: str, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def test_a_tower_published_as_a_pickle_opens_and_a_pickle_of_more_than_weights_runs_nothing(parts, tmp_path):
    folder = _copy(parts["clip"], tmp_path / "pickled")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    opened, _, _ = load_tower(str(folder))
    expected, _, _ = load_tower(parts["clip"])
    assert all(torch.equal(a, b) for a, b in zip(opened.parameters(), expected.parameters(), strict=True))

    class Runs:
        def __reduce__(self):
            return (Path.touch, (folder / "ran",))

    torch.save(tensors | {"more": Runs()}, folder / "pytorch_model.bin")
    with pytest.raises(
        LlavakitError, match="a pickle that holds more than weights, which llavakit never runs"
    ):
        load_tower(str(folder))
    assert not (folder / "ran").exists()


def test_what_is_no_tower_is_refused_in_a_sentence(parts, tmp_path):
    with pytest.raises(LlavakitError, match="no such file or folder"):
        load_tower("./nowhere")
    with pytest.raises(LlavakitError, match="vision tower: a model of type llama"):
        load_tower(parts["llama"])
    with pytest.raises(LlavakitError, match="hidden states -4 to 3"):
        load_tower(parts["clip"], vision_feature_layer=-5)
    with pytest.raises(LlavakitError, match="'patch' or 'cls_patch'"):
        load_tower(parts["clip"], vision_feature_select="cls")
    bare = _copy(parts["clip"], tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(LlavakitError, match=r"no model\.safetensors"):
        load_tower(str(bare))
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
