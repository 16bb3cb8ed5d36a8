"""A run from end to end on a tiny model: what it learns, what it leaves behind, what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from llavakit import training
from llavakit.errors import LlavakitError
from llavakit.model.llava import Llava
from llavakit.recipe import Recipe
from llavakit.training import events
from llavakit.training.metrics import Board, MetricsLog, read_metrics
from llavakit.training.optimizer import choose_precision, make_learner, prepare_parts
from llavakit.training.runner import make_model
from llavakit.training.stage import prepare_stage
from llavakit.training.trainer import Trainer
from tests.training.materials import make_recipe, row, write_rows

SHORT = {"max_steps": 4}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every weight of a saved checkpoint."""
    return dict(Llava.from_pretrained(folder).state_dict())


def train(recipe: Recipe, folder: Path, **options: Any) -> tuple[training.RunResult, list[events.Event]]:
    told: list[events.Event] = []
    return training.run(recipe, folder, told.append, **options), told


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, parts: dict[str, str], data: Path
) -> tuple[training.RunResult, list[events.Event], Recipe]:
    held_out = {"data": [{"path": str(data), "limit": 10}], "every": 3}
    recipe = make_recipe(parts, data, schedule={"epochs": 2}, validation=held_out)
    result, told = train(recipe, tmp_path_factory.mktemp("runs") / "whole")
    return result, told, recipe


def test_a_run_leaves_all_that_is_needed_to_understand_it(
    finished: tuple[training.RunResult, list[events.Event], Recipe],
) -> None:
    result, _, recipe = finished
    names = {path.name for path in result.folder.iterdir()}
    assert {"recipe.yaml", "manifest.json", "metrics.jsonl", "checkpoints", "report.html", "index"} <= names
    assert "state" not in names, "states of a finished run are replaced by its checkpoints"
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["final"] == "checkpoints/2-tune" and manifest["seed"] == recipe.seed
    assert manifest["machine"]["threads"] == torch.get_num_threads()
    assert manifest["machine"]["versions"]["torch"] == torch.__version__
    for stage in manifest["stages"]:
        (source,) = stage["sources"]
        assert source["samples_drawn"] == 80 and source["rows"] == source["used"] == 40
        assert len(source["sha256"]) == 64
    assert [path.name for path in result.checkpoints] == ["1-align", "2-tune"]


def test_every_step_has_one_line_with_its_numbers(
    finished: tuple[training.RunResult, list[events.Event], Recipe],
) -> None:
    result, told, _ = finished
    records = read_metrics(result.folder / "metrics.jsonl")
    steps = {e.name: e.steps for e in told if isinstance(e, events.StageStarted)}
    expected = [(stage, step) for stage, count in steps.items() for step in range(1, count + 1)]
    assert [(r["stage"], r["step"]) for r in records] == expected
    fields = {
        "loss",
        "learning_rate",
        "gradient_norm",
        "tokens",
        "supervised",
        "tokens_per_second",
        "seconds",
    }
    assert all(fields <= record.keys() for record in records)
    validated = [r["step"] for r in records if r["stage"] == "tune" and "validation_loss" in r]
    assert validated == [s for s in range(1, steps["tune"] + 1) if s % 3 == 0 or s == steps["tune"]]


