"""Samples as files: LLaVA JSON, JSONL with provenance, Parquet, what was rejected, and the card of the data.

The files are a function of the samples alone: no clock, no random number and no name of this machine goes into them, so
that the same journal gives the same bytes each time. Each is written beside its name and put in place whole.

Knows samples and files. Knows no teacher, journal or gate.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from llavakit.errors import LlavakitError
from llavakit.synthesis.sample import Sample, full_row, llava_row, rejected_row

FORMATS = {"json": "data.json", "jsonl": "data.jsonl", "parquet": "data.parquet"}
REJECTED = "rejected.jsonl"
_ROWS = 2000  # a row group of Parquet; a constant, because it is seen in the bytes


@dataclass(slots=True)
class Exported:
    """What was written, counted for the card."""

    kept: int = 0
    rejected: int = 0
    exchanges: int = 0
    words: int = 0
    cost: float = 0.0
    pictures: set[str] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    licences: Counter[tuple[str, str]] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    prompts: Counter[str] = field(default_factory=Counter)
    teachers: Counter[str] = field(default_factory=Counter)
    days: set[str] = field(default_factory=set)
    files: list[str] = field(default_factory=list)

    def count(self, sample: Sample) -> None:
        """Takes one sample into the account."""
        source = sample.provenance.get("source", {})
        teacher = sample.provenance.get("teacher", {})
        self.cost += float(sample.provenance.get("cost", 0.0))
        self.days.add(str(sample.provenance.get("at", ""))[:10])
        self.teachers[str(teacher.get("returned") or teacher.get("asked") or "unknown")] += 1
        self.prompts[str(sample.provenance.get("prompt", "unknown"))] += 1
        self.notes.update(f"{one.gate}: {one.reason}" for one in sample.verdicts if one.action == "note")
        if not sample.kept:
            self.rejected += 1
            self.reasons.update(set(sample.reasons))
            return
        self.kept += 1
        self.kinds[sample.candidate.kind] += 1
        self.pictures.add(sample.candidate.picture.image)
        self.exchanges += len(sample.candidate.exchanges)
        self.words += sum(len(answer.split()) for _, answer in sample.candidate.exchanges)
        self.sources[str(source.get("dataset") or "unknown")] += 1
        self.licences[str(source.get("licence") or "unknown"), str(source.get("licence_url") or "")] += 1


def export(samples: Iterable[Sample], folder: Path, formats: Sequence[str] = tuple(FORMATS)) -> Exported:
    """Write `data.json`, `data.jsonl`, `data.parquet` (as asked) and `rejected.jsonl` below `folder`, in one pass.

    Raises LlavakitError for a format that is not known. When anything fails, files that stood there are untouched.
    """
    check_formats(formats)
    folder.mkdir(parents=True, exist_ok=True)
    done = Exported(files=[FORMATS[name] for name in formats] + [REJECTED])
    partial = {name: folder / f".partial-{name}" for name in done.files}
    try:
        with ExitStack() as stack:
            writers = [_WRITERS[name](partial[FORMATS[name]], stack) for name in formats]
            refused = stack.enter_context(partial[REJECTED].open("w", encoding="utf-8"))
            for sample in samples:
                done.count(sample)
                if not sample.kept:
                    refused.write(_line(rejected_row(sample)))
                    continue
                for writer in writers:
                    writer.add(sample)
            for writer in writers:
                writer.end()
        for name, path in partial.items():
            _flush(path)
            path.replace(folder / name)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
    return done


def check_formats(formats: Sequence[str]) -> None:
    """Raises LlavakitError for a format that is not known."""
    for name in formats:
        if name not in FORMATS:
            raise LlavakitError(f"The format {name!r} is not known; choose from {', '.join(FORMATS)}.")


def _line(row: dict[str, Any]) -> str:
    written = json.dumps(row, ensure_ascii=False)
    try:
        written.encode()
    except UnicodeEncodeError:  # half a character, which is no UTF-8
        written = json.dumps(row)
    return written + "\n"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Json:
    """One JSON list, a row a line."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.file: IO[str] = stack.enter_context(path.open("w", encoding="utf-8"))
        self.rows = 0

    def add(self, sample: Sample) -> None:
        self.file.write("[\n" if self.rows == 0 else ",\n")
        self.file.write(_line(llava_row(sample)).rstrip("\n"))
        self.rows += 1

    def end(self) -> None:
        self.file.write("\n]\n" if self.rows else "[]\n")


class _Jsonl:
    """One row a line, with provenance and verdicts."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.file: IO[str] = stack.enter_context(path.open("w", encoding="utf-8"))

    def add(self, sample: Sample) -> None:
        self.file.write(_line(full_row(sample)))

    def end(self) -> None:
        """Nothing is left to write."""


class _Parquet:
    """Columns as LLaVA-NeXT's published data has them, with provenance as JSON text, which any reader can hold."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        text = pa.string()
        turn = pa.struct([("from", text), ("value", text)])
        verdict = pa.struct([(name, text) for name in ("gate", "action", "reason", "evidence")])
        self.schema = pa.schema([
            ("id", text), ("image", text), ("conversations", pa.list_(turn)), ("kind", text), ("data_source", text),
            ("licence", text), ("provenance", text), ("verdicts", pa.list_(verdict)),
        ])  # fmt: skip
        self.writer: Any = stack.enter_context(parquet.ParquetWriter(path, self.schema, compression="zstd"))
        self.rows: list[dict[str, Any]] = []

    def add(self, sample: Sample) -> None:
        row = full_row(sample)
        source = row["provenance"].get("source", {})
        row["data_source"], row["licence"] = source.get("dataset", ""), source.get("licence", "")
        row["provenance"] = json.dumps(row["provenance"], ensure_ascii=True, sort_keys=True)
        self.rows.append(row)
        if len(self.rows) == _ROWS:
            self._write()

    def end(self) -> None:
        self._write()

    def _write(self) -> None:
        import pyarrow as pa

        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
            self.rows = []


_WRITERS: dict[str, Any] = {"json": _Json, "jsonl": _Jsonl, "parquet": _Parquet}
