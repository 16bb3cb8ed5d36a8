"""The rows of a JSON list or of a JSONL file, one at a time.

A list is taken apart as it is read, so that a file of a gigabyte needs the memory of a row; as one Python string it
would take four bytes a character as soon as it holds one emoji. A line of JSONL that is not whole is handed on as
`Broken`; a list that is not whole is a fault of the file.

Knows files and JSON. Knows nothing of what rows mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

from llavakit.errors import LlavakitError

CHUNK = 1 << 20
_SPACE = " \t\n\r"
# How near to the end of what is read a mistake may be the reading's own: the longest escape or word of JSON.
_NEAR = 32


@dataclass(frozen=True, slots=True)
class Broken:
    """A line that is no JSON."""

    reason: str


def read_rows(path: Path) -> Iterator[Any]:
    """Every row of the file in order; whether it is a list or lines is seen from its name and its beginning.

    Raises LlavakitError when the file is missing, is not text, or is a list that is not whole.
    """
    try:
        if _has_lines(path):
            yield from _lines(path)
        else:
            yield from _List(path).rows()
    except FileNotFoundError as error:
        raise LlavakitError(f"{path} is not there; name a JSON or JSONL file of conversations") from error
    except OSError as error:
        raise LlavakitError(f"{path} cannot be read: {error.strerror}") from error


def _has_lines(path: Path) -> bool:
    """Whether each line is a row: by the name, or because the first line is a whole object and others follow."""
    with path.open("rb") as file:
        if path.suffix == ".jsonl":
            return True
        first = file.readline(CHUNK).removeprefix(b"\xef\xbb\xbf").strip()
        if not first.startswith(b"{"):
            return False
        try:
            json.loads(first)
        except (ValueError, RecursionError):
            return path.suffix != ".json"
        return path.suffix != ".json" or bool(file.read(64).strip())


def _lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Broken(f"line {number} is not whole JSON: {error}")


class _List:
    """A JSON list that is read piece by piece. `buffer` holds what is read and not yet taken, from `at` on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.buffer, self.at = "", 0
        self.line, self.column = 1, 1  # where the buffer begins in the file
        self.ended = False
        self.decoder = json.JSONDecoder()

    def rows(self) -> Iterator[Any]:
        self._refuse_cut()
        with self.path.open(encoding="utf-8-sig", newline="\n") as file:
            if self._next(file) != "[":
                kind = type(self._value(file)).__name__
                raise LlavakitError(f"{self.path} holds a JSON {kind}; expected a list of conversations")
            self.at += 1
            if self._next(file) != "]":
                yield self._value(file)
                while self._next(file) == ",":
                    self.at += 1
                    self._next(file)
                    yield self._value(file)
            if self._next(file) != "]":
                self._fail("Expecting ',' delimiter", self.at)
            self.at += 1
            if self._next(file):
                self._fail("Extra data", self.at)

    def _refuse_cut(self) -> None:
        """A list that was cut is told at once, not after its rows: its last character is not the list's end."""
        with self.path.open("rb") as file:
            begins = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
            size = file.seek(0, 2)
            file.seek(max(0, size - 4096))
            ends = file.read().rstrip()
        if begins.startswith(b"[") and ends and not ends.endswith(b"]"):
            lines = self._all_lines()
            raise LlavakitError(
                f"{self.path} is not whole JSON: it ends at byte {size} without the list's closing ], on line {lines} "
                f"of {lines} lines; it may have been cut while it was copied, so fetch or write it again"
            )

    def _more(self, file: TextIO) -> None:
        kept = self.buffer[self.at :]
        self.line, self.column = self._place(self.at)
        try:
            read = file.read(max(CHUNK, len(kept)))
        except UnicodeDecodeError as error:
            raise LlavakitError(f"{self.path} is not UTF-8 text ({error}); save it as UTF-8") from error
        self.buffer, self.at = kept + read, 0
        self.ended = not read

    def _next(self, file: TextIO) -> str:
        """The next character that is no space, which is not taken; "" at the end of the file."""
        while True:
            while self.at < len(self.buffer):
                if self.buffer[self.at] not in _SPACE:
                    return self.buffer[self.at]
                self.at += 1
            if self.ended:
                return ""
            self._more(file)

    def _value(self, file: TextIO) -> Any:
        while True:
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.at)
            except json.JSONDecodeError as error:
                unfinished = error.pos > len(self.buffer) - _NEAR or error.msg.startswith(
                    "Unterminated string"
                )
                if self.ended or not unfinished:
                    self._fail(error.msg, error.pos)
            except (
                ValueError,
                RecursionError,
            ) as error:  # thousands of digits, lists inside lists without end
                raise LlavakitError(
                    f"{self.path} cannot be read as JSON: {error}; expected a list of conversations"
                ) from error
            else:
                if end < len(self.buffer) or self.ended:  # a number at the end of what is read may go on
                    self.at = end
                    return value
            self._more(file)

    def _fail(self, reason: str, place: int) -> NoReturn:
        line, column = self._place(place)
        raise LlavakitError(
            f"{self.path} is not whole JSON: {reason} at line {line}, column {column} of {self._all_lines()} lines; it "
            "may have been cut while it was copied, so fetch or write it again"
        )

    def _place(self, place: int) -> tuple[int, int]:
        """Line and column in the file of a place in the buffer."""
        breaks = self.buffer.count("\n", 0, place)
        if breaks:
            return self.line + breaks, place - self.buffer.rfind("\n", 0, place)
        return self.line, self.column + place

    def _all_lines(self) -> int:
        with self.path.open("rb") as file:
            return 1 + sum(piece.count(b"\n") for piece in iter(lambda: file.read(CHUNK), b""))
