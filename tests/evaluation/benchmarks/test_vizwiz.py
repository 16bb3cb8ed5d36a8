"""VizWiz: asked with a way out, scored on val, written for the server of test."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import load


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
