"""The steps of one stage.

What lives here: the loop from packs to weights: accumulate over the packs of a step, divide by the supervised tokens of
all of them, clip, update, measure, save. The same loop serves a tiny model on a CPU and a large one on a GPU. It knows
prepared stages, the model and the learner. It does not know recipes, other stages, or how things are shown.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llavakit.data.loader import Dropped, LoadedPack, PackDataset, load_packs, naming_dead_workers
from llavakit.data.plan import mix64
from llavakit.errors import LlavakitError
from llavakit.model.llava import Llava
from llavakit.training.events import Listener, Notice, SampleDropped, StepDone
from llavakit.training.metrics import Board, MetricsLog
from llavakit.training.optimizer import Learner, Precision, divide_and_clip, schedule_factor
from llavakit.training.stage import PreparedStage

RECENT = 20
NAMED = 8


class NotFinite(LlavakitError):
    """A loss or a gradient is not a number. `samples` are those of the packs in question, `step` was not taken."""

    def __init__(self, what: str, stage: str, step: int, samples: Sequence[str]) -> None:
        self.what, self.stage, self.step, self.samples = what, stage, step, list(samples)
        named = ", ".join(samples[:NAMED]) + (
            f" and {len(samples) - NAMED} more" if len(samples) > NAMED else ""
        )
        super().__init__(
            f"the {what} of step {step} of stage {stage} is not finite; its pack holds {named}; "
            "the step was not taken and the weights before it are saved; look at these samples, or lower the "
            "learning rate or gradient_clip in a fresh run"
        )


@dataclass(slots=True)
class Sums:
    """What the packs of one step add up to."""

    losses: list[Tensor] = field(default_factory=list)
    names: list[list[str]] = field(default_factory=list)
    tokens: int = 0
    supervised: int = 0
    dropped: list[Dropped] = field(default_factory=list)

    def add(self, loaded: LoadedPack) -> None:
        """Counts a pack, before it is computed."""
        self.dropped += loaded.dropped
        if loaded.pack is not None:
            self.tokens += loaded.pack.cu_seqlens[-1]
            self.names.append(loaded.pack.sample_ids)

    def total(self, stage: str, step: int) -> float:
        """The summed loss. Raises NotFinite naming the pack whose loss is not finite."""
        values = torch.stack(self.losses).double().tolist() if self.losses else []
        for value, names in zip(values, self.names, strict=True):
            if not math.isfinite(value):
                raise NotFinite("loss", stage, step, names)
        return math.fsum(values)


@dataclass(slots=True)
class Trainer:
    """Trains one stage. `save` keeps the state after a step; `evaluate` gives the model's scores after a step, none
    when it was stopped; `stopping` asks for the end."""

    model: Llava
    learner: Learner
    prepared: PreparedStage
    precision: Precision
    workers: int
    log: MetricsLog
    board: Board
    steps_before: int
    listener: Listener
    save: Callable[[int], None]
    evaluate: Callable[[int], dict[str, float]]
    stopping: Callable[[], bool]

    def run(self, done: int) -> int:
        """Takes the steps after the first `done`; returns how many are done, fewer than all when asked to stop.

        Whatever a step draws at random (dropout) follows from the stage's seed and the step's number, so that no
        random state has to outlive a step.

        Raises NotFinite, after saving the weights before the step, and LlavakitError when data cannot be loaded.
        """
        stage, plan = self.prepared.stage, self.prepared.plan
        numbers = range(plan.bounds[done], plan.bounds[-1])
        recent: deque[tuple[int, float]] = deque(maxlen=RECENT)
        saved = done
        packs = load_packs(self.prepared.packs, numbers, self.workers)
        with closing(packs), naming_dead_workers(self.workers):
            for step in range(done + 1, plan.steps + 1):
                try:
                    self._step(step, packs, recent)
                except NotFinite:
                    if saved != step - 1:
                        self.log.settle()
                        self.save(step - 1)
                    raise
                stopping = self.stopping() and step < plan.steps
                if stopping or (stage.save_every and step % stage.save_every == 0 and step < plan.steps):
                    self.log.settle()
                    self.save(step)
                    saved = step
                if stopping:
                    return step
        return plan.steps

    def _step(self, step: int, packs: Iterator[LoadedPack], recent: deque[tuple[int, float]]) -> None:
        stage, plan = self.prepared.stage, self.prepared.plan
        began = time.perf_counter()
        torch.manual_seed(mix64(self.prepared.seed, step, 4) >> 1)
        factor = schedule_factor(step - 1, plan.steps, stage.schedule.warmup_ratio, stage.schedule.kind)
        rates = self.learner.set_rates(factor)
        sums = self._accumulate(next(packs) for _ in plan.packs_of(step - 1))
        loss = norm = None
        if sums.supervised:
            loss = sums.total(stage.name, step) / sums.supervised
            norm = divide_and_clip(self.learner.gradients(), sums.supervised, stage.gradient_clip)
            if not math.isfinite(norm):
                raise NotFinite("gradient", stage.name, step, [name for pack in sums.names for name in pack])
            self.learner.optimizer.step()
        else:
            self.listener(Notice(f"step {step} of stage {stage.name}: no sample of it could be loaded"))
        self.learner.optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - began
        validated = None
        held, last = self.prepared.validation, step == plan.steps
        if held is not None and stage.validation is not None and (last or step % stage.validation.every == 0):
            validated = self.validate(held)
        scores = {}
        asked = stage.evaluate
        if asked is not None and (last or (asked.every is not None and step % asked.every == 0)):
            with torch.no_grad(), self._at_rest(), self.precision.context():
                scores = self.evaluate(step)
        recent.append((sums.tokens, seconds))
        spent = sum(s for _, s in recent)
        done = StepDone(
            stage=stage.name,
            step=step,
            steps=plan.steps,
            loss=loss,
            validation_loss=validated,
            scores=scores,
            rates=rates,
            gradient_norm=norm,
            tokens=sums.tokens,
            supervised=sums.supervised,
            seconds=seconds,
            tokens_per_second=sum(t for t, _ in recent) / spent,
            seconds_left=(plan.steps - step) * spent / len(recent),
        )
        self._record(done, sums.dropped)

    def _accumulate(self, packs: Iterator[LoadedPack]) -> Sums:
        """Adds up the gradients of the summed losses of packs."""
        sums = Sums()
        for loaded in packs:
            sums.add(loaded)
            if loaded.pack is None:
                continue
            with self.precision.context():
                out = self.model(loaded.pack)
            if out.loss_sum.requires_grad:  # not so when only the projector trains and the pack is text alone
                out.loss_sum.backward()
            sums.losses.append(out.loss_sum.detach())
            sums.supervised += out.supervised
        return sums

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """The model as it is used, not trained; afterwards every part is as it was."""
        modes = {name: part.training for name, part in self.model.parts().items()}
        self.model.eval()
        try:
            yield
        finally:
            for name, part in self.model.parts().items():
                part.train(modes[name])

    @torch.no_grad()
    def validate(self, held: PackDataset) -> float:
        """The mean loss over all supervised tokens of the held-out conversations."""
        sums = Sums()
        with self._at_rest():
            for loaded in load_packs(held, range(len(held)), self.workers):
                sums.add(loaded)
                for dropped in loaded.dropped:
                    self.listener(Notice(f"validation without {dropped.sample}: {dropped.reason}"))
                if loaded.pack is not None:
                    with self.precision.context():
                        out = self.model(loaded.pack)
                    sums.losses.append(out.loss_sum)
                    sums.supervised += out.supervised
        if not sums.supervised:
            raise LlavakitError(
                "validation: not one held-out picture could be decoded; check the validation data"
            )
        total = torch.stack(sums.losses).double().sum().item()
        if not math.isfinite(total):
            self.listener(Notice("the validation loss is not finite"))
            return math.inf
        return total / sums.supervised

    def _record(self, done: StepDone, dropped: Sequence[Dropped]) -> None:
        record: dict[str, Any] = {
            "stage": done.stage,
            "stage_number": self.prepared.number,
            "step": done.step,
            "loss": done.loss,
            "learning_rate": done.rates,
            "gradient_norm": done.gradient_norm,
            "tokens": done.tokens,
            "supervised": done.supervised,
            "tokens_per_second": round(done.tokens / done.seconds, 1),
            "seconds": round(done.seconds, 4),
        }
        if done.validation_loss is not None and math.isfinite(done.validation_loss):
            record["validation_loss"] = done.validation_loss
        if scores := {name: score for name, score in done.scores.items() if math.isfinite(score)}:
            record["scores"] = scores
        if dropped:
            record["dropped"] = [{"sample": one.sample, "reason": one.reason} for one in dropped]
        self.log.append(record)
        self.board.add(done.stage, self.steps_before + done.step, record)
        for one in dropped:
            self.listener(SampleDropped(done.stage, done.step, one.sample, one.reason))
        self.listener(done)
