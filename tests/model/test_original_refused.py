"""Folders of the original LLaVA that are damaged, malicious or beyond llavakit are refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llavakit.checkpoints.files import PICKLES, WEIGHTS
from llavakit.errors import LlavakitError
from llavakit.model.llava import Llava
from llavakit.model.saving_original import save_original


class Malice:
    """A pickle of this writes a file when it is opened without care."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


DAMAGE = {
    "tensor missing": (lambda w: w.pop("model.layers.1.mlp.up_proj.weight"), "1 tensors of the language_model are missing"),
    "projector missing": (lambda w: w.pop("model.mm_projector.2.bias"), "1 tensors of the projector are missing"),
    "newline missing": (lambda w: w.pop("model.image_newline"), "1 tensors of the newline are missing"),
    "tower's tensor missing": (
        lambda w: w.pop("model.vision_tower.vision_tower.vision_model.embeddings.class_embedding"),
        "1 tensors of the vision_tower are missing",
    ),
    "tower missing": (
        lambda w: [w.pop(name) for name in list(w) if "vision_tower" in name],
        "says that the vision tower was tuned, but no tensor of it is there",
    ),
    "stranger": (lambda w: w.update({"model.vision_resampler.x": torch.ones(1)}), "unexpected tensor model.vision_resampler.x"),
    "tensor too many": (lambda w: w.update({"model.layers.9.x": torch.ones(1)}), "do not belong to the language_model"),
    "another shape": (lambda w: w.update({"model.mm_projector.0.weight": torch.ones(2, 3)}), r"is of shape \(2, 3\)"),
    "head that is not tied": (lambda w: w.update({"lm_head.weight": w["lm_head.weight"] + 1}), "config.json ties them"),
}  # fmt: skip
MISTAKES = {
    "unknown architecture": ({"model_type": "llava_mpt"}, "the architecture llava_mpt is unknown"),
    "no tower": ({"mm_vision_tower": None}, "names mm_vision_tower None"),
    "marks": ({"mm_use_im_start_end": True}, "mm_use_im_start_end is true, but its tokenizer has no <im_start>"),
    "resampler": ({"mm_resampler_type": "perceiver"}, "mm_resampler_type is perceiver"),
    "projector": ({"mm_projector_type": "pooler"}, "mm_projector_type is pooler.*expected linear or mlpNx_gelu"),
    "merge": ({"mm_patch_merge_type": "maxpool2x2"}, "mm_patch_merge_type is maxpool2x2"),
    "aspect": ({"image_aspect_ratio": "crop_split"}, "image_aspect_ratio is crop_split"),
    "pinpoints": ({"image_grid_pinpoints": "none"}, "image_grid_pinpoints is none"),
    "pinpoints of another tower": ({"image_grid_pinpoints": [[336, 671]]}, "belong to another tower"),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(parts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "saved"
    model = Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"], image_policy="anyres")
    save_original(model, folder, vision_tower=parts["clip"])
    return folder


@pytest.mark.parametrize("name", [*DAMAGE, *MISTAKES])
def test_a_folder_that_is_not_sound_is_refused_in_one_sentence(sound, tmp_path, name):
    folder = tmp_path / "saved"
    shutil.copytree(sound, folder)
    if name in DAMAGE:
        change, words = DAMAGE[name]
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)
        if "tied" in name:
            _config(folder, tie_word_embeddings=True)
    else:
        changes, words = MISTAKES[name]
        _config(folder, **changes)
    with pytest.raises(LlavakitError, match=words) as error:
        Llava.from_pretrained(folder)
    assert "saved" in str(error.value) and "\n" not in str(error.value)


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(sound, tmp_path):
    folder = tmp_path / "saved"
    shutil.copytree(sound, folder)
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save({**tensors, "model.norm.weight": Malice(tmp_path / "ran")}, folder / PICKLES)
    with pytest.raises(LlavakitError, match=f"{PICKLES}: damaged, or it holds more than tensors"):
        Llava.from_pretrained(folder)
    (folder / PICKLES).unlink()
    with pytest.raises(LlavakitError, match=f"no {WEIGHTS}"):
        Llava.from_pretrained(folder)
    assert not (tmp_path / "ran").exists()


def _config(folder: Path, **changes) -> None:
    """Sets keys of config.json; None takes one away."""
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_a_base_for_a_folder_that_needs_none_is_refused(sound, parts):
    with pytest.raises(LlavakitError, match=r"a base is given, but neither adapter_config\.json nor"):
        Llava.from_pretrained(sound, base=parts["llama"])
