"""LoRA in a run: what trains, what is kept, what is left behind, and that a killed run ends with the same bits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from llavakit import training
from llavakit.errors import LlavakitError
from llavakit.model.adapters import attach_adapters
from llavakit.model.llava import Llava
from llavakit.recipe import Lora, Recipe
from llavakit.training import events, runner
from llavakit.training.optimizer import Precision, make_learner, prepare_parts, trained_sizes
from tests.training.materials import make_recipe
from tests.training.test_resume import Killed, assert_same, outcome

LORA = {"rank": 4, "alpha": 8, "dropout": 0.2}


def lora_recipe(parts: dict[str, str], data: Path, *last: str, **changes: Any) -> Recipe:
    """align, then tune by adapters, then (`last`) further stages: `lora` by adapters, `whole` without, `frozen` with
    the language model at rest."""
    recipe = make_recipe(parts, data, schedule={"max_steps": 4}, save_every=3, **changes)
    tree = recipe.model_dump(mode="json")
    tree["stages"][1]["lora"] = LORA
    for number, kind in enumerate(last):
        stage = {**tree["stages"][1], "name": f"{kind}{number}", "lora": LORA if kind == "lora" else None}
        if kind == "frozen":
            stage["learning_rate"] = {"projector": 1e-2}
        tree["stages"].append(stage)
    return Recipe.model_validate(tree)


@pytest.fixture(scope="module")
def finished(
    parts: dict[str, str], data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[training.RunResult, list[events.Event], dict[str, set[str]]]:
    told: list[events.Event] = []
    kept: dict[str, set[str]] = {}

    def listen(event: events.Event) -> None:
        told.append(event)
        if isinstance(event, events.StateSaved):
            with safe_open(event.folder / "state.safetensors", framework="pt") as file:
                kept[event.folder.name] = set(file.keys())

    result = training.run(lora_recipe(parts, data, "whole"), tmp_path_factory.mktemp("runs") / "lora", listen)
    return result, told, kept


Finished = tuple[training.RunResult, list[events.Event], dict[str, set[str]]]


def test_the_checkpoint_is_the_base_with_the_adapters_added(finished: Finished) -> None:
    base, tuned, _ = (dict(Llava.from_pretrained(path).state_dict()) for path in finished[0].checkpoints)
    adapter = load_file(finished[0].checkpoints[1] / "adapter" / "adapter_model.safetensors")
    assert base.keys() == tuned.keys()
    adapted = 0
    for name, tensor in base.items():
        module = name.removesuffix(".weight").replace("language_model.model.", "language_model.")
        pair = [adapter.get(f"base_model.model.model.{module}.lora_{letter}.weight") for letter in "AB"]
        if pair[0] is not None and pair[1] is not None:
            adapted += 1
            assert pair[1].any(), "it has trained"
            torch.testing.assert_close(tuned[name], tensor + 2.0 * pair[1] @ pair[0], rtol=0, atol=1e-6)
        elif not name.startswith("projector."):
            assert torch.equal(tuned[name], tensor), f"{name} has no adapter and no rate"
    assert adapted == 2 * 7


def test_the_state_holds_adapters_and_projector_and_not_the_base(finished: Finished) -> None:
    kept = finished[2]["2-tune-0000003"]
    weights = {name.removeprefix("weights/") for name in kept if name.startswith("weights/")}
    adapters = {name for name in weights if name.startswith("adapters.")}
    assert len(adapters) == 2 * 2 * 7 and all(".lora_" in name for name in adapters)
    assert {name.partition(".")[0] for name in weights - adapters} == {"projector"}
    moments = [name for name in kept if name.startswith("optimizer/language_model.")]
    assert moments and all(".lora_" in name for name in moments)
    after = finished[2]["3-whole0-0000003"]
    assert "weights/language_model.model.layers.0.mlp.up_proj.weight" in after
    assert not any("lora_" in name for name in after), "once merged there are no adapters"


def test_what_trains_is_counted_as_what_trains(finished: Finished) -> None:
    sizes = {e.name: e.parameters for e in finished[1] if isinstance(e, events.StageStarted)}
    widths = 4 * (32 + 32) + 3 * (32 + 48)
    assert sizes["tune"]["language_model"] == 2 * LORA["rank"] * widths
    assert sizes["whole0"]["language_model"] > sizes["tune"]["language_model"]


def test_adapter_and_base_are_the_checkpoint(finished: Finished) -> None:
    """By llavakit and by peft on the stock class; the base is named in the adapter's configuration."""
    before, after = finished[0].checkpoints[:2]
    config = json.loads((after / "adapter" / "adapter_config.json").read_text())
    assert Path(config["base_model_name_or_path"]) == before
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.2)
    tuned = dict(Llava.from_pretrained(after).state_dict())
    mine = Llava.from_pretrained(before)
    mine.load_adapter(after / "adapter")
    for name, tensor in mine.state_dict().items():
        torch.testing.assert_close(tensor, tuned[name], rtol=0, atol=1e-6)
    stock = LlavaForConditionalGeneration.from_pretrained(before, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(stock, after / "adapter").merge_and_unload().state_dict()
    expected = LlavaForConditionalGeneration.from_pretrained(after, dtype=torch.float32).state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=1e-6)


