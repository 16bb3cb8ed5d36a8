"""ChartQA and DocVQA: relaxed accuracy and ANLS, counted by hand, on files in the official forms."""

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
from llavakit.evaluation.scoring.anls import anls, distance, llava_anls
from llavakit.evaluation.scoring.relaxed import relaxed
from llavakit.evaluation.scoring_saved import score_file


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
        ("a" * 100_000, ["a"], 0.0), (" " * 100_000 + "a", ["a"], 1.0),
        ("  abc  ", ["abd"], 6 / 7), ("straße", ["strasse"], 1 - 2 / 7),  # ß is two letters long in capitals
    ],
)  # fmt: skip
def test_anls(answer: str, truths: list[str], score: float) -> None:
    assert anls(answer, truths) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "truths", "score"),
    [
        ("Paris", ["paris"], 1.0), ("  abc  ", ["abd"], 2 / 3), ("New   York", ["new york"], 0.8), ("a", ["", "b"], 0.0),
        ("a" * 100_000, ["a"], 0.0), ("", ["a"], 0.0), ("", ["a", " "], math.nan),
    ],
)  # fmt: skip
def test_anls_of_llavas_class_keeps_runs_of_blanks_and_stops_at_two_empty_texts(
    answer: str, truths: list[str], score: float
) -> None:
    assert llava_anls(answer, truths) == pytest.approx(score, nan_ok=True)


