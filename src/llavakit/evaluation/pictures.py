"""Where a question's picture lies: a file, a cell of a Parquet file, or text in base64 inside a table.

A source is a small value; the picture is read when the question is asked, so that a benchmark of gigabytes is listed in
little memory.

Knows files. Does not decode pictures.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from llavakit.errors import LlavakitError


@dataclass(frozen=True, slots=True)
class InFile:
    """A picture that is a file."""

    path: Path


@dataclass(frozen=True, slots=True)
class InParquet:
    """A picture in a row of a Parquet file, as the Hugging Face copies have them: bytes, or a struct with `bytes`.

    item: which of several pictures where the cell is a list of them.
    """

    path: Path
    row: int
    column: str
    item: int | None = None


@dataclass(frozen=True, slots=True)
class InBase64:
    """A picture inside a table, as MMBench has them."""

    text: str


PictureSource = InFile | InParquet | InBase64


def named(source: PictureSource) -> str:
    """Where a picture lies, for a sentence about it."""
    if isinstance(source, InFile):
        return str(source.path)
    if isinstance(source, InBase64):
        return "a picture inside a table"
    return f"{source.path}, row {source.row}, column {source.column}"


def picture_bytes(source: PictureSource) -> bytes:
    """The encoded picture. Raises LlavakitError when it cannot be read."""
    if isinstance(source, InFile):
        try:
            return source.path.read_bytes()
        except OSError as error:
            raise LlavakitError(f"{source.path} cannot be read: {error.strerror}") from error
    if isinstance(source, InBase64):
        try:
            return base64.b64decode(source.text, validate=False)
        except (binascii.Error, ValueError) as error:
            raise LlavakitError(f"a picture inside a table is not base64: {error}") from error
    return _parquet_bytes(source)


def _parquet_bytes(source: InParquet) -> bytes:
    import pyarrow

    try:
        _, starts = _opened(source.path)
        group = max(number for number, start in enumerate(starts) if start <= source.row)
        column = _group(source.path, group, source.column)
        value: Any = column[source.row - starts[group]].as_py()
    except KeyError as error:
        raise LlavakitError(
            f"{source.path} has no column {source.column}, which holds the pictures: download it again"
        ) from error
    except (OSError, pyarrow.ArrowException) as error:
        raise LlavakitError(
            f"{source.path}, row {source.row}: its picture cannot be read ({error}): download it again"
        ) from error
    if source.item is not None:
        value = value[source.item] if isinstance(value, list) and source.item < len(value) else None
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise LlavakitError(
            f"{source.path}, row {source.row}: column {source.column} holds no picture's bytes"
        )
    return data


@lru_cache(maxsize=16)
def _opened(path: Path) -> tuple[Any, list[int]]:
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    starts, total = [], 0
    for number in range(file.num_row_groups):
        starts.append(total)
        total += file.metadata.row_group(number).num_rows
    return file, starts


@lru_cache(maxsize=2)
def _group(path: Path, group: int, column: str) -> Any:
    return _opened(path)[0].read_row_group(group, columns=[column]).column(column)
