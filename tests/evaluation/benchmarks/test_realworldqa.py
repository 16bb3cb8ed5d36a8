"""RealWorldQA: the question as it is, letters read by their surest form, words and numbers compared whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.pictures import picture_bytes
from llavakit.evaluation.scoring.choices_lmms import text_or_all
from llavakit.evaluation.scoring_saved import score_file

BENCHMARK = load("realworldqa")
TURN = "Where does the lane go?\n\nA. To the left\nB. Straight on\nC. To the right\nSay the letter alone."


def row(question: str, answer: str) -> dict[str, Any]:
    return {"question": question, "answer": answer, "image": {"bytes": answer.encode(), "path": None}}


ROWS = [row(f"{TURN}\n", "B"), row(TURN, "C"), row("How many cars?", "2"), row("Up or down?", "Downhill")]


def write(folder: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    (folder / "data").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "data/test-00000-of-00001.parquet")


def test_the_question_is_asked_as_it_is(tmp_path: Path) -> None:
    write(tmp_path)
    for variant in BENCHMARK.variants:
        questions = BENCHMARK.read(tmp_path, variant.name)
        assert [question.prompt for question in questions[:3]] == [TURN, TURN, "How many cars?"]
    assert [(question.id, question.category) for question in questions[1:3]] == [
        ("1", "letter"),
        ("2", "word or number"),
    ]
    assert picture_bytes(questions[3].pictures[0]) == b"Downhill"


@pytest.mark.parametrize(
    ("place", "answer", "parsed", "credit"),
    [
        (0, "B", "B", 1), (0, "B. Straight on", "B", 1), (0, "I think it is (B)", "B", 1), (0, " b", None, 0),
        (0, "Straight on", None, 0), (0, "The answer is B, not A", "A", 0), (0, "", None, 0), (0, "\x1b\x07", None, 0),
        (0, "x" * 100_000 + " B", "B", 1), (2, "2", "2", 1), (2, " 2.. ", "2", 1), (2, "two", "two", 0),
        (2, "2 cars", "2 cars", 0), (3, "downHILL.", "downhill", 1), (3, "downhill!", "downhill!", 0),
        (3, "", None, 0), (3, ".", None, 0),
    ],
)  # fmt: skip
def test_letters_are_read_and_words_compared(
    tmp_path: Path, place: int, answer: str, parsed: str | None, credit: float
) -> None:
    write(tmp_path)
    verdict = BENCHMARK.mark(BENCHMARK.read(tmp_path, "v1.6")[place], answer)
    assert (verdict.parsed, verdict.credit, bool(verdict.note)) == (parsed, credit, parsed is None)


@pytest.mark.parametrize(
    ("answer", "question", "left"),
    [
        ("Straight on, I think", TURN, "b"), ("(C)", TURN, "c"), ("straight on", TURN, "straight on"),
        ("To the right. To the left.", TURN, "c"),  # the first that is held
        ("Two", "How many?", "2"), ("two.", "How many?", "two"), (" two", "How many?", "two"),
        ("left", "Q\nA. Left\nB. left\nD. up", "b"), ("up", "Q\nA. Left\nB. left\nD. up", "c"),  # lettered in order
        ("it's", "Q\nA. it's\nB. its", "b"),  # marks are gone from the answer and not from the options
        ("x_y", "How?", "xy"), ("", TURN, ""),
    ],
)  # fmt: skip
def test_the_rule_of_2024_looks_for_the_options_texts(answer: str, question: str, left: str) -> None:
    assert text_or_all(answer, question) == left


def test_answers_in_any_order_and_of_any_sort_are_scored_by_hand(tmp_path: Path) -> None:
    write(tmp_path)
    said = {"3": "down\x07hill", "2": "Two", "1": "x" * 100_000, "0": "Straight on"}
    answers = tmp_path / "answers.jsonl"
    lines = [json.dumps({"question_id": name, "text": text}) for name, text in said.items()]
    answers.write_text("\n".join([*lines, lines[0]]))
    result = score_file("realworldqa", answers, tmp_path)
    assert result.marked.figures == {"accuracy": 0, "letter": 0, "word or number": 0}
    # the text of option B, the number word, and a word from which the control character is taken
    assert result.marked.others == {"lmms-eval 0.2: exact_match": 75}
    assert (
        result.counts["answers given twice, the same"]
        == result.counts["answers with control characters"]
        == 1
    )
    assert result.marked.notes == {"no letter found": 2, "nothing understood": 2}
    right = {"0": "B", "1": "A", "2": "2", "3": "Downhill."}
    answers.write_text(json.dumps(right))
    assert score_file("realworldqa", answers, tmp_path).marked.figures == {
        "accuracy": 75, "letter": 50, "word or number": 100,
    }  # fmt: skip
    answers.write_text("\n".join([*lines, json.dumps({"question_id": "2", "text": "2"})]))
    with pytest.raises(LlavakitError, match="question 2 has two answers that differ"):
        score_file("realworldqa", answers, tmp_path)
    answers.write_text("\n".join(lines[1:]))
    with pytest.raises(LlavakitError, match="1 of 4 questions have no answer, 3 first"):
        score_file("realworldqa", answers, tmp_path)


def test_what_is_missing_or_unusable_is_told(tmp_path: Path) -> None:
    with pytest.raises(LlavakitError, match=r"put there data/test-\*.parquet \(678 MB\) from https://"):
        BENCHMARK.read(tmp_path, "v1.6")
    write(tmp_path, [row(TURN, " ")])
    with pytest.raises(LlavakitError, match="row 0 has no answer"):
        BENCHMARK.read(tmp_path, "v1.6")
    write(tmp_path, [{"question": TURN, "image": {"bytes": b"", "path": None}}])
    with pytest.raises(LlavakitError, match="no field 'answer'"):
        BENCHMARK.read(tmp_path, "v1.6")
    assert str(BENCHMARK.summarise([])["accuracy"]) == "nan"
