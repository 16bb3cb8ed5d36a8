"""Sets of captions as files: what each row says, and the rows that stay written in the file's own form.

Read are TSV (CC3M's: caption, tab, address; no header), JSON or JSONL rows with a caption or with LLaVA's
`conversations` (the caption is the last answer), COCO's captions file, and Parquet. Rows come one at a time and keep
their order; the same file is read twice, once for its captions and once to write what stays.

Knows files and forms. Knows no phrase.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llavakit.data.readers.json_rows import Broken, read_rows
from llavakit.errors import LlavakitError

FIELDS = ("caption", "text", "blip_caption")
_PICTURES = ("image", "file_name", "url")
_NAMES = ("image", "image_id", "id", "url", "key")


@dataclass(frozen=True, slots=True)
class Caption:
    """A row: its caption, and what names it (not its place in the file). problem: why it has no caption.

    image: its picture's file or address, "" where the row does not tell it.
    """

    text: str
    name: str = ""
    problem: str = ""
    image: str = ""

    @property
    def hash(self) -> int:
        """64 bits of caption and name: equal rows have equal ones wherever they stand."""
        written = f"{self.name}\0{self.text}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(written, digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True)
class CaptionSet:
    """A file of captions. form: tsv, rows, coco or parquet. field: where captions stand; "" finds it out."""

    path: Path
    form: str
    field: str = ""

    def captions(self) -> Iterator[Caption]:
        """Every row in order. Raises LlavakitError when the file cannot be read."""
        return _READERS[self.form](self)

    def write(self, kept: Sequence[bool], target: Path) -> int:
        """Writes the rows for which `kept` is true, in their form and order, and returns how many.

        The file is put in place whole; whether it may replace another is for the caller to know.
        """
        partial = target.with_name(f".partial-{target.name}")
        try:
            written = _WRITERS[self.form](self, kept, partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return written


def open_captions(path: Path, field: str = "") -> CaptionSet:
    """Finds out the form of a file by its ending and beginning.

    Raises LlavakitError when it is not there or its ending is not known.
    """
    if not path.is_file():
        raise LlavakitError(f"{path} is not there; give a file of captions: .tsv, .json, .jsonl or .parquet.")
    if path.suffix == ".tsv":
        return CaptionSet(path, "tsv", field)
    if path.suffix == ".parquet":
        return CaptionSet(path, "parquet", field)
    if path.suffix == ".jsonl":
        return CaptionSet(path, "rows", field)
    if path.suffix == ".json":
        with path.open("rb") as file:
            start = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()
        first = start.split(b"\n", 1)[0]
        lines = start.startswith(b"{") and _whole(first)
        return CaptionSet(path, "rows" if start.startswith(b"[") or lines else "coco", field)
    raise LlavakitError(
        f"{path}: expected captions as .tsv, .json, .jsonl or .parquet, by the file's ending."
    )


def _whole(line: bytes) -> bool:
    """Whether a line is a row of its own rather than a COCO file on one line."""
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return isinstance(row, dict) and "annotations" not in row


def of_row(row: Any, field: str = "") -> Caption:
    """The caption of a row of JSON."""
    if isinstance(row, Broken):
        return Caption("", problem="a line that is not whole JSON")
    if not isinstance(row, dict):
        return Caption("", problem="a row that is no object")
    name = next((f"{key}={row[key]}" for key in _NAMES if row.get(key) not in (None, "")), "")
    image = next((row[key] for key in _PICTURES if row.get(key) and isinstance(row[key], str)), "")
    for key in (field,) if field else FIELDS:
        if isinstance(row.get(key), str):
            return Caption(row[key].strip(), name, "" if row[key].strip() else "an empty caption", image)
    turns = row.get("conversations") if not field else None
    if isinstance(turns, list):
        said = [
            t.get("value") for t in turns if isinstance(t, dict) and t.get("from") in ("gpt", "assistant")
        ]
        if said and isinstance(said[-1], str) and said[-1].strip():
            return Caption(said[-1].strip(), name, image=image)
        return Caption("", name, "a conversation without an answer")
    return Caption("", name, f"a row without {field or 'a caption'}")


def _read_tsv(source: CaptionSet) -> Iterator[Caption]:
    for line in _lines(source.path):
        text, _, rest = line.decode("utf-8", "replace").rstrip("\r\n").partition("\t")
        yield Caption(text.strip(), rest, "" if text.strip() else "an empty caption", rest.partition("\t")[0])


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _read_rows(source: CaptionSet) -> Iterator[Caption]:
    return (of_row(row, source.field) for row in read_rows(source.path))


def _coco(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise LlavakitError(f"{path} is not whole JSON ({error}); fetch or write the file again.") from error
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise LlavakitError(
            f"{path} is neither a list of rows nor a COCO captions file, which has `annotations`."
        )
    return content


def _read_coco(source: CaptionSet) -> Iterator[Caption]:
    content = _coco(source.path)
    listed = content.get("images")
    files = {
        one["id"]: one["file_name"]
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict)
        and isinstance(one.get("id"), int | str)
        and isinstance(one.get("file_name"), str)
    }
    for row in content["annotations"]:
        number = row.get("image_id") if isinstance(row, dict) else None
        known = files.get(number, "") if isinstance(number, int | str) else ""
        yield replace(of_row(row, source.field), image=known)


def _column(names: Sequence[str], source: CaptionSet) -> str:
    wanted = (source.field,) if source.field else (*FIELDS, "conversations")
    for name in wanted:
        if name in names:
            return name
    raise LlavakitError(
        f"{source.path} has the columns {', '.join(names)}; expected {' or '.join(wanted)}; name yours with --field."
    )


def _read_parquet(source: CaptionSet) -> Iterator[Caption]:
    from pyarrow import ArrowInvalid, parquet

    try:
        opened = parquet.ParquetFile(source.path)
    except ArrowInvalid as error:
        raise LlavakitError(
            f"{source.path} cannot be read as Parquet ({error}); fetch or write it again."
        ) from error
    with opened as file:
        names = file.schema_arrow.names
        columns = [_column(names, source)]
        for name in dict.fromkeys((*_NAMES, *_PICTURES)):
            if name in names and not str(file.schema_arrow.field(name).type).startswith("struct"):
                columns.append(name)
        for batch in file.iter_batches(batch_size=4096, columns=columns):
            yield from (of_row(row, source.field) for row in batch.to_pylist())


def _write_tsv(source: CaptionSet, kept: Sequence[bool], target: Path) -> int:
    written = 0
    with target.open("wb") as file:
        for line, stays in zip(_lines(source.path), kept, strict=True):
            if stays:
                file.write(line if line.endswith(b"\n") else line + b"\n")
                written += 1
    return written


def _write_rows(source: CaptionSet, kept: Sequence[bool], target: Path) -> int:
    as_list = _begins_list(source.path)
    written = 0
    with target.open("w", encoding="utf-8") as file:
        for row, stays in zip(read_rows(source.path), kept, strict=True):
            if stays:
                line = _line(row)
                file.write((("[\n" if written == 0 else ",\n") + line) if as_list else line + "\n")
                written += 1
        if as_list:
            file.write("\n]\n" if written else "[]\n")
    return written


def _line(row: Any) -> str:
    written = json.dumps(row, ensure_ascii=False)
    try:
        written.encode()
    except UnicodeEncodeError:  # half a character, which is no UTF-8
        return json.dumps(row)
    return written


def _begins_list(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix == ".json" and file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(
            b"["
        )


def _write_coco(source: CaptionSet, kept: Sequence[bool], target: Path) -> int:
    content = _coco(source.path)
    content["annotations"] = [row for row, stays in zip(content["annotations"], kept, strict=True) if stays]
    used = {row.get("image_id") for row in content["annotations"]}
    if isinstance(content.get("images"), list):
        content["images"] = [
            one for one in content["images"] if isinstance(one, dict) and one.get("id") in used
        ]
    target.write_text(json.dumps(content), "utf-8")
    return len(content["annotations"])


def _write_parquet(source: CaptionSet, kept: Sequence[bool], target: Path) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    at = written = 0
    with (
        parquet.ParquetFile(source.path) as file,
        parquet.ParquetWriter(target, file.schema_arrow, compression="zstd") as writer,
    ):
        for batch in file.iter_batches(batch_size=4096):
            mask = pa.array([bool(stays) for stays in kept[at : at + batch.num_rows]])
            at += batch.num_rows
            rest = batch.filter(mask)
            if rest.num_rows:
                writer.write_batch(rest)
                written += rest.num_rows
    return written


_READERS: dict[str, Callable[[CaptionSet], Iterator[Caption]]] = {
    "tsv": _read_tsv, "rows": _read_rows, "coco": _read_coco, "parquet": _read_parquet,
}  # fmt: skip
_WRITERS: dict[str, Callable[[CaptionSet, Sequence[bool], Path], int]] = {
    "tsv": _write_tsv, "rows": _write_rows, "coco": _write_coco, "parquet": _write_parquet,
}  # fmt: skip
