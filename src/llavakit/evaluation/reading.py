"""Reading a benchmark's official files: JSON, TSV and the Parquet copies of the Hugging Face hub.

A file that is missing is named with the place where it is had and its size; one that is damaged, or lacks a field, is
named with what was expected. Pictures are never read here: a Parquet row comes without its picture columns.

Knows files. Knows no benchmark.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Benchmark, NeededFile, Question


def found(folder: Path, needed: NeededFile) -> list[Path]:
    """The files that are there for one need, sorted; its path may hold `*`."""
    return sorted(folder.glob(needed.path))


def first_found(folder: Path, *ways: NeededFile) -> tuple[NeededFile, list[Path]]:
    """The first of several ways to have the same data that is there; raises LlavakitError telling all of them."""
    for way in ways:
        if paths := found(folder, way):
            return way, paths
    told = "; or ".join(f"{way.path} ({way.size}) from {way.source}" for way in ways)
    raise LlavakitError(f"{folder} lacks the benchmark's files: put there {told}")


def read_questions(benchmark: Benchmark, folder: Path, variant: str) -> list[Question]:
    """A benchmark's questions. Raises LlavakitError also where a value is of another kind than it should be."""
    try:
        return benchmark.read(folder, variant)
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        there = sorted({path.name for needed in benchmark.files for path in found(folder, needed)})
        raise LlavakitError(
            f"{benchmark.name}: {' or '.join(there)} in {folder} is not of the form that {benchmark.title} has "
            f"({type(error).__name__}: {error}): download it again"
        ) from error


def read_json(path: Path) -> Any:
    """A JSON file's value."""
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise LlavakitError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise LlavakitError(f"{path} is not whole JSON ({error}): download it again") from error


def read_lines(path: Path, way_out: str = "download it again") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of a file that has one a line, each with where it stands; empty lines are passed over."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise LlavakitError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LlavakitError(f"{path} is not text in UTF-8 ({error}): {way_out}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LlavakitError(f"{where}, is not JSON ({error}): {way_out}") from error
        if not isinstance(row, dict):
            raise LlavakitError(f"{where}, holds {type(row).__name__}, expected an object: {way_out}")
        yield where, row


def read_tsv(path: Path) -> list[dict[str, str]]:
    """The rows of a table separated by tabs, by column; cells may hold pictures in base64."""
    csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except OSError as error:
        raise LlavakitError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise LlavakitError(f"{path} is not a table in UTF-8 ({error}): download it again") from error
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise LlavakitError(f"{path}, row {number}: not as many cells as the header: download it again")
    return rows


@dataclass(frozen=True, slots=True)
class ParquetRow:
    """One row without its pictures: where it lies, and its values by column."""

    path: Path
    row: int
    values: Mapping[str, Any]


_PART = re.compile(r"(.*)-(\d+)-of-(\d+)(?:-[0-9a-f]+)?\.parquet")  # some copies have a hash behind


def _whole(paths: Sequence[Path]) -> None:
    """Raises LlavakitError where a split lacks a part or is there twice: rows would be taken for others."""
    splits: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for path in paths:
        if part := _PART.fullmatch(path.name):
            splits[part[1]][int(part[3])] += 1
    for name, there in splits.items():
        told = " and ".join(f"{number} of the {total} parts" for total, number in sorted(there.items()))
        if len(there) > 1 or any(number < total for total, number in there.items()):
            raise LlavakitError(
                f"{paths[0].parent} has {told} of {name}-*.parquet: have all parts of one set there"
            )


def read_parquet(paths: Sequence[Path], *, pictures: Sequence[str] = ("image",)) -> Iterator[ParquetRow]:
    """Rows of Parquet files in order, the columns of pictures left on disk; LlavakitError when a part is lacking."""
    import pyarrow
    from pyarrow import parquet

    _whole(paths)
    for path in paths:
        try:
            with parquet.ParquetFile(path) as file:
                columns = [name for name in file.schema_arrow.names if name not in pictures]
                rows = file.read(columns=columns).to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise LlavakitError(f"{path} is not a whole Parquet file ({error}): download it again") from error
        yield from (ParquetRow(path, number, values) for number, values in enumerate(rows))


def present(paths: Sequence[Path], column: str) -> dict[Path, list[int]]:
    """How many pictures each row of each Parquet file has in a column: 0 or 1, or the length of a list.

    Where a picture is a struct of `bytes` and `path`, only `path` is read.
    """
    from pyarrow import parquet

    result = {}
    for path in paths:
        with parquet.ParquetFile(path) as file:
            leaves = [file.schema.column(place).path for place in range(len(file.schema.names))]
            own = [leaf for leaf in leaves if leaf == column or leaf.startswith(f"{column}.")]
            light = [leaf for leaf in own if leaf.endswith(".path")] or own
            counts: list[int] = []
            for group in range(file.num_row_groups):
                cells = file.read_row_group(group, columns=light).column(column).to_pylist()
                counts += [len(cell) if isinstance(cell, list) else int(cell is not None) for cell in cells]
        result[path] = counts
    return result


def field(row: Mapping[str, Any], name: str, where: object) -> Any:
    """A field that has to be there; raises LlavakitError naming it and those that are."""
    try:
        return row[name]
    except (KeyError, TypeError) as error:
        there = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
        raise LlavakitError(f"{where} has no field {name!r} (it has: {there})") from error


def text_field(row: Mapping[str, Any], name: str, where: object) -> str:
    """A field that has to be text; a number is taken as it is written. Raises LlavakitError where it is neither."""
    return _text(field(row, name, where), name, where)


def texts_field(row: Mapping[str, Any], name: str, where: object) -> list[str]:
    """A field that is a list of texts, at least one; raises LlavakitError where it is something else."""
    values = field(row, name, where)
    if not isinstance(values, list) or not values:
        raise LlavakitError(
            f"{where}: field {name!r} is {values!r:.60}, expected a list of texts: download it again"
        )
    return [_text(value, name, where) for value in values]


def _text(value: Any, name: str, where: object) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not isinstance(value, str) and not number:
        raise LlavakitError(f"{where}: field {name!r} is {value!r:.60}, expected text: download it again")
    return str(value)


def with_unique_ids(questions: list[Question], where: object) -> list[Question]:
    """The questions, after making sure that an answer can be told to belong to one of them."""
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise LlavakitError(f"{where}: two questions have the id {question.id}: answers cannot be joined")
        seen.add(question.id)
    if not questions:
        raise LlavakitError(f"{where}: no question in it")
    return questions
