"""LLaVA-Bench: what the judge is asked, how its words are read, and the ratio of means, counted by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from llavakit.cli.main import main
from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.benchmarks.llava_bench import marks, marks_of_llava
from llavakit.evaluation.results import read_marked, read_results

COCO, WILD = load("llava_bench_coco"), load("llava_bench_wild")


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def coco(folder: Path) -> None:
    rows = [
        {"question_id": n, "image": "000000000001.jpg", "text": f"Question {n}?", "category": kind}
        for n, kind in enumerate(("conv", "detail", "complex"))
    ]
    write(folder / "qa90_questions.jsonl", rows)
    write(
        folder / "qa90_gpt4_answer.jsonl", [{"question_id": n, "text": f"Reference {n}."} for n in range(3)]
    )
    row = {"id": 1, "image": "000000000001.jpg", "captions": ["A cat.", "Cat."], "instances": [{"category": "cat", "bbox": [0.1, 0.2, 0.3, 0.4]}]}  # fmt: skip
    write(folder / "caps_boxes_coco2014_val_80.jsonl", [row])
    rules = {
        kind: {"role": "Assistant", "prompt": f"Rule of {kind}."} for kind in ("conv", "detail", "complex")
    }
    (folder / "rule.json").write_text(json.dumps(rules))


def test_the_judge_is_told_the_picture_in_words_and_the_reference_first(tmp_path: Path) -> None:
    coco(tmp_path)
    question = COCO.read(tmp_path, "v1.5")[0]
    assert COCO.ask_judge is not None
    request = COCO.ask_judge(question, "Mine.")
    assert request is not None and (request.model, request.temperature) == ("gpt-4-0314", 0.2)
    assert request.messages[1].content == (
        "[Context]\nA cat.\nCat.\n\ncat: [0.1, 0.2, 0.3, 0.4]\n\n[Question]\nQuestion 0?\n\n"
        "[Assistant 1]\nReference 0.\n\n[End of Assistant 1]\n\n[Assistant 2]\nMine.\n\n[End of Assistant 2]\n\n"
        "[System]\nRule of conv.\n\n"
    )
    assert str(question.pictures[0].path).endswith("val2014/COCO_val2014_000000000001.jpg")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("8 7\nBecause", (8, 7)), ("8, 7", (8, 7)), ("8,7", (8, 7)), ("9.5 10", (9.5, 10)), ("8 7 9", None), ("", None),
        ("The first is better.\n8 7", None), ("8/10 7/10", None), ("nan 7", None), ("8 " * 50_000, None),
    ],
)  # fmt: skip
def test_two_numbers_are_read_from_the_first_line(reply: str, found: tuple[float, float] | None) -> None:
    assert marks(reply) == found


@pytest.mark.parametrize(
    ("reply", "found"),
    [("8 7\nwell", (8, 7)), ("8,7", (8, 7)), ("8, 7", (-1, -1)), ("8 7 ", (-1, -1)), ("8/10 7", (-1, -1)), ("", (-1, -1))],
)  # fmt: skip
def test_llavas_script_reads_less_and_takes_the_rest_for_minus_one(
    reply: str, found: tuple[float, float]
) -> None:
    assert marks_of_llava(reply) == found


def test_the_score_is_a_ratio_of_means_and_unread_replies_are_left_out_and_told(tmp_path: Path) -> None:
    coco(tmp_path)
    assert COCO.mark_judged is not None
    replies = ["8 6\nwell", "10 3", "both are fine"]
    verdicts = [
        COCO.mark_judged(q, "a", r) for q, r in zip(COCO.read(tmp_path, "v1.5"), replies, strict=True)
    ]
    figures = COCO.summarise(verdicts)
    assert (
        figures["overall"] == pytest.approx(100 * 9 / 18)
        and figures["conv"] == 75
        and figures["detail"] == 30
    )
    assert figures["LLaVA's script: unread replies as -1 -1"] == pytest.approx(
        100 * (6 + 3 - 1) / (8 + 10 - 1)
    )
    assert math.isnan(figures["complex"]) and verdicts[2].note == "the judge gave no two marks"
    assert math.isnan(COCO.summarise([COCO.mark(q, "a") for q in COCO.read(tmp_path, "v1.5")])["overall"])


def test_marks_beyond_ten_are_told_and_neither_break_the_page_nor_the_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco(tmp_path)
    replies = [{"question_id": n, "content": words} for n, words in enumerate(("80 90", "-1 -1", "8 6"))]
    write(tmp_path / "replies.jsonl", replies)
    write(tmp_path / "answers.jsonl", [{"question_id": n, "text": "Mine."} for n in range(3)])
    with pytest.raises(SystemExit) as end:
        main(
            [
                *("eval", "--benchmarks", "llava_bench_coco", "--data", str(tmp_path)),
                *("--answers", str(tmp_path / "answers.jsonl"), "--out", str(tmp_path / "out")),
                *("--judge", f"saved:{tmp_path / 'replies.jsonl'}"),
            ]
        )
    assert end.value.code == 0
    result = read_results(tmp_path / "out")["benchmarks"]["llava_bench_coco"]
    assert result["score"] == pytest.approx(100 * 95 / 87)
    assert result["notes"] == {"a mark that is not from 0 to 10": 2}
    credits = [row["credit"] for row in read_marked(tmp_path / "out", "llava_bench_coco")]
    assert credits == [1.0, 0.0, 0.6]


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        LlavakitError, match=r"questions.jsonl .* from https://huggingface.co/datasets/liuhaotian"
    ):
        WILD.read(tmp_path, "v1.5")
    coco(tmp_path)
    (tmp_path / "rule.json").unlink()
    with pytest.raises(LlavakitError, match=r"rule\.json"):
        COCO.read(tmp_path, "v1.5")
