"""What is exported is a function of the samples: the same bytes each time, all of it or nothing, readable by others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet

from llavakit.data.readers.llava import read_llava
from llavakit.errors import LlavakitError
from llavakit.synthesis.candidate import Candidate, Verdict
from llavakit.synthesis.card import card
from llavakit.synthesis.context import Annotated
from llavakit.synthesis.export import REJECTED, export
from llavakit.synthesis.sample import Sample
from llavakit.synthesis.tasks import conversation

REJECT = Verdict("leak/1", "reject", "names the caption", "the caption says")
NOTE = Verdict("length/1", "note", "short", "Yes.")


def sample(number: int, *verdicts: Verdict, exchanges: int = 1) -> Sample:
    picture = Annotated(number, f"{number:012d}.jpg", ("A dog.",), ())
    spoken = tuple((f"What is {n}?", f"It is a dog, number {n} | 犬.") for n in range(exchanges))
    candidate = Candidate(f"conversation-{number}", "conversation", picture, spoken, "the reply")
    if not spoken:
        candidate = Candidate(
            candidate.id, "conversation", picture, (), "nonsense", unreadable="no block begins with Question:"
        )
    made = conversation(candidate, {}) if spoken else None
    provenance = {
        "source": {"dataset": "coco", "licence": "CC BY 2.0", "licence_url": "https://x.org/by"},
        "teacher": {"asked": "m", "returned": "m-2"},
        "prompt": "conversation/1 abc",
        "at": f"2026-11-2{number % 5}T10:00:00Z",
        "cost": 0.25,
    }
    return Sample(candidate, made, verdicts, provenance)


SAMPLES = [sample(1), sample(2, REJECT, NOTE), sample(3, NOTE, exchanges=3), sample(4, exchanges=0)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(SAMPLES, tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert set(contents(tmp_path / "a")) == {"data.json", "data.jsonl", "data.parquet", "rejected.jsonl"}


def test_kept_samples_are_in_every_form_and_rejected_ones_keep_their_reasons(tmp_path: Path) -> None:
    done = export(SAMPLES, tmp_path)
    rows = list(read_llava(tmp_path / "data.json"))
    assert [row.problem for row in rows] == [None, None]
    ids = ["conversation-1", "conversation-3"]
    assert [row.conversation.id for row in rows if row.conversation] == ids
    lines = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text("utf-8").splitlines()]
    table = parquet.read_table(tmp_path / "data.parquet").to_pylist()
    assert [line["id"] for line in lines] == ids == [row["id"] for row in table]
    for line, row in zip(lines, table, strict=True):
        assert line["conversations"] == row["conversations"]
        assert line["provenance"] == json.loads(row["provenance"])
        assert line["provenance"]["teacher"]["returned"] == "m-2"
    assert lines[1]["verdicts"] == [
        {"gate": "length/1", "action": "note", "reason": "short", "evidence": "Yes."}
    ]
    out = [json.loads(line) for line in (tmp_path / REJECTED).read_text("utf-8").splitlines()]
    assert [row["reasons"] for row in out] == [
        ["leak/1: names the caption"], ["unreadable: no block begins with Question:"],
    ]  # fmt: skip
    assert (done.kept, done.rejected, done.exchanges, done.cost) == (2, 2, 4, 1.0)


def test_a_failure_half_way_leaves_what_stood_there(tmp_path: Path) -> None:
    export(SAMPLES[:1], tmp_path)
    before = contents(tmp_path)

    def broken() -> Iterator[Sample]:
        yield SAMPLES[2]
        raise LlavakitError("the journal ends in the middle")

    with pytest.raises(LlavakitError, match="middle"):
        export(broken(), tmp_path)
    assert contents(tmp_path) == before


def test_nothing_kept_is_an_empty_list_and_an_unknown_format_is_named(tmp_path: Path) -> None:
    export([], tmp_path)
    assert json.loads((tmp_path / "data.json").read_text()) == []
    assert parquet.read_table(tmp_path / "data.parquet").num_rows == 0
    with pytest.raises(LlavakitError, match="'csv' is not known; choose from json, jsonl, parquet"):
        export(SAMPLES, tmp_path, ("csv",))


def test_half_a_character_in_a_rejected_reply_is_kept_as_it_came(tmp_path: Path) -> None:
    candidate = replace(SAMPLES[3].candidate, reply="A \ud83d sign.")
    export([Sample(candidate, None)], tmp_path)
    assert json.loads((tmp_path / REJECTED).read_text("utf-8"))["reply"] == "A \ud83d sign."


def test_the_card_counts_kinds_licences_reasons_and_days(tmp_path: Path) -> None:
    text = card("My data", export(SAMPLES, tmp_path), {"leak": {"version": 1}})
    for part in (
        "2 samples about 2 pictures: 4 questions", "2 of 4 replies (50.0%) were rejected", "from 2026-11-21 to 2026-11-24",
        "| conversation | 2 |", "[CC BY 2.0](https://x.org/by) | 2 |", "| leak/1: names the caption | 1 |", "| m-2 | 4 |",
        "| conversation/1 abc | 4 |", '"version": 1', "- `rejected.jsonl`",
    ):  # fmt: skip
        assert part in text, part