def copy(path: Path, **columns: list[Any]) -> None:
    """A Parquet copy with a picture in every row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(next(iter(columns.values())))
    images = pa.array(
        [{"bytes": b"picture %d" % n, "path": None} for n in range(count)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    pq.write_table(pa.table({**columns, "image": images}), path, row_group_size=2)


def saved(path: Path, **answers: str) -> Path:
    """Saved answers by id, the last first."""
    rows = [{"question_id": name.replace("_", "-"), "text": text} for name, text in answers.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    return path


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


def test_chartqas_copy_asks_the_same_under_the_same_ids(tmp_path: Path) -> None:
    kinds = ["human_test", "augmented_test", "human_test"]
    copy(
        tmp_path / "data" / "test-00000-of-00001.parquet",
        type=kinds,
        question=["How many? ", "Which?", "When?"],
        answer=["10", "Blue", "2001"],
    )
    chartqa = load("chartqa")
    questions = chartqa.read(tmp_path, "v1.5")
    assert [(q.id, q.truth, q.category) for q in questions] == [
        ("human-1", "10", "human"), ("augmented-1", "Blue", "augmented"), ("human-2", "2001", "human"),
    ]  # fmt: skip
    assert questions[0].prompt == "How many?\nAnswer the question using a single word or phrase."
    assert [picture_bytes(q.pictures[0]) for q in questions] == [b"picture 0", b"picture 1", b"picture 2"]
    copy(
        tmp_path / "data" / "test-00000-of-00001.parquet", type=["val"], question=["How many?"], answer=["10"]
    )
    with pytest.raises(LlavakitError, match="the type 'val' is neither"):
        chartqa.read(tmp_path, "v1.5")


def test_awkward_answers_to_chartqa(tmp_path: Path) -> None:
    write(
        tmp_path / "test" / "test_human.json",
        [{"imgname": f"{n}.png", "query": f"{n}?", "label": label} for n, label in enumerate(("7", "Yes", "3%", "0"))],
    )  # fmt: skip
    write(tmp_path / "test" / "test_augmented.json", [{"imgname": "4.png", "query": "?", "label": "Blue"}])
    answers = saved(
        tmp_path / "a.jsonl", human_1="7" * 100_000, human_2="", human_3="\x000.03", human_4="0\n", augmented_1="blue\x07"
    )  # fmt: skip
    found = score_file("chartqa", answers, tmp_path)
    assert [verdict.credit for verdict in found.marked.verdicts] == [0, 0, 0, 1, 0]
    assert found.counts == {
        "answers that are empty": 1,
        "answers of more than 10,000 characters": 1,
        "answers with control characters": 2,
    }
    assert found.marked.figures == {"overall": 20, "human": 25, "augmented": 0}
    assert found.marked.others == {}  # the line end at the fourth answer's end goes in every tool
    with answers.open("a") as file:
        file.write(json.dumps({"question_id": "human-2", "text": "Yes"}) + "\n")
    with pytest.raises(LlavakitError, match="human-2 has two answers that differ"):
        score_file("chartqa", answers, tmp_path)
    with pytest.raises(LlavakitError, match="3 of 5 questions have no answer, human-2 first"):
        score_file("chartqa", saved(tmp_path / "b.jsonl", human_1="7", human_4="0"), tmp_path)


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
    assert docvqa.mark(question, "0.29 \n").credit == pytest.approx(0.75)
    told = docvqa.others([question], {"49153": "0.29 \n"})
    assert told["answers as they stand: ANLS"] == pytest.approx(100 - 100 / 6), "blanks count as length"
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


def test_docvqas_copy_asks_the_same(tmp_path: Path) -> None:
    names = {"questionId": ["49153", "7"], "question": ["What is it?", " Who? "]}
    copy(
        tmp_path / "DocVQA" / "validation-00000-of-00001.parquet",
        **names,
        answers=[["0.28", "0.280"], ["Ann"]],
    )
    questions = load("docvqa").read(tmp_path, "v1.5")
    assert [(q.id, q.truth) for q in questions] == [("49153", ["0.28", "0.280"]), ("7", ["Ann"])]
    assert questions[1].prompt == "Who?\nAnswer the question using a single word or phrase."
    assert picture_bytes(questions[1].pictures[0]) == b"picture 1"
    none = pa.array([None, None], pa.list_(pa.string()))
    copy(tmp_path / "DocVQA" / "test-00000-of-00001.parquet", **names, answers=none)
    test = load("docvqa_test")
    questions = test.read(tmp_path, "v1.6")
    assert [q.truth for q in questions] == [None, None] and test.submission is not None
    test.submission(questions, {"49153": "a", "7": "b"}, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())[1] == {"questionId": 7, "answer": "b"}
    copy(tmp_path / "DocVQA" / "validation-00000-of-00001.parquet", **names, answers=none)
    with pytest.raises(LlavakitError, match="question 49153 has no answers"):
        load("docvqa").read(tmp_path, "v1.5")


def test_awkward_answers_to_docvqa(tmp_path: Path) -> None:
    rows = [
        {"questionId": n, "question": "?", "image": f"documents/{n}.png", "answers": [truth]}
        for n, truth in enumerate(("abcd", "New York", "abc", "x" * 100))
    ]
    write(tmp_path / "val_v1.0.json", {"data": rows})
    answers = {"3": "y" * 100_000, "1": "new  york\n", "0": "", "2": "ab\x00"}
    write(tmp_path / "a.json", answers)
    found = score_file("docvqa", tmp_path / "a.json", tmp_path)
    # the second answer is nine characters long and at distance 0; the third is one letter off in three
    assert [verdict.credit for verdict in found.marked.verdicts] == pytest.approx([0, 1, 2 / 3, 0])
    # LLaVA's class does not close the gap of two blanks: one off in nine
    assert found.marked.others == {
        "answers as they stand: ANLS": pytest.approx(100 * (0 + 1 + 2 / 3 + 0) / 4),
        "LLaVA's STVQAANLSEvaluator: ANLS": pytest.approx(100 * (0 + 8 / 9 + 2 / 3 + 0) / 4),
    }
    assert found.counts["answers with control characters"] == found.counts["answers that are empty"] == 1
    write(tmp_path / "a.json", {**answers, "4": "?"})
    assert score_file("docvqa", tmp_path / "a.json", tmp_path).counts["answers to no question"] == 1
    (tmp_path / "a.json").write_text('[{"questionId": 0, "answer": "a"}, {"questionId": 0, "answer": "b"}]')
    with pytest.raises(LlavakitError, match="question 0 has two answers that differ"):
        score_file("docvqa", tmp_path / "a.json", tmp_path, partial=True)
    (tmp_path / "a.json").write_text('[{"questionId": 2, "answer": "abc"}]')
    with pytest.raises(LlavakitError, match="3 of 4 questions have no answer, 0 first"):
        score_file("docvqa", tmp_path / "a.json", tmp_path)


@pytest.mark.parametrize("name", ["chartqa", "docvqa", "docvqa_test"])
def test_a_missing_file_is_named_with_its_source_and_size(tmp_path: Path, name: str) -> None:
    with pytest.raises(LlavakitError, match=r"put there .* \([\d.]+ MB\) from https://.*; or .*\.parquet"):
        load(name).read(tmp_path, "v1.6")


def test_what_is_passed_over_unmeasured_would_be_below_any_threshold() -> None:
    assert anls("abcdefgh", ["abcd"], threshold=0.3) == 0.5
    assert anls("abcdefghij", ["abcdefg"], threshold=0.7) == 0.7
    assert anls("abcdefghij", ["abcdefg"], threshold=0.8) == 0


def test_a_truth_of_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    for half in ("human", "augmented"):
        rows = [{"imgname": "1.png", "query": "Which?", "label": ["Yes"]}]
        (tmp_path / f"test/test_{half}.json").write_text(json.dumps(rows))
    with pytest.raises(LlavakitError, match=r"test_human.json: field 'label' is \['Yes'\], expected text"):
        load("chartqa").read(tmp_path, "v1.5")
    row = {"questionId": 1, "question": "Who?", "image": "documents/1.png", "answers": "J. Smith"}
    (tmp_path / "val_v1.0.json").write_text(json.dumps({"data": [row]}))
    with pytest.raises(LlavakitError, match=r"field 'answers' is 'J. Smith', expected a list of texts"):
        load("docvqa").read(tmp_path, "v1.5")
