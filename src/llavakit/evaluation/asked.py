"""How a model is asked, and the journal of a run: every answer in a line of its own, so that none is asked for twice.

One file a process, below one folder a benchmark. The first line says what was asked of what; a journal of something
else is refused. A line that was being written when a process ended is left out and its question asked again.

Knows files. Does not ask.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.evaluation.saved import OWN_ID


@dataclass(frozen=True, slots=True)
class Asking:
    """How a model is asked.

    condition: `shown`, `blind` or `shuffled`. batch: questions computed together. max_new_tokens: the benchmark's own
    when None. rank, world: this process's share. limit: only the first so many questions, whole units.
    """

    condition: str = "shown"
    batch: int = 32
    max_new_tokens: int | None = None
    rank: int = 0
    world: int = 1
    limit: int | None = None

    def other_than_usual(self) -> list[str]:
        """The names of what is not as it is by default."""
        return [one.name for one in fields(self) if getattr(self, one.name) != one.default]

    def check(self) -> None:
        """Raises LlavakitError for what cannot be."""
        if self.world < 1 or not 0 <= self.rank < self.world:
            raise LlavakitError(
                f"rank {self.rank} of {self.world} processes cannot be: expected 0 to {self.world - 1}"
            )
        for name in ("batch", "max_new_tokens", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise LlavakitError(f"{name} is {value}, expected at least 1")


class Journal:
    """A process's answers to one benchmark; a context manager. `answers` holds those of all processes."""

    def __init__(self, folder: Path, asking: Mapping[str, Any], rank: int = 0, world: int = 1) -> None:
        """asking: what must be equal for an answer to count. Raises LlavakitError when the folder's answers were asked
        otherwise, or when another process writes to this one's file."""
        self.answers: dict[str, str] = {}
        self.torn = 0
        self._asking = dict(asking)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{rank}-of-{world}.jsonl"
        self._file = self.path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise LlavakitError(
                f"another process is writing answers to {self.path}; wait for it, or give another --rank or --out"
            ) from error
        try:
            for path in sorted(folder.glob("*-of-*.jsonl")):
                self._read(path)
        except LlavakitError:
            self._file.close()
            raise
        if not self.path.stat().st_size:
            self._write({"asking": self._asking})
            self.sync()

    def _read(self, path: Path) -> None:
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            if path != self.path:
                content = content[:whole]  # another process may be writing it at this moment
            else:
                self.torn += 1
                self._file.truncate(whole)
                content = content[:whole]
        for number, line in enumerate(content.split(b"\n")[:-1]):
            try:
                row = json.loads(line)
                if number:
                    self._take(str(row[OWN_ID]), str(row["text"]), path)
                    continue
                asking = row["asking"]
            except (ValueError, KeyError, TypeError) as error:
                raise LlavakitError(
                    f"{path}, line {number + 1} is damaged ({error!r}); remove the file to ask its questions again"
                ) from error
            different = [name for name in self._asking if asking.get(name) != self._asking[name]]
            if different:
                told = ", ".join(
                    f"{name} {asking.get(name)!r:.40} there and {self._asking[name]!r:.40} now"
                    for name in different
                )
                raise LlavakitError(
                    f"{path} holds answers that were asked for otherwise ({told}); choose another --out"
                )

    def _take(self, name: str, text: str, path: Path) -> None:
        if self.answers.setdefault(name, text) != text:
            raise LlavakitError(
                f"{path} has another answer to question {name} than the journal beside it; remove one"
            )

    def keep(self, question: str, answer: str, **more: Any) -> None:
        """Keeps an answer; it outlives the process at once, and the machine after `sync`."""
        self._write({OWN_ID: question, "text": answer, **more})
        self.answers[question] = answer

    def _write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()

    def sync(self) -> None:
        """Makes sure that what was kept is on the disk."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sync()
        self._file.close()
