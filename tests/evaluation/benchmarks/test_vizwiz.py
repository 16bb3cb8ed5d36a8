"""VizWiz: asked with a way out, scored on val, written for the server of test."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.pictures import picture_bytes
from llavakit.evaluation.saved import join
from llavakit.evaluation.scoring_saved import score_file


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_val_is_scored_by_soft_accuracy(tmp_path: Path) -> None:
    answers = [{"answer": a, "answer_confidence": "yes"} for a in ["unanswerable"] * 3 + ["coke can"] * 7]
    row = {
        "image": "VizWiz_val_00000000.jpg",
        "question": "what IS this?",
        "answers": answers,
        "answer_type": "other",
    }
    write(tmp_path / "Annotations" / "val.json", [row])
    val = load("vizwiz_val")
    question = val.read(tmp_path, "v1.5")[0]
    assert question.prompt == (
        "What is this?\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n"
        "Answer the question using a single word or phrase."
    )
    figures = val.summarise([val.mark(question, "Unanswerable")])
    assert figures == {"accuracy": pytest.approx(90), "other": pytest.approx(90)}
    assert val.mark(question, "").credit == 0 and val.mark(question, "A coke can.").credit == 1
    write(tmp_path / "Annotations" / "val.json", [{**row, "answers": []}])
    with pytest.raises(LlavakitError, match="has no answers"):
        val.read(tmp_path, "v1.5")


def test_test_is_written_for_the_server(tmp_path: Path) -> None:
    test = load("vizwiz")
    with pytest.raises(LlavakitError, match=r"test.json \(1 MB\) from https://vizwiz.org"):
        test.read(tmp_path, "v1.5")
    write(
        tmp_path / "Annotations" / "test.json", [{"image": "VizWiz_test_00000000.jpg", "question": "What?"}]
    )
    questions = test.read(tmp_path, "v1.5")
    assert (
        math.isnan(test.summarise([test.mark(questions[0], "x")])["accuracy"]) and test.submission is not None
    )
    test.submission(questions, {questions[0].id: "Two Cans."}, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == [
        {"image": "VizWiz_test_00000000.jpg", "answer": "2 cans"}
    ]
    with pytest.raises(LlavakitError, match="has no answer"):
        test.submission(questions, {}, tmp_path / "other.json")


def copy(path: Path, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": name.encode(), "path": None} for name in columns["question_id"]]
    pq.write_table(pa.table({**columns, "image": pa.array(rows, image)}), path)


def test_the_copies_ask_the_same_under_the_same_ids(tmp_path: Path) -> None:
    asked = {
        "question_id": ["VizWiz_val_00000001", "VizWiz_val_00000000"],
        "question": ["what IS this?", "who?"],
    }
    copy(tmp_path / "data" / "val-00000-of-00001-a.parquet", **asked, answers=[["can"] * 10, ["ann"] * 10], category=["other", "yes/no"])  # fmt: skip
    questions = load("vizwiz_val").read(tmp_path, "v1.5")
    assert [(q.id, q.truth, q.category) for q in questions] == [
        ("VizWiz_val_00000001.jpg", ["can"] * 10, "other"), ("VizWiz_val_00000000.jpg", ["ann"] * 10, "yes/no"),
    ]  # fmt: skip
    assert questions[0].prompt.startswith("What is this?\nWhen the")
    assert picture_bytes(questions[1].pictures[0]) == b"VizWiz_val_00000000"
    copy(tmp_path / "data" / "test-00000-of-00002-b.parquet", **asked)
    with pytest.raises(LlavakitError, match="1 of the 2 parts"):
        load("vizwiz").read(tmp_path, "v1.5")
    (tmp_path / "data" / "test-00000-of-00002-b.parquet").rename(
        tmp_path / "data" / "test-00000-of-00001-b.parquet"
    )
    test = load("vizwiz")
    questions = test.read(tmp_path, "v1.5")
    assert [q.truth for q in questions] == [None, None]
    with pytest.raises(
        LlavakitError, match="2 of 2 questions have no answer"
    ):  # its order is not the official one
        join(test, questions, [{"question_id": n, "text": "a", "prompt": "What is this?"} for n in (0, 1)])


def numbered(folder: Path) -> list[dict[str, Any]]:
    """A test split of three questions, and LLaVA's answers to it, which go by place."""
    asked = ["what is this?", "Which WAY?", "what is this?"]
    rows = [
        {"image": f"VizWiz_test_{n:08d}.jpg", "question": q} for n, q in zip((7, 3, 5), asked, strict=True)
    ]
    write(folder / "Annotations" / "test.json", rows)
    return [
        {"question_id": n, "prompt": f"{q.capitalize()}\nWhen ...", "text": f"answer {n}", "answer_id": "x"}
        for n, q in enumerate(asked)
    ]


