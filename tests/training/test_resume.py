"""Stopping and going on: a run that was killed ends with the same bits as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llavakit import training
from llavakit.errors import LlavakitError
from llavakit.recipe import Recipe
from llavakit.training import events, runner
from llavakit.training.metrics import MetricsLog, read_metrics
from tests.training.materials import make_data, make_parts, make_recipe

ROOT = Path(__file__).parent.parent.parent


class Killed(BaseException):
    """What a process that is killed would never see; nothing may catch it."""


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], list[tuple[Any, ...]]]:
    """The weights of every checkpoint of a run and the lines of its log, without the times."""
    tensors = {
        f"{path.parent.name}/{path.name}/{name}": tensor
        for path in sorted(folder.glob("checkpoints/*/*.safetensors"))
        for name, tensor in load_file(path).items()
    }
    lines = [
        (
            r["stage"],
            r["step"],
            r["loss"],
            r["gradient_norm"],
            r["tokens"],
            r["supervised"],
            r.get("validation_loss"),
        )
        for r in read_metrics(folder / "metrics.jsonl")
    ]
    return tensors, lines


def assert_same(one: Path, other: Path) -> None:
    (tensors, lines), (other_tensors, other_lines) = outcome(one), outcome(other)
    assert lines == other_lines
    assert tensors.keys() == other_tensors.keys() and len(tensors) > 10
    assert all(torch.equal(tensors[name], other_tensors[name]) for name in tensors)


@pytest.fixture(scope="module")
def recipe(parts: dict[str, str], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    held_out = {"data": [{"path": str(data), "limit": 5}], "every": 4}
    with_dropout = make_parts(tmp_path_factory.mktemp("dropout"), dropout=0.1)
    return make_recipe(
        with_dropout, data, schedule={"max_steps": 6}, save_every=2, validation=held_out, seed=3
    )


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    training.run(recipe, folder)
    return folder


MOMENTS = [
    ("step", 1, False),
    ("step", 5, True),
    ("step", 9, False),
    ("save_state", 1, False),
    ("save_state", 3, True),
    ("write_json", 1, False),
    ("prepare_stage", 1, False),
    ("prepare_stage", 2, True),
    ("save_pretrained", 1, True),
    ("save_pretrained", 2, False),
    ("save_pretrained", 2, True),
    ("write_report", 1, False),
]


@pytest.mark.parametrize(("where", "times", "after"), MOMENTS)
def test_killed_anywhere_and_resumed_the_run_ends_the_same(
    tmp_path: Path,
    recipe: Recipe,
    whole: Path,
    where: str,
    times: int,
    after: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dies in the `times`-th call of a function: before it does anything, or with its work done (`after`)."""
    calls = 0

    def dying(work: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == times and not after:
                raise Killed
            result = work(*arguments, **named)
            if calls == times:
                raise Killed
            return result

        return call

    targets = {
        "step": (training.trainer.Trainer, "_step"),  # type: ignore[attr-defined]
        "save_state": (runner, "save_state"),
        "write_json": (training.state, "write_json"),  # type: ignore[attr-defined]
        "prepare_stage": (runner, "prepare_stage"),
        "save_pretrained": (runner.Llava, "save_pretrained"),
        "write_report": (runner, "write_report"),
    }
    owner, name = targets[where]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying(getattr(owner, name)))
        with pytest.raises(Killed):
            training.run(recipe, tmp_path / "run")
    training.run(recipe, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", whole)


def test_ctrl_c_saves_after_the_step_and_the_run_goes_on_from_there(
    tmp_path: Path, recipe: Recipe, whole: Path
) -> None:
    told: list[events.Event] = []

    def listen(event: events.Event) -> None:
        told.append(event)
        if isinstance(event, events.StepDone) and (event.stage, event.step) == ("align", 3):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(training.Interrupted, match=r"after step 3 of .* of stage align"):
        training.run(recipe, tmp_path / "run", listen)
    assert isinstance(told[-1], events.StateSaved) and told[-1].step == 3
    assert (tmp_path / "run" / "report.html").exists()
    told.clear()
    training.run(recipe, tmp_path / "run", told.append, resume=True)
    assert next(e.step for e in told if isinstance(e, events.StepDone)) == 4
    assert_same(tmp_path / "run", whole)


def test_sigterm_does_the_same_and_the_old_handlers_come_back(tmp_path: Path, recipe: Recipe) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def listen(event: events.Event) -> None:
        if isinstance(event, events.StepDone):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(training.Interrupted):
        training.run(recipe, tmp_path / "run", listen)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_only_the_last_two_states_are_kept(tmp_path: Path, recipe: Recipe) -> None:
    counts: list[list[str]] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.StateSaved):
            counts.append(sorted(path.name for path in event.folder.parent.iterdir()))

    training.run(recipe, tmp_path / "run", listen)
    assert len(counts) > 5 and max(map(len, counts)) == 2
    assert counts[2] == ["1-align-0000004", "1-align-0000006"]


