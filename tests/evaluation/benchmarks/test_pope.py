"""POPE's rule, figures and files, by hand and on LLaVA-1.5-13B's published answers."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from llavakit.errors import LlavakitError
from llavakit.evaluation.asked import Asking
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.benchmarks.pope import says
from llavakit.evaluation.running import prepare

POPE = load("pope")
GOLDEN = Path(os.environ.get("LLAVAKIT_GOLDEN", Path(__file__).parents[4] / "shared" / "golden")) / "pope"


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def official(folder: Path, labels: dict[str, list[str]]) -> None:
    for split, told in labels.items():
        rows = [
            {"question_id": n, "image": f"COCO_val2014_{n:012d}.jpg", "text": f"Is there a cat {n} in the image?", "label": label}
            for n, label in enumerate(told, 1)
        ]  # fmt: skip
        write(folder / f"coco_pope_{split}.json", rows)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes", "yes"), ("No", "no"), ("no", "no"), ("No, there is no cat", "no"), ("There is not", "no"),
        ("NO", "yes"),  # the rule knows two spellings
        ("no\n", "yes"),  # and parts words at spaces alone
        ("Yes. There is no dog.", "yes"),  # nothing behind the first full stop is read
        ("", "yes"), ("Nothing to see", "yes"), ("cannot say", "yes"), ("no" * 50_000, "yes"), ("No\x00", "yes"),
    ],
)  # fmt: skip
def test_an_answer_is_read_by_the_rule_of_llava(answer: str, said: str) -> None:
    assert says(answer) == said


def test_figures_are_what_a_hand_counts(tmp_path: Path) -> None:
    official(
        tmp_path,
        {"random": ["yes", "yes", "no", "no"], "popular": ["yes", "no"], "adversarial": ["no", "no"]},
    )
    questions = POPE.read(tmp_path, "v1.5")
    said = ["Yes", "No", "Yes", "No", "Yes", "No", "No", "No"]
    figures = POPE.summarise([POPE.mark(q, a) for q, a in zip(questions, said, strict=True)])
    # random: one true yes, one missed, one false, one true no
    assert figures["random accuracy"] == figures["random precision"] == figures["random recall"] == 50
    assert figures["random F1"] == 50 and figures["random yes ratio"] == 50
    assert figures["popular F1"] == 100
    # nobody says yes and nothing is: F1 is no number, and nor is the mean of three
    assert math.isnan(figures["adversarial F1"]) and math.isnan(figures["F1 mean"])
    assert figures["adversarial accuracy"] == 100


def test_of_nothing_that_is_yes_or_no_lmms_eval_makes_zero(tmp_path: Path) -> None:
    official(tmp_path, {"random": ["yes"], "popular": ["yes"], "adversarial": ["no"]})
    questions = POPE.read(tmp_path, "v1.5")
    assert POPE.others is not None
    told = POPE.others(questions, {question.id: "Yes." for question in questions})
    assert told == {"lmms-eval: pooled F1": 0, "lmms-eval: accuracy": 0}


def test_an_answer_that_is_neither_is_noted(tmp_path: Path) -> None:
    official(tmp_path, {"random": ["yes"], "popular": ["yes"], "adversarial": ["yes"]})
    question = POPE.read(tmp_path, "v1.5")[0]
    verdict = POPE.mark(question, "")
    assert (verdict.parsed, verdict.credit, verdict.note) == ("yes", 1.0, "neither yes nor no, read as yes")
    assert POPE.mark(question, "Yes, a cat").note == POPE.mark(question, "No").note == ""


def test_questions_are_asked_as_llava_asks_and_joined_to_labels_by_order(tmp_path: Path) -> None:
    official(tmp_path, {"random": ["yes", "no"], "popular": ["no"], "adversarial": ["yes"]})
    rows = [
        {"question_id": 1, "image": "COCO_val2014_000000000001.jpg", "text": "Is it?\nAnswer ...", "category": "adversarial"},
        {"question_id": 7, "image": "COCO_val2014_000000000001.jpg", "text": "Is it?\nAnswer ...", "category": "random"},
        {"question_id": 9, "image": "COCO_val2014_000000000001.jpg", "text": "Is it?\nAnswer ...", "category": "popular"},
        {"question_id": 8, "image": "COCO_val2014_000000000002.jpg", "text": "Is it?\nAnswer ...", "category": "random"},
    ]  # fmt: skip
    write(tmp_path / "llava_pope_test.jsonl", rows)
    questions = POPE.read(tmp_path, "v1.5")
    assert [(q.id, q.truth) for q in questions] == [("1", "yes"), ("7", "yes"), ("9", "no"), ("8", "no")]
    assert questions[0].prompt == "Is it?\nAnswer the question using a single word or phrase."
    rows[1]["image"] = "COCO_val2014_000000000002.jpg"
    write(tmp_path / "llava_pope_test.jsonl", rows)
    with pytest.raises(LlavakitError, match="of different versions"):
        POPE.read(tmp_path, "v1.5")
    write(tmp_path / "llava_pope_test.jsonl", rows[2:])
    with pytest.raises(LlavakitError, match="of different versions"):
        POPE.read(tmp_path, "v1.5")


def test_all_questions_of_a_picture_are_drawn_together(tmp_path: Path) -> None:
    official(tmp_path, {split: ["yes", "no"] for split in ("random", "popular", "adversarial")})
    questions = POPE.read(tmp_path, "v1.5")
    assert {question.unit for question in questions} == {f"COCO_val2014_{n:012d}.jpg" for n in (1, 2)}
    # so that the first few questions are of few pictures, and of every split
    put = prepare(questions, Asking(limit=4))
    assert [question.id for question in put] == ["random-1", "popular-1", "adversarial-1"]


def test_missing_files_and_damaged_ones_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        LlavakitError, match=r"coco_pope_random.json \(0.4 MB\) from https://github.com/RUCAIBox/POPE"
    ):
        POPE.read(tmp_path, "v1.5")
    official(tmp_path, {"random": ["yes"], "popular": ["maybe"], "adversarial": ["no"]})
    with pytest.raises(LlavakitError, match="a label is 'maybe'"):
        POPE.read(tmp_path, "v1.5")
    (tmp_path / "coco_pope_popular.json").write_text('{"image": ')
    with pytest.raises(LlavakitError, match="line 1, is not JSON"):
        POPE.read(tmp_path, "v1.5")


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the published answers are not here")
def test_the_published_answers_give_the_published_figures() -> None:
    questions = POPE.read(GOLDEN, "v1.5")
    rows = [json.loads(line) for line in (GOLDEN / "answers-llava-v1.5-13b.jsonl").read_text().splitlines()]
    answers = {str(row["question_id"]): row["text"] for row in rows}
    figures = POPE.summarise([POPE.mark(q, answers[q.id]) for q in questions])
    assert len(questions) == 8910
    assert [f"{figures[f'{split} F1']:.2f}" for split in ("random", "popular", "adversarial")] == [
        "87.14",
        "86.25",
        "84.46",
    ]
    assert f"{figures['F1 mean']:.2f}" == "85.95"
    assert f"{(POPE.others or (lambda *_: {}))(questions, answers)['lmms-eval: pooled F1']:.2f}" == "85.93"