def test_a_newline_that_trained_too_is_in_the_adapter_and_told_as_unknown_to_peft(
    parts: dict[str, str], data: Path, tmp_path: Path
) -> None:
    tree = lora_recipe(parts, data, image_policy="anyres").model_dump(mode="json")
    tree["stages"][1]["learning_rate"]["newline"] = 1e-2
    told: list[events.Event] = []
    result = training.run(Recipe.model_validate(tree), tmp_path / "run", told.append)
    notices = [event.sentence for event in told if isinstance(event, events.Notice)]
    assert any("newline trained in stage tune too" in sentence for sentence in notices)
    before, after = result.checkpoints
    model, tuned = Llava.from_pretrained(before), Llava.from_pretrained(after)
    assert not torch.equal(model.newline.weight, tuned.newline.weight)
    model.load_adapter(after / "adapter")
    assert torch.equal(model.newline.weight, tuned.newline.weight)


@pytest.fixture(scope="module")
def long_recipe(parts: dict[str, str], data: Path) -> Recipe:
    return lora_recipe(parts, data, "lora", "frozen", seed=3)


@pytest.fixture(scope="module")
def whole(long_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    training.run(long_recipe, folder)
    return folder


MOMENTS = [
    ("step", 6, False),  # in the first stage with adapters, before its state
    ("step", 8, False),  # behind it
    ("step", 12, False),  # in the second stage with adapters
    ("save_state", 4, True),  # at the end of a stage, before its model is saved
    ("save_pretrained", 2, True),  # the model saved, the adapter not
    ("begin_adapters", 3, False),  # between the two: the adapters of the first are merged again
    ("begin_adapters", 3, True),
    ("prepare_stage", 4, True),
]


@pytest.mark.parametrize(("where", "times", "after"), MOMENTS)
def test_killed_anywhere_and_resumed_the_run_ends_the_same(
    tmp_path: Path,
    long_recipe: Recipe,
    whole: Path,
    where: str,
    times: int,
    after: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0
    targets: dict[str, tuple[Any, str]] = {
        "step": (training.trainer.Trainer, "_step"),  # type: ignore[attr-defined]
        "save_pretrained": (Llava, "save_pretrained"),
    }
    owner, name = targets.get(where, (runner, where))
    work = getattr(owner, name)

    def dying(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == times and not after:
            raise Killed
        result = work(*arguments, **named)
        if calls == times:
            raise Killed
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(Killed):
            training.run(long_recipe, tmp_path / "run")
    training.run(long_recipe, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", whole)
    for stage in ("2-tune", "3-lora0"):
        path = Path("checkpoints") / stage / "adapter" / "adapter_model.safetensors"
        one, other = load_file(tmp_path / "run" / path), load_file(whole / path)
        assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_dropout_is_at_work_and_follows_from_the_seed(
    parts: dict[str, str], data: Path, tmp_path: Path
) -> None:
    runs = []
    for number, dropout in enumerate((0.2, 0.2, 0.0)):
        tree = lora_recipe(parts, data).model_dump(mode="json")
        tree["stages"][1]["lora"]["dropout"] = dropout
        torch.manual_seed(number)
        training.run(Recipe.model_validate(tree), tmp_path / str(number))
        runs.append(outcome(tmp_path / str(number))[1])
    assert runs[0] == runs[1] != runs[2]


def test_the_frozen_base_takes_half_the_room_where_it_loses_nothing(
    parts: dict[str, str], data: Path
) -> None:
    stage = lora_recipe(parts, data).stages[1]
    model = Llava.compose(**parts)
    for parameter in model.language_model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    attach_adapters(model, Lora(**LORA), seed=0)
    prepare_parts(model, stage, Precision(torch.device("cpu"), torch.bfloat16))
    kinds = {
        (".lora_" in name, parameter.requires_grad, parameter.dtype)
        for name, parameter in model.language_model.named_parameters()
    }
    assert kinds == {(False, False, torch.bfloat16), (True, True, torch.float32)}
    learner = make_learner(model, stage)
    held = [p for group in learner.optimizer.param_groups for p in group["params"]]
    assert sum(p.numel() for p in held) == sum(trained_sizes(model, stage).values())


def test_a_base_that_rests_in_bfloat16_is_merged_and_saved_in_float32(
    parts: dict[str, str], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(parts["language_model"], tmp_path / "lm")
    weights = tmp_path / "lm" / "model.safetensors"
    rounded = {name: tensor.bfloat16().float() for name, tensor in load_file(weights).items()}
    save_file(rounded, weights, metadata={"format": "pt"})
    own = {**parts, "language_model": str(tmp_path / "lm")}
    result = training.run(lora_recipe(own, data, precision="bfloat16"), tmp_path / "run")
    tensors = {
        name: tensor
        for name, tensor in load_file(result.checkpoint / "model.safetensors").items()
        if name.startswith("language_model.")
    }
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    merged = tensors["language_model.model.layers.0.mlp.up_proj.weight"]
    assert not torch.equal(merged, merged.bfloat16().float()), "nothing of the adapters was rounded away"


def test_a_wrong_target_and_an_absent_peft_are_told_before_anything_trains(
    parts: dict[str, str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = lora_recipe(parts, data).model_dump(mode="json")
    tree["stages"][1]["lora"]["targets"] = ["q_prj"]
    with pytest.raises(LlavakitError, match=r"lora\.targets: 'q_prj' names no linear layer"):
        training.run(Recipe.model_validate(tree), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LlavakitError, match="pip install 'llavakit"):
        training.run(lora_recipe(parts, data), tmp_path / "run")
    assert not (tmp_path / "run").exists()
