"""Adapters are merged by plain arithmetic, deltas added; what does not fit its base is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llavakit.checkpoints.adapter import read_adapter
from llavakit.checkpoints.additions import add_delta, apply_delta, merge_adapter, merge_folder
from llavakit.checkpoints.files import PICKLES, CheckpointError, read_tensors, write_tensors

WEIGHT = "model.layers.0.self_attn.q_proj.weight"
NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


BASE = {WEIGHT: numbers(6, 5), "model.norm.weight": numbers(5)}
ADAPTER = {NAME.format("A"): numbers(4, 5), NAME.format("B"): numbers(6, 4)}
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 16}


def folder_of(path: Path, adapter: dict[str, torch.Tensor] = ADAPTER, **config: object) -> Path:
    (path / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    save_file(adapter, path / "adapter_model.safetensors")
    return path


@pytest.mark.parametrize(("stabilised", "scale"), [(False, 4.0), (True, 16 / math.sqrt(4))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("infix", ["", ".default"])
def test_a_pair_adds_its_scaled_product(tmp_path, stabilised, scale, dtype, infix):
    adapter = {name.replace(".weight", infix + ".weight"): tensor for name, tensor in ADAPTER.items()}
    base = {name: tensor.to(dtype) for name, tensor in BASE.items()}
    read = read_adapter(folder_of(tmp_path, adapter, use_rslora=stabilised))
    merged = merge_adapter(base, read, "here")
    a, b = ADAPTER.values()
    assert torch.equal(merged[WEIGHT], (base[WEIGHT].float() + scale * (b @ a)).to(dtype))
    assert torch.equal(merged["model.norm.weight"], base["model.norm.weight"])


def test_a_module_saved_whole_takes_the_place_of_the_bases(tmp_path):
    read = read_adapter(folder_of(tmp_path, {"base_model.model.model.norm.weight": torch.ones(5)}))
    assert torch.equal(merge_adapter(BASE, read, "here")["model.norm.weight"], torch.ones(5))


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ({NAME.format("B"): numbers(7, 4)}, r"is of shape \(7, 5\), the base's of \(6, 5\); is it the base"),
        ({"base_model.model.other.weight": numbers(2)}, "which the base does not have; is it the base"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(tmp_path, adapter, words):
    read = read_adapter(folder_of(tmp_path, ADAPTER | adapter))
    with pytest.raises(CheckpointError, match=f"here: .*{words}") as error:
        merge_adapter(BASE, read, "here")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ending", ["bin", "safetensors"])
def test_a_folder_is_merged_with_what_was_trained_beside_it(tmp_path, ending):
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG))
    write = torch.save if ending == "bin" else save_file
    write(ADAPTER, tmp_path / f"adapter_model.{ending}")
    with pytest.raises(CheckpointError, match=r"the file non_lora_trainables\.bin is missing"):
        merge_folder(BASE, tmp_path)
    beside = {"base_model.model.model.mm_projector.0.weight": numbers(3, 3)}
    torch.save(beside, tmp_path / "non_lora_trainables.bin")
    merged = merge_folder(BASE, tmp_path)
    assert set(merged) == {*BASE, "model.mm_projector.0.weight"}
    assert torch.equal(merged[WEIGHT], merge_adapter(BASE, read_adapter(tmp_path), "here")[WEIGHT])
    (tmp_path / f"adapter_model.{ending}").unlink()
    with pytest.raises(CheckpointError, match=r"the file adapter_model\.safetensors is missing"):
        merge_folder(BASE, tmp_path)


def test_a_delta_adds_what_both_have_and_keeps_what_it_alone_has():
    base = {"model.embed_tokens.weight": numbers(4, 3).half(), "x.rotary_emb.inv_freq": torch.ones(2)}
    delta = {
        "model.embed_tokens.weight": numbers(6, 3).half(),
        "model.mm_projector.weight": numbers(3, 2).half(),
    }
    target = add_delta(base, delta, "here")
    rows = target["model.embed_tokens.weight"]
    assert torch.equal(rows[:4], delta["model.embed_tokens.weight"][:4] + base["model.embed_tokens.weight"])
    assert torch.equal(rows[4:], delta["model.embed_tokens.weight"][4:])
    assert torch.equal(target["model.mm_projector.weight"], delta["model.mm_projector.weight"])
    assert set(target) == set(delta)
    with pytest.raises(
        CheckpointError, match=r"here: 1 weights of the base have no delta, the first is model\.norm"
    ):
        add_delta(base | {"model.norm.weight": numbers(3)}, delta, "here")
    with pytest.raises(CheckpointError, match=r"is of shape \(6, 3\), the base's of \(7, 3\)"):
        add_delta({"model.embed_tokens.weight": numbers(7, 3)}, delta, "here")


def test_a_delta_becomes_a_folder_with_everything_else_of_its_own(tmp_path):
    for name, tensors in (("base", {"a": numbers(2)}), ("delta", {"a": numbers(3), "b": numbers(4)})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"from": name}))
        torch.save(tensors, tmp_path / name / PICKLES)
    apply_delta(tmp_path / "base", tmp_path / "delta", tmp_path / "target")
    assert {path.name for path in (tmp_path / "target").iterdir()} == {"config.json", "model.safetensors"}
    assert json.loads((tmp_path / "target" / "config.json").read_text()) == {"from": "delta"}
    assert torch.equal(
        read_tensors(tmp_path / "target")["a"], torch.cat([numbers(3)[:2] + numbers(2), numbers(3)[2:]])
    )
    (tmp_path / "short").mkdir()
    write_tensors(Path(tmp_path / "short"), {"b": numbers(4)})
    with pytest.raises(CheckpointError, match="1 weights of the base have no delta"):
        apply_delta(tmp_path / "base", tmp_path / "short", tmp_path / "none")
    assert not list(tmp_path.glob("*none*"))