def test_a_torn_last_line_and_lines_after_the_state_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"stage_number": s, "step": k}) for s, k in [(1, 1), (1, 2), (2, 1), (2, 2)]]
    path.write_text("\n".join(lines) + '\n{"stage_number": 2, "st')
    with MetricsLog(path, 2, 1) as log:
        log.append({"stage_number": 2, "step": 2})
    assert [(r["stage_number"], r["step"]) for r in read_metrics(path)] == [(1, 1), (1, 2), (2, 1), (2, 2)]


def stopped(recipe: Recipe, folder: Path) -> None:
    def listen(event: events.Event) -> None:
        if isinstance(event, events.StepDone):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(training.Interrupted):
        training.run(recipe, folder, listen)


def test_a_changed_recipe_is_refused_and_its_keys_are_named(
    tmp_path: Path, parts: dict[str, str], data: Path
) -> None:
    recipe = make_recipe(parts, data)
    stopped(recipe, tmp_path / "run")
    tree = recipe.model_dump(mode="json")
    tree["stages"][1]["learning_rate"]["projector"] = 5e-3
    tree["seed"] = 4
    changed = Recipe.model_validate(tree)
    with pytest.raises(LlavakitError, match=r"seed, stages\.1\.learning_rate\.projector differ"):
        training.run(changed, tmp_path / "run", resume=True)
    more_workers = recipe.model_copy(update={"workers": 1})
    assert training.run(more_workers, tmp_path / "run", resume=True).checkpoint.is_dir()


def test_changed_data_is_refused(tmp_path: Path, parts: dict[str, str]) -> None:
    data = make_data(tmp_path, 20)
    recipe = make_recipe(parts, data)
    stopped(recipe, tmp_path / "run")
    data.write_text(data.read_text().replace("yellow", "pink"))
    with pytest.raises(LlavakitError, match="changed since the run began"):
        training.run(recipe, tmp_path / "run", resume=True)


def test_a_state_that_is_broken_is_named_with_the_way_out(
    tmp_path: Path, parts: dict[str, str], data: Path
) -> None:
    recipe = make_recipe(parts, data)
    stopped(recipe, tmp_path / "run")
    (state,) = (tmp_path / "run" / "state").iterdir()
    content = (state / "state.safetensors").read_bytes()
    (state / "state.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(LlavakitError, match=f"{state.name}.*delete the folder"):
        training.run(recipe, tmp_path / "run", resume=True)


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from llavakit import training
from llavakit.recipe import load_recipe

recipe, folder, steps, kills = load_recipe(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), 0
log, draw = folder / "metrics.jsonl", random.Random(0)
while True:
    child = os.fork()
    if not child:
        training.run(recipe, folder, resume=folder.exists())
        os._exit(0)
    reached = draw.randint(kills * steps // 9, (kills + 1) * steps // 9) if kills < 8 else sys.maxsize
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if log.exists() and log.read_bytes().count(b"\\n") >= reached:
            time.sleep(draw.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
            kills += 1
            reached = sys.maxsize
        time.sleep(0.001)
    if not os.WIFSIGNALED(done[1]):
        print(kills, os.waitstatus_to_exitcode(done[1]))
        break
"""


@pytest.mark.slow
def test_kill_dash_nine_at_random_moments(tmp_path: Path, parts: dict[str, str], data: Path) -> None:
    """A real process, really killed, again and again: each time that the log has come to a step drawn at random, and up to
    20 ms later, so that a machine of any speed sees all kills. (It is forked from one that has imported all and computed
    nothing, because the imports take longer than the training.)"""
    recipe = make_recipe(parts, data, schedule={"epochs": 8}, save_every=3, seed=11)
    training.run(recipe, tmp_path / "whole")
    steps = str(len(read_metrics(tmp_path / "whole" / "metrics.jsonl")))
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    command = [sys.executable, "-c", KILLER, str(tmp_path / "recipe.yaml"), str(tmp_path / "run"), steps]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    environment = {**os.environ, **threads, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    kills, code = map(int, done.stdout.split())
    assert (kills, code) == (8, 0), done.stderr
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_killing_leaves_nothing_behind(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unfinished folders of the process that died are removed by the one that goes on."""
    began = time.monotonic()
    with monkeypatch.context() as patch:

        def die(*_: Any) -> None:
            raise Killed

        patch.setattr("llavakit.training.state.write_json", die)
        with pytest.raises(Killed):
            training.run(recipe, tmp_path / "run")
    assert list((tmp_path / "run" / "state").glob(".partial-*"))
    training.run(recipe, tmp_path / "run", resume=True)
    assert not [path for path in (tmp_path / "run").rglob(".partial-*") if path.exists()]
    assert time.monotonic() - began < 60
