"""Questions of one's own, and the quickstart's examination, which is written in their form."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import load, own
from llavakit.evaluation.pictures import picture_bytes
from llavakit.quickstart.materials import TASKS, write_exam

OWN = load("own")


def test_answers_are_marked_by_exact_match_and_by_task(tmp_path: Path) -> None:
    rows = [
        {"image": "a.png", "question": "What is it?", "answer": "Red.", "task": "colour"},
        {"image": "a.png", "question": "How many?", "answer": 2, "task": "count", "id": "n"},
        {"question": "Is it?", "answer": "yes"},
    ]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    questions = OWN.read(tmp_path, "as written")
    assert [q.id for q in questions] == ["1", "n", "3"] and questions[2].pictures == ()
    verdicts = [OWN.mark(q, a) for q, a in zip(questions, [" red", "two", ""], strict=True)]
    assert OWN.summarise(verdicts) == {"accuracy": pytest.approx(100 / 3), "colour": 100, "count": 0}
    assert verdicts[2].note == "no answer"


def test_the_examination_of_the_quickstart_is_read(tmp_path: Path) -> None:
    questions = write_exam(tmp_path, 16, 0)
    assert list(dict.fromkeys(q.category for q in questions)) == list(TASKS)
    assert {q.meta["held_out_pair"] for q in questions} == {True, False}
    assert all(picture_bytes(q.pictures[0]).startswith(b"\x89PNG") for q in questions)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 1, is not JSON"),
        ('{"question": "Q"}', "no field 'answer'"),
        ('{"question": "Q", "answer": " "}', "not empty"),
    ],
)
def test_a_row_that_cannot_be_asked_is_told(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "questions.jsonl").write_text(line)
    with pytest.raises(LlavakitError, match=sentence):
        OWN.read(tmp_path, "as written")


def test_a_long_answer_of_stops_is_marked_at_once() -> None:
    started = time.perf_counter()
    assert own.bare(". " * 50_000 + "x") == ". " * 50_000 + "x"
    assert own.bare(" Red !.\u2028. ") == "red" and own.bare(" . ") == ""
    assert time.perf_counter() - started < 2
