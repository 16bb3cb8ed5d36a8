"""The measurements of a run: one JSON line a step, and TensorBoard beside it.

What lives here: appending, reading, and cutting back to a step. The log never has a step twice and never misses one:
it is on the disk before the state that follows it, and what lies after the state from which a run resumes is removed.
It does not know what is measured.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from llavakit.training.durable import write_text

Record = dict[str, Any]


def read_metrics(path: Path) -> list[Record]:
    """All whole lines of a log, oldest first; an unfinished last line is not one. No file, no lines."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


class MetricsLog:
    """An open log. `stage` and `step` of the last record to keep; everything after is cut off."""

    def __init__(self, path: Path, stage: int, step: int) -> None:
        kept = [
            record
            for record in read_metrics(path)
            if (record["stage_number"], record["step"]) <= (stage, step)
        ]
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes one record, at once visible to readers."""
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()

    def settle(self) -> None:
        """Waits until all records are on the disk."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class Board:
    """TensorBoard's curves, over the steps of all stages together. Does nothing when it is not wanted or not there."""

    def __init__(self, folder: Path, wanted: bool, first_step: int, say: Callable[[str], None]) -> None:
        self._writer: Any = None
        if not wanted:
            return
        if importlib.util.find_spec("tensorboard") is None:
            say(
                "no TensorBoard curves: install them with `pip install tensorboard`, or set tensorboard=false"
            )
            return
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def add(self, stage: str, step: int, record: Mapping[str, Any]) -> None:
        """The numbers of one record; `step` counts over all stages."""
        if self._writer is None:
            return
        for name in ("loss", "validation_loss", "gradient_norm", "tokens_per_second"):
            if record.get(name) is not None:
                self._writer.add_scalar(f"{stage}/{name}", record[name], step)
        for benchmark, score in record.get("scores", {}).items():
            self._writer.add_scalar(f"{stage}/score/{benchmark}", score, step)
        for part, rate in record["learning_rate"].items():
            self._writer.add_scalar(f"{stage}/learning_rate/{part}", rate, step)

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