def test_llavas_answers_go_by_their_place_in_the_file(tmp_path: Path) -> None:
    rows = numbered(tmp_path)
    test = load("vizwiz")
    questions = test.read(tmp_path, "v1.5")
    joined = join(test, questions, rows[::-1])
    assert joined.answers == {
        "VizWiz_test_00000007.jpg": "answer 0",
        "VizWiz_test_00000003.jpg": "answer 1",
        "VizWiz_test_00000005.jpg": "answer 2",
    }
    assert joined.counts == {"answers joined by their question's place in the file": 3}
    bare = [{"question_id": str(row["question_id"]), "text": row["text"]} for row in rows]
    assert join(test, questions, bare).answers == joined.answers
    some = join(test, questions, rows[1:], partial=True)
    assert list(some.answers) == ["VizWiz_test_00000003.jpg", "VizWiz_test_00000005.jpg"]


def test_places_that_something_speaks_against_are_refused(tmp_path: Path) -> None:
    rows = numbered(tmp_path)
    test = load("vizwiz")
    questions = test.read(tmp_path, "v1.5")
    moved = [{**row, "question_id": (int(row["question_id"]) + 1) % 3} for row in rows]
    with pytest.raises(LlavakitError, match="answer 1 was asked 'What is this"):
        join(test, questions, moved)
    with pytest.raises(LlavakitError, match="0 to 2, and 3 is no such place"):
        join(test, questions, [*rows, {"question_id": 3, "text": "a"}])
    with pytest.raises(LlavakitError, match="some answers name a question by its id"):
        join(test, questions, [*rows[:2], {"question_id": "VizWiz_test_00000005.jpg", "text": "a"}])
    bare = [{"question_id": row["question_id"], "text": row["text"]} for row in rows[:2]]
    with pytest.raises(
        LlavakitError, match="2 of 3 answers that go by place, 2 of them without their prompt"
    ):
        join(test, questions, bare, partial=True)
    with pytest.raises(LlavakitError, match=r"VizWiz_test_00000003\.jpg has two answers that differ"):
        join(test, questions, [*rows, {**rows[1], "text": "else"}])


def test_awkward_answers(tmp_path: Path) -> None:
    answers = [{"answer": a} for a in ["unanswerable"] * 6 + ["no"] * 4]
    rows = [
        {"image": f"{n}.jpg", "question": "?", "answers": answers, "answer_type": "other"} for n in range(4)
    ]
    write(tmp_path / "Annotations" / "val.json", rows)
    said = {"3.jpg": "x" * 100_000, "0.jpg": "", "2.jpg": "no\x00", "1.jpg": "No.\n"}
    write(tmp_path / "a.json", said)
    found = score_file("vizwiz_val", tmp_path / "a.json", tmp_path)
    assert [verdict.credit for verdict in found.marked.verdicts] == pytest.approx([0, 1, 0, 0])
    assert found.marked.figures["accuracy"] == found.marked.others["m4c: accuracy"] == pytest.approx(25)
    assert found.counts == {
        "answers that are empty": 1,
        "answers of more than 10,000 characters": 1,
        "answers with control characters": 1,
    }
    write(tmp_path / "a.json", {"0.jpg": "no"})
    with pytest.raises(LlavakitError, match=r"3 of 4 questions have no answer, 1\.jpg first"):
        score_file("vizwiz_val", tmp_path / "a.json", tmp_path)
