"""MMStar: the letter at the start, and the mean over questions beside that over sub-categories."""

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

BENCHMARK = load("mmstar")


def row(index: int, answer: str, part: str, category: str = "math") -> dict[str, Any]:
    return {
        "index": index,
        "question": "Which is it? Please answer yes or no.\nOptions: A: one, B: two, C: three, D: four\n",
        "image": {"bytes": b"%d" % index, "path": None},
        "answer": answer,
        "category": category,
        "l2_category": part,
        "meta_info": {"source": "MMMU", "split": "val", "image_path": "images/0.jpg"},
    }


ROWS = [
    row(0, "A", "geometry"),
    row(1, "B", "geometry"),
    row(2, "C", "geometry"),
    row(3, "D", "statistical reasoning"),
    row(1499, "B", "localization", "fine-grained perception"),
]


def write(folder: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    pq.write_table(pa.Table.from_pylist(rows), folder / "mmstar.parquet")


def test_the_letter_is_asked_for_without_a_full_stop(tmp_path: Path) -> None:
    write(tmp_path)
    *_, last = BENCHMARK.read(tmp_path, "v1.6")
    assert last.prompt == (
        "Which is it?\nOptions: A: one, B: two, C: three, D: four\n"
        "Answer with the option's letter from the given choices directly"
    )
    assert (last.id, last.truth, last.category) == ("1499", "B", "fine-grained perception")
    assert picture_bytes(last.pictures[0]) == b"1499"


def test_overall_is_over_questions_and_lmms_evals_average_over_sub_categories(tmp_path: Path) -> None:
    write(tmp_path)
    answers = tmp_path / "answers.json"
    # geometry 2 of 3, statistical reasoning 0 of 1, localization 1 of 1
    answers.write_text(json.dumps({"1499": "B", "0": "a", "1": "(B) two", "2": "It is C", "3": "A"}))
    marked = score_file("mmstar", answers, tmp_path).marked
    assert marked.score == 60
    assert marked.figures == pytest.approx(
        {
            "overall": 60,
            "average over l2 categories": 500 / 9,
            "fine-grained perception": 100,
            "fine-grained perception: localization": 100,
            "math": 50,
            "math: geometry": 200 / 3,
            "math: statistical reasoning": 0,
        }
    )
    # lmms-eval reads no small a, and the C at the end: again 2 of 3 in geometry, but others
    assert marked.others == pytest.approx(
        {"lmms-eval: average": 500 / 9, "lmms-eval: fine-grained perception": 100, "lmms-eval: math": 100 / 3}
    )


def test_answers_in_any_order_and_of_any_sort_are_scored_by_hand(tmp_path: Path) -> None:
    write(tmp_path)
    said = {"1499": "Because", "3": "x" * 100_000 + " D", "2": "", "1": "\x1bB", "0": "The answer is A"}
    answers = tmp_path / "answers.jsonl"
    lines = [json.dumps({"question_id": int(name), "text": text}) for name, text in said.items()]
    answers.write_text("\n".join([*lines, lines[0]]))
    result = score_file("mmstar", answers, tmp_path)
    assert result.marked.score == 40  # 0, and 1499 by the first character of its word
    assert result.marked.others["lmms-eval: average"] == pytest.approx(100 * (2 / 3 + 1 + 1) / 3)
    assert result.marked.notes == {"no letter at the start": 3, "nothing understood": 3}
    assert result.counts == {
        "answers given twice, the same": 1,
        "answers that are empty": 1,
        "answers of more than 10,000 characters": 1,
        "answers with control characters": 1,
    }
    answers.write_text("\n".join([*lines, json.dumps({"question_id": 2, "text": "C"})]))
    with pytest.raises(LlavakitError, match="question 2 has two answers that differ"):
        score_file("mmstar", answers, tmp_path)
    answers.write_text("\n".join(lines[1:]))
    with pytest.raises(LlavakitError, match="1 of 5 questions have no answer, 1499 first"):
        score_file("mmstar", answers, tmp_path)


def test_what_is_missing_or_unusable_is_told(tmp_path: Path) -> None:
    with pytest.raises(LlavakitError, match=r"put there mmstar.parquet \(42 MB\) from https://"):
        BENCHMARK.read(tmp_path, "v1.6")
    write(tmp_path, [row(7, "yes", "geometry")])
    with pytest.raises(LlavakitError, match="index 7: the answer is 'yes', expected A to D"):
        BENCHMARK.read(tmp_path, "v1.6")
    write(tmp_path, [ROWS[0], ROWS[0]])
    with pytest.raises(LlavakitError, match="two questions have the id 0"):
        BENCHMARK.read(tmp_path, "v1.6")
    assert str(BENCHMARK.summarise([])["average over l2 categories"]) == "nan"
