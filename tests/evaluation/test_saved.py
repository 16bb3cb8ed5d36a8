"""Saved answers are joined to their questions by id, and nothing odd about them goes by in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Benchmark, Question, Variant, Verdict
from llavakit.evaluation.saved import join, read_rows


def mark(question: Question, answer: str) -> Verdict:
    return Verdict(question, answer, float(answer == question.truth))


TOY = Benchmark(
    name="toy",
    title="Toy",
    files=(),
    variants=(Variant("plain", "toy"),),
    read=lambda folder, variant: [],
    mark=mark,
    summarise=lambda verdicts: {"accuracy": 0.0},
    headline="accuracy",
)
QUESTIONS = [Question(str(number), (), "?", "yes", unit=f"pair {number // 2}") for number in range(4)]


def file(folder: Path, text: str) -> Path:
    path = folder / "answers"
    path.write_text(text, "utf-8")
    return path


ANSWERS = {"0": "yes", "1": "no", "2": "yes", "3": "a\u2028b"}


@pytest.mark.parametrize(
    "text",
    [
        "".join(json.dumps({"question_id": int(n), "text": t}) + "\n" for n, t in reversed(ANSWERS.items())),
        "\ufeff" + "\r\n".join(json.dumps({"id": n, "prediction": t}) for n, t in ANSWERS.items()),
        json.dumps([{"questionId": n, "answer": t} for n, t in ANSWERS.items()], indent=1),
        json.dumps(ANSWERS, ensure_ascii=False),
        json.dumps({n: {"answer": "truth", "response": t} for n, t in ANSWERS.items()}, indent=2),
        json.dumps(
            {
                "acc": 50,
                "correct": [{"question_id": n, "pred": t} for n, t in list(ANSWERS.items())[:1]],
                "incorrect": [{"question_id": n, "pred": t} for n, t in list(ANSWERS.items())[1:]],
            }
        ),
    ],
    ids=[
        "lines",
        "lines with a mark of order and returns",
        "list",
        "object",
        "object of rows",
        "output.json",
    ],
)
def test_every_form_gives_the_same_answers_in_whatever_order(tmp_path: Path, text: str) -> None:
    joined = join(TOY, QUESTIONS, read_rows(file(tmp_path, text)))
    assert joined.answers == ANSWERS
    assert not joined.counts


def test_a_prediction_goes_before_the_question_and_the_truth_that_stand_beside_it(tmp_path: Path) -> None:
    rows = [{"id": n, "text": "question", "answer": "truth", "prediction": t} for n, t in ANSWERS.items()]
    assert join(TOY, QUESTIONS, rows).answers == ANSWERS


def test_where_a_prediction_is_null_the_response_is_taken_and_never_the_truth() -> None:
    rows = [{"id": n, "answer": "truth", "prediction": None, "response": t} for n, t in ANSWERS.items()]
    joined = join(TOY, QUESTIONS, rows)
    assert joined.answers == ANSWERS
    assert joined.counts == {"answers whose prediction is null, their response taken": 4}
    with pytest.raises(LlavakitError, match="prediction is None, expected text"):
        join(TOY, QUESTIONS, [{"id": 0, "answer": "truth", "prediction": None}])


def test_one_line_is_one_row_and_not_an_object_of_answers(tmp_path: Path) -> None:
    assert read_rows(file(tmp_path, '{"question_id": 7, "text": "yes"}\n')) == [
        {"question_id": 7, "text": "yes"}
    ]


def test_missing_answers_are_refused_and_in_part_only_whole_units_are_scored() -> None:
    rows = [{"id": "0", "text": "yes"}, {"id": "1", "text": "no"}, {"id": "2", "text": "yes"}]
    with pytest.raises(LlavakitError, match=r"1 of 4 questions have no answer, 3 first.*--partial"):
        join(TOY, QUESTIONS, rows)
    joined = join(TOY, QUESTIONS, rows, partial=True)
    assert [question.id for question in joined.questions] == ["0", "1"]
    assert joined.counts == {
        "questions without an answer, left out": 1,
        "answered questions of units that are not whole, left out": 1,
    }
    with pytest.raises(LlavakitError, match="none of its 4 questions can be scored"):
        join(TOY, QUESTIONS, [], partial=True)


def test_doubles_are_noted_when_the_same_and_refused_when_not() -> None:
    rows = [{"id": n, "text": t} for n, t in ANSWERS.items()]
    assert join(TOY, QUESTIONS, [*rows, rows[0]]).counts == {"answers given twice, the same": 1}
    with pytest.raises(LlavakitError, match="question 0 has two answers that differ"):
        join(TOY, QUESTIONS, [*rows, {"id": 0, "text": "no"}])


def test_foreign_empty_endless_and_odd_answers_are_counted() -> None:
    texts = {"0": " \n", "1": "x" * 100_000, "2": "ye\x00s", "3": "yes", "stranger": "yes"}
    joined = join(TOY, QUESTIONS, [{"id": n, "text": t} for n, t in texts.items()])
    assert joined.unknown == ("stranger",)
    assert joined.counts == {
        "answers to no question": 1,
        "answers that are empty": 1,
        "answers of more than 10,000 characters": 1,
        "answers with control characters": 1,
    }
    assert joined.answers["2"] == "ye\x00s"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ('{"id": 1, "text": "a"}\n{"id": 2, "te', "line 2 is not whole JSON"),
        ('[{"id": 1}, ', "not whole JSON"),
        ('{"1": "yes", "1": "no"}', "'1' stands there twice"),
        ("3", "expected an object"),
        ("[3]", "row 1 is int"),
    ],
)
def test_a_file_that_is_no_answers_is_told_in_a_sentence(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(LlavakitError, match=told):
        read_rows(file(tmp_path, text))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"text": "yes"}, "has no id"),
        ({"id": 0}, "has no answer"),
        ({"id": 0, "text": None}, "is None, expected text"),
        ({"id": True, "text": "yes"}, "expected a text or a whole number"),
    ],
)
def test_a_row_that_is_no_answer_is_named(row: dict[str, object], told: str) -> None:
    with pytest.raises(LlavakitError, match=f"row 1.* {told}"):
        join(TOY, QUESTIONS, [row])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 200_000, "is not whole JSON"),
        ('{"question_id": 0, "text": "yes"}\n' + "[" * 200_000, "is not whole JSON"),
        ('{"question_id": 0,\n "text": ' + "[" * 200_000, "is not whole JSON"),
    ],
    ids=["a line", "a line among others", "a document"],
)
def test_what_is_nested_too_deep_is_told_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(LlavakitError, match=sentence):
        read_rows(file(tmp_path, text))


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_a_number_that_is_none_is_no_answer(tmp_path: Path, number: str) -> None:
    rows = read_rows(file(tmp_path, f'{{"question_id": 0, "text": {number}}}'))
    with pytest.raises(LlavakitError, match=r"row 1: text is (nan|inf), expected text"):
        join(TOY, QUESTIONS, rows, partial=True)


@pytest.mark.parametrize("name", [None, 0.0, True, ["0"]])
def test_an_id_that_is_none_is_shown(name: object) -> None:
    rows = [{"question_id": name, "text": "yes"}]
    with pytest.raises(LlavakitError, match=r"row 1: question_id is .*, expected a text or a whole number"):
        join(TOY, QUESTIONS, rows, partial=True)
    rows[0]["id"] = 0
    assert list(join(TOY, [QUESTIONS[0]], rows).answers) == ["0"]
