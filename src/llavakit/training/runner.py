"""A run: all stages of a recipe, from an empty folder or from where it stopped, to a saved model and a report.

What lives here: the order of things. Open the folder, make the model, take up the last state; for each stage: prepare,
train, save the state, save the model; at the end, and wherever the run stops, write the report. It knows all the other
files of this room. It does not print.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from llavakit.data.writing import image_policy
from llavakit.errors import LlavakitError
from llavakit.model.llava import Llava
from llavakit.recipe import ModelRecipe, Recipe
from llavakit.training.durable import whole_folder, write_json
from llavakit.training.evaluator import Evaluator
from llavakit.training.events import (
    Evaluating,
    Indexing,
    Listener,
    Notice,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    StateSaved,
    nobody,
)
from llavakit.training.folder import RunFolder, describe_machine, now, open_run
from llavakit.training.interrupt import Interrupted, StopSignals
from llavakit.training.lora import FOLDER as ADAPTER_FOLDER
from llavakit.training.lora import (
    begin_adapters,
    check_peft,
    check_targets,
    end_adapters,
    kept_parts,
    take_up,
)
from llavakit.training.metrics import Board, MetricsLog
from llavakit.training.optimizer import (
    Precision,
    choose_precision,
    make_learner,
    prepare_parts,
    trained_sizes,
)
from llavakit.training.report import write_report
from llavakit.training.stage import PreparedStage, prepare_stage, refuse_changed_data
from llavakit.training.state import SavedState, latest_state, load_learner, save_state
from llavakit.training.trainer import NotFinite, Trainer


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where a finished run left what it made. `already_finished`: there was nothing to do."""

    folder: Path
    checkpoints: tuple[Path, ...]
    report: Path
    already_finished: bool = False

    @property
    def checkpoint(self) -> Path:
        """The model after the last stage."""
        return self.checkpoints[-1]


def run(
    recipe: Recipe,
    run_dir: str | Path,
    listener: Listener = nobody,
    resume: bool = False,
    *,
    indexes: Path | None = None,
    evaluator: Evaluator | None = None,
) -> RunResult:
    """Trains every stage of `recipe` into the folder `run_dir`.

    resume: go on with the run that is there. The result is the same, bit for bit, as that of a run that was never
    stopped (on the same machine with the same number of threads). indexes: a folder where several runs on the same
    data keep their indexes together; the run's own when None. evaluator: who scores the model where a stage wants it
    (`evaluation.during_training.Evaluation()`).

    Raises Interrupted after Ctrl-C or SIGTERM, NotFinite when a loss or gradient is not finite, LlavakitError for what
    is wrong with recipe, data or folder. Whatever is raised once training has begun, the run can be resumed.
    """
    _check_evaluation(recipe, evaluator)
    folder = open_run(Path(run_dir), recipe, resume)
    if folder.finished:
        _tidy(folder)
        return _result(folder, already=True)
    with StopSignals() as stop:
        course = _Course(
            recipe, folder, listener, indexes or folder.indexes, evaluator, lambda: stop.requested
        )
        try:
            course.run(resume)
        except LlavakitError as error:
            if not folder.manifest.get("stages") and not resume and not isinstance(error, Interrupted):
                _withdraw(folder)
            else:
                write_report(folder)
            raise
    return _result(folder)


def _check_evaluation(recipe: Recipe, evaluator: Evaluator | None) -> None:
    for stage in recipe.stages:
        if stage.evaluate is None:
            continue
        if evaluator is None:
            raise LlavakitError(
                f"stage {stage.name} is to be evaluated and nobody does it; give training.run an evaluator, or leave "
                "evaluate out"
            )
        evaluator.check(stage.evaluate)


def _result(folder: RunFolder, already: bool = False) -> RunResult:
    places = tuple(folder.path / stage["checkpoint"] for stage in folder.manifest["stages"])
    return RunResult(folder.path, places, folder.report, already)


def _tidy(folder: RunFolder) -> None:
    """The last acts of a finished run: its report, and the end of its states, which its models replace."""
    if folder.states.exists():
        write_report(folder)
        shutil.rmtree(folder.states)


def _withdraw(folder: RunFolder) -> None:
    """Takes back the folder of a run that could not begin, so that the mended recipe can use its name."""
    for path in (folder.states, folder.checkpoints, folder.indexes, folder.evaluations, folder.tensorboard):
        shutil.rmtree(path, ignore_errors=True)
    for path in (folder.recipe, folder.metrics, folder.path / "manifest.json"):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.path.rmdir()