def test_stage_one_moves_the_projector_alone_and_stage_two_also_the_language_model(
    finished: tuple[training.RunResult, list[events.Event], Recipe],
) -> None:
    result, _, recipe = finished
    before = make_model(recipe.model, recipe.seed).state_dict()
    align, tune = (weights(folder) for folder in result.checkpoints)

    def moved(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
        return {name.split(".")[0] for name in one if not torch.equal(one[name], other[name])}

    assert moved(before, align) == {"projector"}
    assert moved(align, tune) == {"projector", "language_model"}


def test_it_learns(finished: tuple[training.RunResult, list[events.Event], Recipe]) -> None:
    records = read_metrics(finished[0].folder / "metrics.jsonl")
    held = [r["validation_loss"] for r in records if r["stage"] == "tune" and "validation_loss" in r]
    assert records[0]["loss"] == pytest.approx(math.log(258), rel=0.1), "a random model: one of 258 tokens"
    assert held[-1] < held[0] - 0.2


def test_the_saved_model_remembers_how_it_was_trained(
    finished: tuple[training.RunResult, list[events.Event], Recipe],
) -> None:
    settings = Llava.from_pretrained(finished[0].checkpoint).settings
    assert settings.template == "vicuna_v1" and settings.image_policy.name == "pad"


def make_trainer(recipe: Recipe, folder: Path, log: MetricsLog, stage: int = 2) -> Trainer:
    model = make_model(recipe.model, recipe.seed)
    chosen = recipe.stages[stage - 1]
    prepared = prepare_stage(model, chosen, stage, recipe.seed, folder)
    precision = choose_precision(recipe.model.precision)
    prepare_parts(model, chosen, precision)
    return Trainer(
        model=model,
        learner=make_learner(model, chosen),
        prepared=prepared,
        precision=precision,
        workers=0,
        log=log,
        board=Board(folder, False, 0, str),
        steps_before=0,
        listener=lambda event: None,
        save=lambda step: None,
        evaluate=lambda step: {},
        stopping=lambda: False,
    )


def test_accumulating_packs_equals_one_large_pack(tmp_path: Path, parts: dict[str, str], data: Path) -> None:
    """The loss is a mean over the supervised tokens of the whole global batch, however it is cut into packs."""
    recipe = make_recipe(parts, data, gradient_clip=None)
    gradients = []
    for cut in (False, True):
        with MetricsLog(tmp_path / "metrics.jsonl", 0, 0) as log:
            trainer = make_trainer(recipe, tmp_path, log)
            packs = trainer.prepared.packs
            samples = [sample for pack in packs.packs[:3] for sample in pack.samples]
            parts_of_it = [packs.packs[i] for i in range(3)]
            if not cut:
                parts_of_it = [type(parts_of_it[0])(0, tuple(samples))]
            packs.packs = parts_of_it
            sums = trainer._accumulate(packs[i] for i in range(len(parts_of_it)))
            found = trainer.learner.gradients()
            for gradient in found:
                gradient /= sums.supervised
            gradients.append((sums.total("s", 1) / sums.supervised, sums.supervised, found))
    (loss, count, one), (other_loss, other_count, other) = gradients
    assert count == other_count
    assert other_loss == pytest.approx(loss, rel=1e-5)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_bfloat16_keeps_float32_master_weights(tmp_path: Path, parts: dict[str, str], data: Path) -> None:
    recipe = make_recipe(parts, data, precision="bfloat16", schedule=SHORT)
    result, told = train(recipe, tmp_path / "run")
    started = next(e for e in told if isinstance(e, events.RunStarted))
    assert "bfloat16" in started.precision
    assert {t.dtype for t in weights(result.checkpoint).values() if t.is_floating_point()} == {torch.float32}
    plain, _ = train(make_recipe(parts, data, schedule=SHORT), tmp_path / "plain")
    losses = [[r["loss"] for r in read_metrics(one.folder / "metrics.jsonl")] for one in (result, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]


def test_the_number_of_workers_does_not_change_the_weights(
    tmp_path: Path, parts: dict[str, str], data: Path
) -> None:
    one, _ = train(make_recipe(parts, data, schedule=SHORT, workers=0), tmp_path / "none")
    two, _ = train(make_recipe(parts, data, schedule=SHORT, workers=2), tmp_path / "two")
    first, second = weights(one.checkpoint), weights(two.checkpoint)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_stage_draws_the_same_packs_whatever_stands_before_it(
    tmp_path: Path, parts: dict[str, str], data: Path
) -> None:
    recipe = make_recipe(parts, data)
    model = make_model(recipe.model, recipe.seed)
    align, tune = recipe.stages
    second = prepare_stage(model, tune, 2, recipe.seed, tmp_path)
    first = prepare_stage(model, tune, 1, recipe.seed, tmp_path)
    assert first.plan == second.plan and first.seed == second.seed
    assert prepare_stage(model, align, 1, recipe.seed, tmp_path).seed != first.seed
    own = tune.model_copy(update={"seed": 9})
    assert prepare_stage(model, own, 2, recipe.seed, tmp_path).plan != second.plan


def test_runs_may_share_their_indexes(
    tmp_path: Path, parts: dict[str, str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(parts, data, schedule={"max_steps": 1})
    train(recipe, tmp_path / "one", indexes=tmp_path / "indexes")
    monkeypatch.setattr("llavakit.data.index._build", lambda *_: pytest.fail("indexed again"))
    train(recipe, tmp_path / "two", indexes=tmp_path / "indexes")


def test_bad_rows_are_skipped_named_and_reported(tmp_path: Path, parts: dict[str, str]) -> None:
    from PIL import Image

    Image.new("RGB", (20, 20), "red").save(tmp_path / "good.png")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.effect_noise((300, 300), 80).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:4000])
    rows = [row(i, "good.png", "Colour?", "Red.") for i in range(6)]
    rows += [row(6, "empty.png", "Colour?", "Red."), row(7, "missing.png", "Colour?", "Red.")]
    rows += [row(8, "good.png", "Long?", "word " * 200), row(9, "good.png", "Empty?", "")]
    rows += [row(10, "cut.jpg", "Colour?", "Grey.")]
    data = write_rows(tmp_path / "rows.json", rows)
    recipe = make_recipe(parts, data, schedule={"epochs": 2}, max_length=200, template="mistral")
    result, told = train(recipe, tmp_path / "run")
    stage = json.loads((result.folder / "manifest.json").read_text())["stages"][0]
    assert stage["used"] == 7 and stage["skipped"] == 4
    assert stage["skipped_by_kind"] == {"picture": 2, "too long": 1, "row": 1}
    dropped = [e for e in told if isinstance(e, events.SampleDropped) and e.stage == "align"]
    assert len(dropped) == 2 and all("s10" in e.sample and "cut.jpg" in e.reason for e in dropped)
    report = result.report.read_text()
    for name in ("s6", "s7", "s8", "s10"):
        assert f"(id {name})" in report
    in_metrics = [one for r in read_metrics(result.folder / "metrics.jsonl") for one in r.get("dropped", ())]
    assert len(in_metrics) == 4


@pytest.mark.parametrize(
    ("image", "answer", "reason"),
    [("missing.png", "Red.", "missing.png"), (None, "", "answer"), (None, "word " * 300, "200")],
)
def test_a_data_set_of_one_bad_row_fails_with_its_reason_and_leaves_no_folder(
    tmp_path: Path, parts: dict[str, str], image: str | None, answer: str, reason: str
) -> None:
    data = write_rows(tmp_path / "one.json", [row(1, image, "What?", answer)])
    with pytest.raises(LlavakitError, match="1 of 1 row cannot be used") as caught:
        train(make_recipe(parts, data), tmp_path / "run")
    assert reason in str(caught.value) and "row 0" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_too_many_bad_rows_stop_the_run_with_the_commonest_reason(
    tmp_path: Path, parts: dict[str, str]
) -> None:
    rows = [row(i, f"lost-{i}.png", "What?", "Red.") for i in range(6)] + [row(6, None, "What?", "Red.")] * 3
    data = write_rows(tmp_path / "rows.json", [row(99, None, "What?", ""), *rows])
    with pytest.raises(LlavakitError, match=r"7 of 10 rows cannot.*max_skipped = 0.5.*6 times.*lost-0.png"):
        train(make_recipe(parts, data), tmp_path / "run")
    result, _ = train(make_recipe(parts, data, max_skipped=0.8, schedule={"max_steps": 1}), tmp_path / "run")
    assert result.checkpoint.is_dir()


def test_an_existing_run_is_never_overwritten(tmp_path: Path, parts: dict[str, str], data: Path) -> None:
    recipe = make_recipe(parts, data, schedule={"max_steps": 1})
    result, _ = train(recipe, tmp_path / "run")
    before = {path: path.read_bytes() for path in result.folder.rglob("*") if path.is_file()}
    with pytest.raises(LlavakitError, match=r"holds a run already.*--resume.*--out"):
        train(recipe, tmp_path / "run")
    again, told = train(recipe, tmp_path / "run", resume=True)
    assert again.already_finished and again.checkpoint == result.checkpoint and not told
    assert before == {path: path.read_bytes() for path in result.folder.rglob("*") if path.is_file()}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(LlavakitError, match="holds other files"):
        train(recipe, tmp_path / "mine")
    with pytest.raises(LlavakitError, match="not the folder of a run"):
        train(recipe, tmp_path / "mine", resume=True)
    with pytest.raises(LlavakitError, match="no run to resume"):
        train(recipe, tmp_path / "nothing", resume=True)


def test_a_loss_that_is_not_finite_stops_the_run_naming_the_pack(
    tmp_path: Path, parts: dict[str, str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(parts, data)
    calls = 0
    forward = Llava.forward

    def poisoned(self: Llava, pack: Any) -> Any:
        nonlocal calls
        calls += 1
        out = forward(self, pack)
        return out._replace(loss_sum=out.loss_sum * (float("nan") if calls == 6 else 1.0))

    monkeypatch.setattr(Llava, "forward", poisoned)
    with pytest.raises(
        training.NotFinite, match=r"stage align is not finite.*\(id s\d+\).*weights before it are saved"
    ):
        train(recipe, tmp_path / "run")
    model = make_model(recipe.model, 0)
    plan = prepare_stage(model, recipe.stages[0], 1, recipe.seed, tmp_path).plan
    bad = next(step for step in range(plan.steps) if 5 in plan.packs_of(step)) + 1
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert failure["step"] == bad and len(failure["samples"]) == len(plan.packs[5].samples)
    monkeypatch.setattr(Llava, "forward", forward)
    result, told = train(recipe, tmp_path / "run", resume=True)
    assert next(e.step for e in told if isinstance(e, events.StepDone)) == bad
    unharmed, _ = train(recipe, tmp_path / "unharmed")
    one, other = weights(result.checkpoint), weights(unharmed.checkpoint)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_gradient_that_is_not_finite_stops_the_run(
    tmp_path: Path, parts: dict[str, str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llavakit.training.trainer.divide_and_clip", lambda *_: float("inf"))
    with pytest.raises(training.NotFinite, match="gradient of step 1"):
        train(make_recipe(parts, data), tmp_path / "run")
