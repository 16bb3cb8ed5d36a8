"""Stopping a run from outside, and saying that it was stopped.

What lives here: Ctrl-C and SIGTERM turned into a request that the trainer honours after its step, and the error that
tells how far the run came. A second signal stops at once; the last saved state is then what there is.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from llavakit.errors import LlavakitError


class Interrupted(LlavakitError):
    """The run was stopped by a signal; all that it did up to `step` of `stage` is saved in `folder`."""

    def __init__(self, folder: Path, stage: str, step: int, steps: int) -> None:
        self.folder = folder
        self.stage = stage
        self.step = step
        where = f"after step {step} of {steps} of stage {stage}" if steps else f"before stage {stage} began"
        super().__init__(
            f"the run was stopped {where}; it is saved in {folder} and goes on from there when it is resumed"
        )


class StopSignals:
    """While open, remembers SIGINT and SIGTERM in `requested` instead of dying of them.

    Outside the main thread, where Python forbids handlers, signals keep their usual meaning.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
