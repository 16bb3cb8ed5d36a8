"""AI2D: the place of the right option, the letter before a full stop, and two tasks that are kept apart."""

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
from llavakit.evaluation.scoring_saved import score_file

MASKED, SHOWN = load("ai2d"), load("ai2d_no_mask")
OPTIONS = ["leaf", "root", "stem", "bud"]


def row(answer: str, options: list[str] = OPTIONS) -> dict[str, Any]:
    picture = {"bytes": f"picture {answer}".encode(), "path": None}
    return {"question": "What is part B?", "options": options, "answer": answer, "image": picture}


ROWS = [row("1"), row("0"), row("3"), row("2")]


def write(folder: Path, rows: list[dict[str, Any]] = ROWS, name: str = "test-00000-of-00001.parquet") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / name)


def test_the_letter_is_asked_for_and_the_answer_is_the_place_of_an_option(tmp_path: Path) -> None:
    write(tmp_path / "data")
    first, *_, last = MASKED.read(tmp_path, "v1.6")
    assert first.prompt == (
        "What is part B?\nA. leaf\nB. root\nC. stem\nD. bud\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert (first.id, first.truth, last.id, last.truth) == ("0", "B", "3", "C")
    assert picture_bytes(last.pictures[0]) == b"picture 2"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("b", "B"), ("(B)", "B"), (" \nB. root", "B"), ("B.root", "B"), ("B\0", "B"), ("[b].", "B"),
        ("E. none", None), ("B root", None), ("B: root", None), ("b. root", None), ("root", None),
        ("The answer is B.", None), ("", None), ("...", None), ("\x1b[1mB", None), ("B" * 100_000, None),
    ],
)  # fmt: skip
def test_a_letter_before_a_full_stop_or_alone(tmp_path: Path, answer: str, letter: str | None) -> None:
    write(tmp_path / "data")
    verdict = MASKED.mark(MASKED.read(tmp_path, "v1.6")[0], answer)
    assert (verdict.parsed, verdict.credit) == (letter, float(letter == "B"))
    assert verdict.note == ("" if letter else "no letter of an option")


def test_answers_in_any_order_and_of_any_sort_are_scored_by_hand(tmp_path: Path) -> None:
    write(tmp_path / "data")
    said = {"3": "x" * 100_000, "1": "A. leaf", "0": "B", "2": "I see\x07 a bud"}
    answers = tmp_path / "answers.jsonl"
    lines = [json.dumps({"question_id": name, "text": text}) for name, text in said.items()]
    answers.write_text("\n".join([*lines, lines[1]]))
    result = score_file("ai2d", answers, tmp_path)
    assert result.marked.figures == {"accuracy": 50}
    # the bare letter is 0's alone; VLMEvalKit reads 1's letter and 2's text too
    assert result.marked.others == {"bare letter: accuracy": 25, "VLMEvalKit: Overall, no judge": 75}
    assert result.counts == {
        "answers given twice, the same": 1,
        "answers of more than 10,000 characters": 1,
        "answers with control characters": 1,
    }
    answers.write_text("\n".join([*lines, json.dumps({"question_id": "1", "text": ""})]))
    with pytest.raises(LlavakitError, match="question 1 has two answers that differ"):
        score_file("ai2d", answers, tmp_path)
    answers.write_text("\n".join(lines[1:]))
    with pytest.raises(LlavakitError, match="1 of 4 questions have no answer, 3 first"):
        score_file("ai2d", answers, tmp_path)
    assert score_file("ai2d", answers, tmp_path, partial=True).marked.score == pytest.approx(200 / 3)


def test_pictures_with_and_without_masks_are_two_tasks_that_never_read_each_others_files(
    tmp_path: Path,
) -> None:
    write(tmp_path / "ai2d/data")
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps(dict.fromkeys("0123", "B")))
    assert score_file("ai2d", answers, tmp_path).marked.score == 25
    with pytest.raises(
        LlavakitError, match=r"no_mask/data/test-\*.parquet \(237 MB\) from https://.*ai2d-no-mask"
    ):
        score_file("ai2d_no_mask", answers, tmp_path)
    write(tmp_path / "ai2d/no_mask", [row("1")] * 4, "test.parquet")
    assert score_file("ai2d_no_mask", answers, tmp_path).marked.score == 100
    assert MASKED.published and not SHOWN.published


def test_what_is_missing_or_unusable_is_told(tmp_path: Path) -> None:
    with pytest.raises(LlavakitError, match=r"put there data/test-\*.parquet \(140 MB\) from https://"):
        MASKED.read(tmp_path, "v1.6")
    write(tmp_path / "data", name="test-00001-of-00002.parquet")
    with pytest.raises(LlavakitError, match=r"has 1 of the 2 parts of test-\*.parquet"):
        MASKED.read(tmp_path, "v1.6")
    write(tmp_path / "data", name="test-00000-of-00002.parquet")
    assert [question.id for question in MASKED.read(tmp_path, "v1.6")] == list("01234567")
    write(tmp_path / "data")
    with pytest.raises(LlavakitError, match="1 of the 1 parts and 2 of the 2 parts"):
        MASKED.read(tmp_path, "v1.6")
    for place, odd in enumerate(("4", "-1", "B", "")):
        write(tmp_path / str(place) / "data", [row(odd)])
        with pytest.raises(LlavakitError, match=f"the answer is '{odd}', expected the place of one of 4"):
            MASKED.read(tmp_path / str(place), "v1.6")
    assert str(MASKED.summarise([])["accuracy"]) == "nan"
