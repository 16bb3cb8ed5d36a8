"""A data set of instructions as rows: kept and rejected, with what is known of where each is from.

Read are LLaVA JSON and JSONL, the data with provenance and the rejected replies that `export` writes, Parquet, and a
folder that holds these. Rows come one at a time. A row that cannot be read is handed on with its problem.

Knows files and forms. Counts and draws nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llavakit.data.readers.json_rows import Broken, read_rows
from llavakit.errors import LlavakitError

Boxed = tuple[str, float, float, float, float]
"""A category, and left, top, right, bottom in fractions of the picture."""

DATA = ("data.jsonl", "data.parquet", "data.json")  # one of them, the one that tells most
REJECTED = "rejected.jsonl"
_PLACES = ("<image>", "<video>")


@dataclass(frozen=True, slots=True)
class Row:
    """One sample.

    exchanges: questions with their answers. reasons: why it was rejected; empty where it was kept. notes: what gates
    noted. evidence: the words at which a gate saw a reason or a note. reply: what the teacher wrote, of a rejected
    sample. problem: why the row cannot be read.
    """

    id: str
    image: str = ""
    kind: str = ""
    exchanges: tuple[tuple[str, str], ...] = ()
    kept: bool = True
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    evidence: Mapping[str, str] = field(default_factory=dict)
    reply: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    boxes: tuple[Boxed, ...] = ()
    problem: str = ""


def read_data(path: Path) -> Iterator[Row]:
    """Every row of a file, or of a folder's data and rejected replies.

    Raises LlavakitError when there is nothing to read.
    """
    if path.is_dir():
        named = [path / name for name in DATA if (path / name).is_file()][:1]
        if (path / REJECTED).is_file():
            named.append(path / REJECTED)
        if not named:
            raise LlavakitError(
                f"{path} holds none of {', '.join(DATA)} and {REJECTED}; give a folder that `export` wrote, or a file."
            )
        for one in named:
            yield from read_data(one)
        return
    source = _parquet(path) if path.suffix == ".parquet" else read_rows(path)
    for number, content in enumerate(source):
        yield row_of(content, number)


def _parquet(path: Path) -> Iterator[Any]:
    from pyarrow import ArrowInvalid, parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns = [name for name in file.schema_arrow.names if name != "image" or _plain(file, name)]
            for batch in file.iter_batches(batch_size=1024, columns=columns):
                yield from batch.to_pylist()
    except (OSError, ArrowInvalid) as error:
        raise LlavakitError(f"{path} cannot be read as Parquet: {error}") from error


def _plain(file: Any, name: str) -> bool:
    return str(file.schema_arrow.field(name).type) in ("string", "large_string")


def row_of(content: Any, number: int) -> Row:
    """A row of JSON as a sample; `number` names it where it has no id."""
    if isinstance(content, Broken):
        return Row(f"row {number}", problem="not whole JSON")
    if not isinstance(content, dict):
        return Row(f"row {number}", problem="no object")
    provenance = content.get("provenance") or {}
    if isinstance(provenance, str):  # Parquet holds it as text
        try:
            provenance = json.loads(provenance)
        except ValueError:
            return Row(f"row {number}", problem="provenance that is not JSON")
    if not isinstance(provenance, dict):
        return Row(f"row {number}", problem="provenance that is no object")
    source = dict(provenance.get("source") or {}) if isinstance(provenance.get("source"), dict) else {}
    for ours, theirs in (("dataset", "data_source"), ("licence", "licence")):
        if content.get(theirs) and ours not in source:
            source[ours] = str(content[theirs])
    verdicts = [one for one in content.get("verdicts") or () if isinstance(one, dict)]
    image = content.get("image")
    if isinstance(image, list):
        image = image[0] if image else ""
    rejected = "conversations" not in content and "reasons" in content
    exchanges = content.get("exchanges") if rejected else _exchanges(content.get("conversations"))
    if not isinstance(exchanges, list) or (not exchanges and not rejected):
        return Row(str(content.get("id", f"row {number}")), problem="no questions with answers")
    return Row(
        id=str(content.get("id", f"row {number}")),
        image=image if isinstance(image, str) else "",
        kind=str(content.get("kind") or ""),
        exchanges=tuple((str(one[0]), str(one[1])) for one in exchanges if len(one) == 2),
        kept=not rejected,
        reasons=tuple(str(one) for one in content.get("reasons") or ()) if rejected else (),
        notes=tuple(
            f"{one.get('gate')}: {one.get('reason')}" for one in verdicts if one.get("action") == "note"
        ),
        evidence={
            f"{one.get('gate')}: {one.get('reason')}": str(one["evidence"])
            for one in verdicts
            if one.get("evidence")
        },
        reply=str(content.get("reply") or ""),
        provenance={**provenance, "source": source},
        boxes=_boxes(provenance.get("boxes")),
    )


def _exchanges(turns: Any) -> list[tuple[str, str]] | None:
    """Questions with their answers; None where turns do not alternate."""
    if not isinstance(turns, list):
        return None
    said = [
        (str(turn.get("from")), str(turn.get("value") or ""))
        for turn in turns
        if isinstance(turn, dict) and turn.get("from") != "system"
    ]
    exchanges = []
    for (asker, question), (answerer, answer) in zip(said[::2], said[1::2], strict=False):
        if asker not in ("human", "user") or answerer not in ("gpt", "assistant"):
            return None
        for place in _PLACES:
            question = question.replace(place, "")
        exchanges.append((question.strip(), answer.strip()))
    return exchanges


def _boxes(found: Any) -> tuple[Boxed, ...]:
    if not isinstance(found, list):
        return ()
    boxes = []
    for one in found:
        if (
            isinstance(one, list)
            and len(one) >= 5
            and all(isinstance(value, int | float) for value in one[1:5])
        ):
            boxes.append((str(one[0]), *(float(value) for value in one[1:5])))
    return tuple(boxes)  # type: ignore[arg-type]
