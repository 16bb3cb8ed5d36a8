"""ChartQA and DocVQA: relaxed accuracy and ANLS, counted by hand, on files in the official forms."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.scoring.anls import anls, distance
from llavakit.evaluation.scoring.relaxed import relaxed


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("105", "100", True), ("105.1", "100", False), ("95", "100", True), ("0.52", "50%", True), ("52%", "0.5", True),
        ("2001", "1999", True),  # years are numbers
        ("0", "0", True), ("0.0", "0", False),  # a target of 0 is compared as text
        ("1,000", "1000", False), ("$5", "5", False), ("Blue", "blue", True), ("blue ", "blue", False), ("", "5", False),
    ],
)  # fmt: skip
def test_relaxed_accuracy(answer: str, target: str, right: bool) -> None:
    assert relaxed(answer, target) is right


@pytest.mark.parametrize(
    ("one", "other", "steps"),
    [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2), ("same", "same", 0)],
)
def test_levenshtein_distance(one: str, other: str, steps: int) -> None:
    assert distance(one, other) == distance(other, one) == steps


@pytest.mark.parametrize(
    ("answer", "truths", "score"),
    [
        ("Paris", ["paris"], 1.0), ("parus", ["paris", "rome"], 0.8), ("xyz", ["abc"], 0.0), ("ab", ["abcd"], 0.5),
        ("a", ["abcd"], 0.0), ("New   York", ["new york"], 1.0), ("", [""], 1.0), ("", ["a"], 0.0),
        ("a" * 100_000, ["a"], 0.0),
    ],
)  # fmt: skip
def test_anls(answer: str, truths: list[str], score: float) -> None:
    assert anls(answer, truths) == pytest.approx(score)


def test_chartqa_by_halves(tmp_path: Path) -> None:
    write(tmp_path / "test" / "test_human.json", [{"imgname": "1.png", "query": "How many?", "label": "10"}])
    write(
        tmp_path / "test" / "test_augmented.json", [{"imgname": "2.png", "query": "Which?", "label": "Blue"}]
    )
    chartqa = load("chartqa")
    questions = chartqa.read(tmp_path, "v1.6")
    assert questions[0].prompt == "How many?\nAnswer the question using a single word or phrase."
    assert (
        chartqa.read(tmp_path, "lmms-eval")[0].prompt == "How many?\nAnswer the question with a single word."
    )
    verdicts = [chartqa.mark(q, a) for q, a in zip(questions, ["10.4", "red"], strict=True)]
    assert chartqa.summarise(verdicts) == {"overall": 50, "human": 100, "augmented": 0}
    assert chartqa.mark(questions[1], " Blue ").credit == 1
    assert chartqa.mark(questions[1], "Blue.").credit == 0  # the rule takes no full stop away
    assert chartqa.others is not None
    told = chartqa.others(questions, {"human-1": "10", "augmented-1": " Blue "})
    assert told["lmms-eval: relaxed_overall"] == 50


def test_docvqa_scores_val_and_writes_test(tmp_path: Path) -> None:
    row = {
        "questionId": 49153,
        "question": "What is it?",
        "image": "documents/a.png",
        "answers": ["0.28", "0.280"],
    }
    write(tmp_path / "val_v1.0.json", {"data": [row]})
    docvqa, test = load("docvqa"), load("docvqa_test")
    question = docvqa.read(tmp_path, "v1.6")[0]
    assert docvqa.summarise([docvqa.mark(question, "0.29")])["ANLS"] == pytest.approx(75)
    write(tmp_path / "test_v1.0.json", {"data": [{k: v for k, v in row.items() if k != "answers"}]})
    questions = test.read(tmp_path, "v1.6")
    assert math.isnan(test.summarise([test.mark(questions[0], "x")])["ANLS"]) and test.submission is not None
    test.submission(questions, {"49153": " 0.28 "}, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == [{"questionId": 49153, "answer": "0.28"}]
    with pytest.raises(LlavakitError, match="has no answer"):
        test.submission(questions, {}, tmp_path / "other.json")
    write(tmp_path / "test_v1.0.json", {"data": [{**row, "questionId": "q-1"}]})
    with pytest.raises(LlavakitError, match="no number"):
        test.submission(test.read(tmp_path, "v1.6"), {"q-1": "0.28"}, tmp_path / "other.json")
    write(tmp_path / "val_v1.0.json", {"data": [{**row, "answers": []}]})
    with pytest.raises(LlavakitError, match="has no answers"):
        docvqa.read(tmp_path, "v1.6")


@pytest.mark.parametrize("name", ["chartqa", "docvqa", "docvqa_test"])
def test_a_missing_file_is_named_with_its_source_and_size(tmp_path: Path, name: str) -> None:
    with pytest.raises(LlavakitError, match=r"put there .* \([\d.]+ MB\) from https://"):
        load(name).read(tmp_path, "v1.6")
