"""LoRA adapters on a Llava: fresh, saved in PEFT's form, opened again, merged."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlavaForConditionalGeneration

from llavakit.errors import LlavakitError
from llavakit.model.adapters import (
    adapter_file,
    adapter_parameters,
    attach_adapters,
    has_adapters,
    write_adapter,
)
from llavakit.model.llava import Llava
from llavakit.model.packed import IMAGE_TOKEN_ID, pack_conversations
from llavakit.recipe import Lora

from .conftest import item, tile

LORA = Lora(rank=4, alpha=8, dropout=0.0)
CLOSE = {"rtol": 0, "atol": 1e-5}


def logits(model: Llava) -> torch.Tensor:
    conversation, pictures = item(7, 1, features=model.geometry.tokens), [tile(1)]
    with torch.no_grad():
        return model.logits(pack_conversations([conversation], pictures, ["a"]))


def stock_logits(model: torch.nn.Module, ours: Llava) -> torch.Tensor:
    """What a stock model, or a PeftModel on one, says to the same conversation."""
    ids = torch.tensor([item(7, 1, features=ours.geometry.tokens).ids])
    image = getattr(model, "config").image_token_id  # noqa: B009
    with torch.no_grad():
        out = model.eval()(
            input_ids=ids.masked_fill(ids == IMAGE_TOKEN_ID, image), pixel_values=tile(1).tiles_NCHW
        )
    return out.logits[0, :, : ours.vocabulary]


def disturb(model: Llava, projector: bool = False) -> None:
    """As if it had been trained: every adapter, and perhaps the projector, is somewhere else."""
    generator = torch.Generator().manual_seed(3)
    moved = list(adapter_parameters(model).values()) + (
        list(model.projector.parameters()) if projector else []
    )
    for parameter in moved:
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


def saved_adapter(model: Llava, folder: Path, parts: tuple[str, ...] = (), stock: bool = True) -> Path:
    write_adapter(folder, adapter_file(model, parts, stock), LORA, parts, stock, None)
    return folder


@pytest.fixture
def model(parts: dict[str, str]) -> Llava:
    return Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"]).eval()


def test_fresh_adapters_change_nothing_and_stand_on_all_linear_layers_but_the_head(model: Llava) -> None:
    before = logits(model)
    attach_adapters(model, LORA, seed=1)
    assert torch.equal(logits(model), before)
    leaves = {name.split(".lora_")[0].rpartition(".")[2] for name in adapter_parameters(model)}
    assert leaves == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all(name.startswith("language_model.model.layers.") for name in adapter_parameters(model))
    assert len(adapter_parameters(model)) == 2 * 7 * 2


def test_the_first_weights_follow_from_the_seed_alone(parts: dict[str, str]) -> None:
    drawn = []
    for seed, dtype in ((5, torch.float32), (5, torch.bfloat16), (6, torch.float32)):
        torch.manual_seed(len(drawn))
        model = Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"], dtype=dtype)
        attach_adapters(model, LORA, seed)
        drawn.append(adapter_parameters(model))
    one, half, other = drawn
    assert all(torch.equal(one[name], half[name]) and half[name].dtype == torch.float32 for name in one)
    downs = [name for name in one if ".lora_A." in name]
    assert not any(torch.equal(one[name], other[name]) for name in downs)
    assert all(not one[name].any() for name in one if ".lora_B." in name)


def test_targets_choose_the_layers(model: Llava) -> None:
    attach_adapters(model, Lora(rank=2, targets=["self_attn.q_proj", "down_proj"]), seed=0)
    leaves = {name.split(".lora_")[0].rpartition(".")[2] for name in adapter_parameters(model)}
    assert leaves == {"q_proj", "down_proj"}


@pytest.mark.parametrize("target", ["q", "lm_head", "embed_tokens"])
def test_a_target_that_names_no_linear_layer_is_refused_with_those_there_are(
    model: Llava, target: str
) -> None:
    with pytest.raises(
        LlavakitError, match=rf"'{target}' names no linear layer .* known are down_proj, gate_"
    ):
        attach_adapters(model, Lora(targets=[target]), seed=0)
    assert not has_adapters(model)


@pytest.mark.parametrize("language_model", ["llama", "llama_tied", "qwen"])
def test_trained_saved_loaded_and_merged_are_the_same_model(
    parts: dict[str, str], tmp_path: Path, language_model: str
) -> None:
    def fresh() -> Llava:
        return Llava.compose(vision_tower=parts["clip"], language_model=parts[language_model]).eval()

    model = fresh()
    plain = logits(model)
    attach_adapters(model, LORA, seed=1)
    disturb(model, projector=True)
    trained = logits(model)
    assert (trained - plain).abs().max() > 0.1
    folder = saved_adapter(model, tmp_path / "adapter", ("projector",))

    beside, merged = fresh(), fresh()
    beside.load_adapter(folder, merge=False)
    assert has_adapters(beside)
    torch.testing.assert_close(logits(beside), trained, **CLOSE)
    merged.load_adapter(folder)
    assert not has_adapters(merged) and merged.state_dict().keys() == fresh().state_dict().keys()
    torch.testing.assert_close(logits(merged), trained, **CLOSE)
    beside.merge_adapter()
    assert torch.equal(logits(beside), logits(merged))

    merged.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(logits(Llava.from_pretrained(tmp_path / "saved")), trained, **CLOSE)


@pytest.mark.parametrize("projector", ["linear", "mlp2x_gelu"])
def test_peft_opens_the_adapter_on_the_stock_base(
    parts: dict[str, str], tmp_path: Path, projector: str, recwarn: pytest.WarningsRecorder
) -> None:
    model = Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"], projector=projector)
    model.save_pretrained(tmp_path / "base")
    attach_adapters(model, LORA, seed=1)
    disturb(model, projector=True)
    folder = saved_adapter(model, tmp_path / "adapter", ("projector",))
    base = LlavaForConditionalGeneration.from_pretrained(tmp_path / "base", dtype=torch.float32)
    opened = PeftModel.from_pretrained(base, folder)
    assert not [w for w in recwarn if "adapter" in str(w.message)], "peft found all that it needs"
    assert not any("vision_tower" in name for name, _ in opened.named_parameters() if "lora_" in name)
    torch.testing.assert_close(stock_logits(opened, model), logits(model.eval()), rtol=0, atol=1e-4)


def test_an_adapter_that_peft_trained_on_a_stock_llava_opens(model: Llava, tmp_path: Path) -> None:
    """With ranks and scalings of its own by layer, on the tower too, and the projector whole."""
    model.save_pretrained(tmp_path / "base")
    base = LlavaForConditionalGeneration.from_pretrained(tmp_path / "base", dtype=torch.float32)
    config = LoraConfig(
        r=3,
        lora_alpha=7,
        target_modules=["q_proj", "v_proj"],
        rank_pattern={"v_proj": 5},
        alpha_pattern={r"model\.language_model\.layers\.1\.self_attn\.q_proj": 2},
        modules_to_save=["multi_modal_projector"],
        use_rslora=True,
        init_lora_weights=False,
    )
    theirs = get_peft_model(base, config)
    for parameter in base.model.multi_modal_projector.parameters():
        parameter.data += 0.1
    theirs.save_pretrained(tmp_path / "adapter")
    assert any(
        "vision_tower" in name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    )
    model.load_adapter(tmp_path / "adapter")
    torch.testing.assert_close(logits(model), stock_logits(theirs, model), rtol=0, atol=1e-4)


def test_an_adapter_of_the_language_model_alone_opens(
    parts: dict[str, str], model: Llava, tmp_path: Path
) -> None:
    llm = AutoModelForCausalLM.from_pretrained(parts["llama"], dtype=torch.float32)
    config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    theirs = get_peft_model(llm, config)
    theirs.save_pretrained(tmp_path / "adapter")
    model.load_adapter(tmp_path / "adapter")
    merged = theirs.merge_and_unload().state_dict()
    own = model.language_model.state_dict()
    assert all(torch.allclose(own[name], merged[name], atol=1e-6) for name in merged)


def test_a_model_that_no_stock_class_expresses_keeps_its_own_names(
    parts: dict[str, str], tmp_path: Path
) -> None:
    def fresh() -> Llava:
        source = {"vision_tower": parts["clip"], "language_model": parts["llama"]}
        return Llava.compose(**source, projector="mlp3x_gelu").eval()

    model = fresh()
    attach_adapters(model, LORA, seed=1)
    disturb(model, projector=True)
    folder = saved_adapter(model, tmp_path / "adapter", ("projector", "newline"), stock=False)
    again = fresh()
    again.load_adapter(folder)
    torch.testing.assert_close(logits(again), logits(model), **CLOSE)


def test_merging_keeps_the_type_of_the_weights_and_adds_in_float32(parts: dict[str, str]) -> None:
    model = Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"], dtype=torch.bfloat16)
    name = "language_model.model.layers.0.mlp.up_proj"
    base = model.get_parameter(f"{name}.weight").detach().clone()
    attach_adapters(model, LORA, seed=1)
    disturb(model)
    pair = [model.get_parameter(f"{name}.lora_{letter}.default.weight").detach() for letter in "AB"]
    model.merge_adapter()
    expected = (base.float() + 2.0 * pair[1] @ pair[0]).bfloat16()
    assert torch.equal(model.get_parameter(f"{name}.weight"), expected)


# What is refused


@pytest.fixture
def adapter(model: Llava, tmp_path: Path) -> Path:
    attach_adapters(model, LORA, seed=1)
    disturb(model)
    folder = saved_adapter(model, tmp_path / "adapter", ("projector",))
    model.merge_adapter()
    return folder


def test_a_model_with_unmerged_adapters_is_not_saved(model: Llava, tmp_path: Path) -> None:
    attach_adapters(model, LORA, seed=1)
    with pytest.raises(LlavakitError, match="not merged; call merge_adapter first"):
        model.save_pretrained(tmp_path / "saved")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("peft_type", "IA3", "an adapter of type IA3, expected LORA"),
        ("use_dora", True, "use_dora is True, which is more than plain LoRA"),
        ("bias", "all", "bias is 'all'"),
        ("init_lora_weights", "pissa", "init_lora_weights is 'pissa'"),
        ("alpha_pattern", {"(": 3}, "alpha_pattern is not a number"),
        ("lora_alpha", None, "lora_alpha or alpha_pattern is not a number"),
    ],
)
def test_an_adapter_that_is_not_plain_lora_is_refused(
    model: Llava, adapter: Path, key: str, value: object, words: str
) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(LlavakitError, match=words):
        model.load_adapter(adapter)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {n: x for n, x in t.items() if "lora_B" not in n}, "only one of lora_A and lora_B is there"),
        (lambda t: {n.replace("q_proj", "w_proj"): x for n, x in t.items()}, "no linear layer of that name"),
        (lambda t: {n: x[:, :-1] if "lora_A" in n else x for n, x in t.items()}, "belongs to another base"),
        (lambda t: t | {"base_model.model.odd": torch.ones(1)}, "unexpected tensor odd"),
        (lambda t: t | {"base_model.model.model.image_newline": torch.ones(1)}, r"newline\.weight is of shape"),
    ],
)  # fmt: skip
def test_tensors_of_another_model_are_named_and_leave_the_model_as_it_was(
    model: Llava, adapter: Path, change, words: str
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = adapter / "adapter_model.safetensors"
    save_file({n: t.contiguous() for n, t in change(load_file(path)).items()}, path)
    with pytest.raises(LlavakitError, match=words):
        model.load_adapter(adapter)
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_weights_that_could_run_code_are_not_opened(model: Llava, adapter: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (adapter / "ran",))  # type: ignore[return-value]

    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps({"weight": Runs()}))
    with pytest.raises(LlavakitError, match=r"adapter_model\.bin"):
        model.load_adapter(adapter)
    assert not (adapter / "ran").exists()


def test_a_second_adapter_waits_for_the_first_to_be_merged(model: Llava, adapter: Path) -> None:
    model.load_adapter(adapter, merge=False)
    with pytest.raises(LlavakitError, match="holds an adapter already"):
        model.load_adapter(adapter)


def test_without_peft_the_command_that_installs_it_is_named(
    model: Llava, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LlavakitError, match=r"needs the package peft.*pip install 'llavakit\[lora\]'"):
        attach_adapters(model, LORA, seed=0)