def make_model(recipe: ModelRecipe, seed: int) -> Llava:
    """The model that a run begins with. Raises LlavakitError naming the part that cannot be opened."""
    if recipe.checkpoint is not None:
        return Llava.from_pretrained(recipe.checkpoint)
    return Llava.compose(
        vision_tower=recipe.vision_tower,
        language_model=recipe.language_model,
        projector=recipe.projector,
        image_size=recipe.image_size,
        vision_feature_layer=recipe.vision_feature_layer,
        vision_feature_select=recipe.vision_feature_select,
        seed=seed,
    )


class _Stopped(Exception):
    """The run is to stop while its model is evaluated."""


@dataclass(slots=True)
class _Course:
    recipe: Recipe
    folder: RunFolder
    listener: Listener
    indexes: Path
    evaluator: Evaluator | None
    stopping: Callable[[], bool]

    def run(self, resume: bool) -> None:
        recipe, folder = self.recipe, self.folder
        check_peft(recipe)
        precision = choose_precision(recipe.model.precision)
        if precision.device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
        self._begin_manifest(precision, resume)
        stages = tuple(stage.name for stage in recipe.stages)
        device = torch.cuda.get_device_name() if precision.device.type == "cuda" else "CPU"
        self.listener(RunStarted(folder.path, stages, device, precision.words, resume))
        model = make_model(recipe.model, recipe.seed)
        saved = latest_state(folder.states)
        check_targets(model, recipe)
        if saved is not None:
            take_up(saved, model, recipe, self._ended(saved.stage), precision.device)
        reached = (saved.stage, saved.step) if saved else (0, 0)
        steps_before = sum(stage["steps"] for stage in self.manifest_stages if stage.get("finished"))
        with (
            MetricsLog(folder.metrics, *reached) as log,
            Board(folder.tensorboard, recipe.tensorboard, steps_before + reached[1], self._notice) as board,
        ):
            for number in range(1, len(recipe.stages) + 1):
                if self._ended(number):
                    continue
                at_work = saved if saved is not None and saved.stage == number else None
                self._stage(model, number, at_work, precision, log, board)
        folder.manifest["finished"] = now()
        folder.manifest["final"] = self.manifest_stages[-1]["checkpoint"]
        folder.keep()
        _tidy(folder)
        self.listener(RunFinished(folder.path, folder.path / folder.manifest["final"], folder.report))

    @property
    def manifest_stages(self) -> list[dict[str, Any]]:
        stages: list[dict[str, Any]] = self.folder.manifest.setdefault("stages", [])
        return stages

    def _ended(self, number: int) -> bool:
        """Whether stage `number` (from 1) is over and its model saved."""
        stages = self.manifest_stages
        return number <= len(stages) and bool(stages[number - 1].get("finished"))

    def _stage(
        self,
        model: Llava,
        number: int,
        saved: SavedState | None,
        precision: Precision,
        log: MetricsLog,
        board: Board,
    ) -> None:
        stage, folder = self.recipe.stages[number - 1], self.folder
        prepared = prepare_stage(
            model, stage, number, self.recipe.seed, self.indexes, self._indexing(stage.name)
        )
        if len(self.manifest_stages) >= number:
            refuse_changed_data(self.manifest_stages[number - 1], prepared)
            self.manifest_stages[number - 1] = prepared.summary
        else:
            self.manifest_stages.append(prepared.summary)
        folder.keep()
        model.settings = replace(model.settings, image_policy=image_policy(stage), template=stage.template)
        begin_adapters(model, stage, prepared.seed)
        prepare_parts(model, stage, precision)
        learner = make_learner(model, stage)
        trained = kept_parts(model, self.recipe, number)
        done = saved.step if saved is not None else 0
        if saved is not None and done < prepared.plan.steps:
            load_learner(saved, learner)
        self._say_started(model, prepared, done)

        def save(step: int) -> None:
            ended = step == prepared.plan.steps
            state = save_state(
                folder.states,
                model,
                None if ended else learner,
                stage=number,
                stage_name=stage.name,
                step=step,
                trained=trained,
            )
            self.listener(StateSaved(stage.name, step, state.folder))

        def evaluate(step: int) -> dict[str, float]:
            return self._evaluate(model, number, step)

        trainer = Trainer(
            model=model,
            learner=learner,
            prepared=prepared,
            precision=precision,
            workers=self.recipe.workers,
            log=log,
            board=board,
            steps_before=sum(one["steps"] for one in self.manifest_stages[: number - 1]),
            listener=self.listener,
            save=save,
            evaluate=evaluate,
            stopping=self.stopping,
        )
        try:
            reached = trainer.run(done)
        except NotFinite as error:
            content = {"what": error.what, "stage": error.stage, "step": error.step, "samples": error.samples}
            write_json(folder.failure, content)
            raise
        if reached < prepared.plan.steps:
            raise Interrupted(folder.path, stage.name, reached, prepared.plan.steps)
        log.settle()
        save(reached)
        checkpoint = self._save_model(model, number)
        prepared.summary["finished"] = now()
        prepared.summary["checkpoint"] = str(checkpoint.relative_to(folder.path))
        folder.keep()
        self.listener(StageFinished(number, stage.name, checkpoint))
        if self.stopping() and number < len(self.recipe.stages):
            raise Interrupted(folder.path, stage.name, reached, prepared.plan.steps)

    def _evaluate(self, model: Llava, number: int, step: int) -> dict[str, float]:
        """The scores of the model as it stands; none when the run is to stop meanwhile, which is told."""
        stage = self.recipe.stages[number - 1]
        assert self.evaluator is not None and stage.evaluate is not None, "checked before the run began"
        out = self.folder.evaluations / f"{number}-{stage.name}" / f"step-{step:06d}"

        def tell(benchmark: str, done: int, total: int) -> None:
            if self.stopping():
                raise _Stopped
            self.listener(Evaluating(stage.name, step, benchmark, done, total))

        who = f"{self.folder.path}, stage {stage.name} after step {step}"
        try:
            scores = self.evaluator.score(model, stage.evaluate, who, out, tell)
        except _Stopped:
            self._notice(f"the evaluation after step {step} was left, since the run is to stop")
            return {}
        for name, score in scores.items():
            if not math.isfinite(score):
                self._notice(f"step {step}: {name} has no score; see {out / 'report.html'}")
        return scores

    def _save_model(self, model: Llava, number: int) -> Path:
        """The checkpoint of a stage: the model, its adapters merged, and beside it the adapters alone."""
        stage = self.recipe.stages[number - 1]
        checkpoint = self.folder.checkpoint(number, stage.name)
        adapter = end_adapters(model, stage)
        if not checkpoint.exists():
            with whole_folder(checkpoint) as partial:
                model.save_pretrained(partial)
                if adapter is not None:
                    adapter.write(partial / ADAPTER_FOLDER, self._base(number))
        if adapter is not None and adapter.unknown_to_peft:
            self._notice(
                f"the newline trained in stage {stage.name} too; {checkpoint / ADAPTER_FOLDER} holds it, but peft "
                "leaves it out: open the adapter by Llava.load_adapter"
            )
        return checkpoint

    def _base(self, number: int) -> str | None:
        """Where the model lies that stage `number` began with, if it is saved."""
        if number == 1:
            return self.recipe.model.checkpoint
        return str(self.folder.path / self.manifest_stages[number - 2]["checkpoint"])

    def _begin_manifest(self, precision: Precision, resume: bool) -> None:
        manifest = self.folder.manifest
        lora = any(stage.lora is not None for stage in self.recipe.stages)
        machine = describe_machine(str(precision.device), precision.words, torch.get_num_threads(), lora)
        if resume and manifest.get("machine", machine) != machine:
            self._notice(
                "libraries, device or number of threads differ from those the run began with, so the last bits of "
                "the weights may too"
            )
        manifest.setdefault("name", self.recipe.name)
        manifest.setdefault("seed", self.recipe.seed)
        manifest.setdefault("machine", machine)
        manifest.setdefault("started", now())
        if resume:
            manifest.setdefault("resumed", []).append(now())
        self.folder.keep()

    def _say_started(self, model: Llava, prepared: PreparedStage, done: int) -> None:
        videos = prepared.index.sampled
        self.listener(
            StageStarted(
                number=prepared.number,
                name=prepared.stage.name,
                step=done,
                steps=prepared.plan.steps,
                samples=len(prepared.index.rows),
                skipped=len(prepared.index.skipped),
                cut=len(prepared.index.cut),
                videos=videos.videos,
                frames=videos.frames,
                frames_found=videos.found,
                packs=len(prepared.plan.packs),
                fill=prepared.summary["fill"],
                parameters=trained_sizes(model, prepared.stage),
            )
        )

    def _indexing(self, stage: str) -> Callable[[str, int], None]:
        def tell(source: str, rows: int) -> None:
            if self.stopping():
                raise Interrupted(self.folder.path, stage, 0, 0)
            self.listener(Indexing(source, rows))

        return tell

    def _notice(self, sentence: str) -> None:
        self.listener(Notice(sentence))
