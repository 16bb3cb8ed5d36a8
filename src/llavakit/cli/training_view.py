"""How a run looks in a terminal: a bar with the loss, the speed and the time left, and lines for what happens.

What lives here: a listener of training's events. On a terminal the bar moves; in a file or a pipe, a line is written
now and then. It knows events and rich, and nothing of torch.
"""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from llavakit.training import events

QUIET_SECONDS = 10.0
NAMED = 10


class TrainingView:
    """A listener that shows a run on a rich console. Use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._indexing = ""
        self._dropped = 0
        self._said = 0.0

    def __enter__(self) -> TrainingView:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the terminal as it was."""
        self._progress.stop()

    def __call__(self, event: events.Event, /) -> None:
        match event:
            case events.RunStarted():
                verb = "Resuming" if event.resumed else "Training"
                stages = " → ".join(event.stages)
                self._line(f"{verb} in {event.folder}: {stages}, on {event.device} in {event.precision}")
            case events.Indexing():
                self._show_indexing(event)
            case events.StageStarted():
                self._show_stage(event)
            case events.StepDone():
                self._show_step(event)
            case events.Evaluating():
                if self._task is not None:
                    words = f"asking {event.benchmark}: {event.done} of {event.total}"
                    self._progress.update(self._task, words=words)
            case events.SampleDropped():
                self._dropped += 1
                if self._dropped <= NAMED:
                    self._line(f"left out {event.sample}: {event.reason}", "yellow")
                if self._dropped == NAMED:
                    self._line("further samples left out are listed in report.html", "yellow")
            case events.StageFinished():
                self._end_task()
                self._line(f"Stage {event.name} is done: {event.checkpoint}", "green")
            case events.Notice():
                self._line(f"note: {event.sentence}", "yellow")
            case events.StateSaved() | events.RunFinished():
                pass

    def _show_indexing(self, event: events.Indexing) -> None:
        if self._task is None or self._indexing != event.source:
            self._end_task()
            self._task = self._progress.add_task(f"Reading {escape(event.source)}", total=None, words="rows")
            self._indexing = event.source
        self._progress.update(self._task, completed=event.rows)

    def _show_stage(self, event: events.StageStarted) -> None:
        self._end_task()
        left_out = f", {event.skipped} rows skipped" if event.skipped else ""
        cut = f", {event.cut} cut" if event.cut else ""
        sizes = ", ".join(f"{part} {count / 1e6:.2f} M" for part, count in event.parameters.items())
        frames = f"{event.frames} of their {event.frames_found} frames shown"
        videos = f", {event.videos} videos ({frames})" if event.videos else ""
        self._line(
            f"Stage {event.number} {event.name}: {event.samples} samples{left_out}{cut}{videos}, {event.packs} packs "
            f"{event.fill:.1%} full, {event.steps} steps; training {sizes}"
        )
        self._task = self._progress.add_task(event.name, total=event.steps, completed=event.step, words="")

    def _show_step(self, event: events.StepDone) -> None:
        loss = "no loss" if event.loss is None else f"loss {event.loss:.4f}"
        left = timedelta(seconds=round(event.seconds_left))
        words = f"{loss}  {event.tokens_per_second:,.0f} tokens/s  {left} left"
        if self._task is not None:
            self._progress.update(self._task, completed=event.step, words=words)
        if event.validation_loss is not None:
            self._line(f"step {event.step}: validation loss {event.validation_loss:.4f}")
        if event.scores:
            scores = ", ".join(f"{name} {score:.2f}" for name, score in event.scores.items())
            self._line(f"step {event.step}: {scores}")
        if not self.console.is_terminal:
            now = time.monotonic()
            if now - self._said >= QUIET_SECONDS or event.step == event.steps:
                self._said = now
                self._line(f"{event.stage} {event.step}/{event.steps}  {words}")

    def _line(self, sentence: str, style: str = "") -> None:
        self.console.print(escape(sentence), style=style, highlight=False, soft_wrap=True)

    def _end_task(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
