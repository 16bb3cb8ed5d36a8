"""ScienceQA: LLaVA's published figures from its published answers, and the rule at its edges."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Question
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.benchmarks.scienceqa import mark, output_answers, summarise
from llavakit.evaluation.pictures import InFile, InParquet, picture_bytes
from llavakit.evaluation.saved import join

ROOT = Path(__file__).parents[3]
GOLDEN = Path(os.environ.get("LLAVAKIT_GOLDEN", ROOT.parent / "shared" / "golden")) / "scienceqa"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="LLaVA's published answers are not here")

FULL, IMG = load("scienceqa"), load("scienceqa_img")
PROBLEM = {
    "question": "Which is a mammal?",
    "choices": ["trout", "whale"],
    "answer": 1,
    "hint": "",
    "image": None,
    "grade": "grade3",
    "subject": "natural science",
}


def write_official(folder: Path, problems: dict[str, dict[str, Any]]) -> None:
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps({"train": ["99"], "test": list(problems)}))


@needs_golden
def test_published_answers_of_the_13b_give_every_printed_digit() -> None:
    saved = output_answers(json.loads((GOLDEN / "answers-llava-v1.5-13b_output.json").read_text()))
    questions = FULL.read(GOLDEN, "v1.5")
    verdicts = [mark(question, saved[question.id]) for question in questions]
    figures = summarise(verdicts)
    assert sum(verdict.credit for verdict in verdicts) == 3155
    assert (len(questions), f"{figures['full']:.2f}") == (4241, "74.39")
    assert f"{figures['IMG']:.2f}" == "71.64"
    pictured = IMG.read(GOLDEN, "v1.5")
    assert len(pictured) == 2017
    assert (
        IMG.summarise([mark(question, saved[question.id]) for question in pictured])["IMG"] == figures["IMG"]
    )
    published = {published.model: published.value for published in IMG.published}
    assert round(figures["IMG"], 1) == published["LLaVA-1.5-13B"]


@needs_golden
def test_every_question_is_asked_exactly_as_llava_asked_it_and_lmms_eval_agrees() -> None:
    document = json.loads((GOLDEN / "answers-llava-v1.5-13b_output.json").read_text())
    asked = {row["question_id"]: row["question"] for row in document["correct"] + document["incorrect"]}
    questions = FULL.read(GOLDEN, "v1.5")
    for question in questions:
        mark_of_picture = "<image>\n" if question.pictures else ""
        assert mark_of_picture + question.prompt == asked[question.id]
    assert FULL.others is not None
    figures = FULL.others(questions, output_answers(document))
    assert f"{figures['lmms-eval: exact_match']:.2f}" == "74.39"


@pytest.mark.parametrize(
    ("answer", "letter", "credit"),
    [
        ("B", "B", 1),
        ("B. whale", "B", 1),
        ("The answer is B.", "B", 1),
        ("So. The answer is B, I think.", "B", 1),
        ("The answer is A. No: The answer is B.", None, 0),
        ("The answer is B", None, 0),
        ("b", None, 0),
        ("B.", None, 0),
        (" B", None, 0),
        ("(B)", None, 0),
        ("", None, 0),
        ("\x00\x1b[31mB", None, 0),
        ("x" * 100_000, None, 0),
        ("E", "E", 0),
    ],
)
def test_a_letter_is_read_by_llavas_rule(answer: str, letter: str | None, credit: float) -> None:
    question = Question("1", (), "p", "B", meta={"options": 2, "has_text": False})
    verdict = mark(question, answer)
    assert (verdict.parsed, verdict.credit) == (letter, credit)
    assert bool(verdict.note) == (letter in {None, "E"})


def test_the_official_breakdown_is_counted_by_hand(tmp_path: Path) -> None:
    write_official(
        tmp_path,
        {
            "1": PROBLEM,
            "2": PROBLEM | {"hint": "Whales breathe air.", "grade": "grade7"},
            "3": PROBLEM | {"image": "image.png", "subject": "social science", "grade": "grade12"},
            "4": PROBLEM
            | {"image": "image.png", "hint": "See.", "subject": "language science", "grade": "grade1"},
        },
    )
    questions = FULL.read(tmp_path, "v1.5")
    answers = {"1": "B", "2": "A", "3": "B", "4": "what?"}
    assert summarise([mark(question, answers[question.id]) for question in questions]) == {
        "full": 50,
        "IMG": 50,
        "TXT": 0,
        "NO": 100,
        "NAT": 50,
        "SOC": 100,
        "LAN": 0,
        "G1-6": 50,
        "G7-12": 50,
    }
    assert FULL.others is not None
    assert FULL.others(questions, answers)["ScienceQA: expected accuracy"] == 62.5
    assert questions[2].pictures == (InFile(tmp_path / "images/test/3/image.png"),)


def test_all_three_sources_ask_the_same_question(tmp_path: Path) -> None:
    official, llava, copy = (tmp_path / name for name in ("official", "llava", "copy"))
    for folder in (official, llava, copy / "ScienceQA-FULL"):
        folder.mkdir(parents=True)
    hinted = PROBLEM | {"hint": "It breathes.\nIt swims.", "image": "image.png"}
    write_official(official, {"7": hinted})
    text = "<image>\nContext: It breathes.\nIt swims.\nWhich is a mammal?\nA. trout\nB. whale"
    row = {"id": "7", "image": "7/image.png", "conversations": [{"value": text}, {"value": "B"}]}
    (llava / "llava_test_CQM-A.json").write_text(json.dumps([row]))
    table = pa.table({**{k: [v] for k, v in hinted.items() if k != "image"}, "image": [{"bytes": b"png"}]})
    pq.write_table(table, copy / "ScienceQA-FULL" / "test-00000-of-00001.parquet")
    (a,), (b,), (c,) = (FULL.read(folder, "v1.5") for folder in (official, llava, copy))
    assert a.prompt == b.prompt == c.prompt
    assert a.truth == b.truth == c.truth == "B"
    assert a.pictures == (InFile(official / "images/test/7/image.png"),)
    assert a.meta["options"] == b.meta["options"] == 2 and b.meta["has_text"]
    assert isinstance(c.pictures[0], InParquet) and picture_bytes(c.pictures[0]) == b"png"


def test_options_of_several_lines_are_counted_in_llavas_file(tmp_path: Path) -> None:
    text = "A. of a list?\nA. first\nand more\nB. second\nC. third\nlast line"
    row = {"id": "7", "conversations": [{"value": text}, {"value": "C"}]}
    (tmp_path / "llava_test_CQM-A.json").write_text(json.dumps([row]))
    (question,) = FULL.read(tmp_path, "v1.5")
    assert question.meta["options"] == 3


def test_what_is_missing_or_unusable_is_told(tmp_path: Path) -> None:
    with pytest.raises(LlavakitError, match=r"llava_test_CQM-A.json \(1.9 MB\).*problems.json"):
        FULL.read(tmp_path, "v1.5")
    write_official(tmp_path, {"1": PROBLEM | {"answer": 2}})
    with pytest.raises(LlavakitError, match="none of its 2 choices"):
        FULL.read(tmp_path, "v1.5")
    row = {"id": "7", "conversations": [{"value": "q\nA. x\nB. y"}, {"value": "B"}]}
    (tmp_path / "llava_test_CQM-A.json").write_text(json.dumps([row, row]))
    with pytest.raises(LlavakitError, match="two questions have the id 7"):
        FULL.read(tmp_path, "v1.5")


@pytest.mark.parametrize("told", ["The answer is B.", "C", "", "b"])
def test_a_file_whose_answers_are_no_letters_of_options_is_refused(tmp_path: Path, told: str) -> None:
    row = {"id": "7", "image": None, "conversations": [{"value": "q\nA. x\nB. y"}, {"value": told}]}
    (tmp_path / "llava_test_CQM-A.json").write_text(json.dumps([row]))
    with pytest.raises(
        LlavakitError, match=r"question 7 has the answer .*, expected the letter of one of its 2"
    ):
        FULL.read(tmp_path, "v1.5")


def test_figures_of_the_questions_with_pictures_do_not_pass_for_those_of_all(tmp_path: Path) -> None:
    write_official(tmp_path, {"1": PROBLEM, "2": PROBLEM | {"image": "image.png"}})
    (question,) = IMG.read(tmp_path, "v1.5")
    figures = IMG.summarise([mark(question, "B")])
    assert figures == {"IMG": 100, "IMG, NAT": 100, "IMG, G1-6": 100}
    assert list(IMG.summarise([])) == ["IMG"]


def test_answers_to_official_problems_are_not_taken_for_those_to_the_copys_rows(tmp_path: Path) -> None:
    folder = tmp_path / "ScienceQA-FULL"
    folder.mkdir()
    rows = [PROBLEM | {"question": f"Q{number}?", "image": {"bytes": b"png"}} for number in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "test-00000-of-00001.parquet")
    questions = FULL.read(tmp_path, "v1.5")
    assert [question.id for question in questions] == ["copy-0", "copy-1", "copy-2"]
    assert FULL.read(tmp_path, "v1.5")[1].pictures and IMG.read(tmp_path, "v1.5")[2].id == "copy-2"
    by_problem = [{"question_id": pid, "prompt": "<image>\nQ0?", "text": "B"} for pid in ("1", "5")]
    with pytest.raises(LlavakitError, match="answers go by their question's place"):
        join(FULL, questions, by_problem, partial=True)
    with pytest.raises(
        LlavakitError, match=r"answer 1 was asked .*Q0.*, and the question at that place is .Q1"
    ):
        join(FULL, questions, by_problem[:1], partial=True)
    by_row = [{"question_id": n, "prompt": f"<image>\nQ{n}?", "text": "B"} for n in range(3)]
    assert join(FULL, questions, by_row).answers == dict.fromkeys(("copy-0", "copy-1", "copy-2"), "B")


@pytest.mark.parametrize("name", ["hint", "question", "choices"])
def test_a_problem_without_what_is_asked_is_told(tmp_path: Path, name: str) -> None:
    write_official(tmp_path, {"1": {key: value for key, value in PROBLEM.items() if key != name}})
    with pytest.raises(LlavakitError, match=f"problem 1 has no field '{name}'"):
        FULL.read(tmp_path, "v1.5")


def test_a_set_in_which_no_question_has_a_picture_is_refused(tmp_path: Path) -> None:
    write_official(tmp_path, {"1": PROBLEM})
    with pytest.raises(LlavakitError, match="no question of ScienceQA has a picture there"):
        IMG.read(tmp_path, "v1.5")


def test_no_answer_at_all_gives_nan_and_not_a_crash() -> None:
    assert str(summarise([])["full"]) == "nan"
