"""Data that lack a value or a part: told with the file, and never asked about or scored as if they were whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.evaluation.benchmarks import (
    test_ai2d,
    test_mathvista,
    test_mmmu,
    test_mmstar,
    test_realworldqa,
    test_seed_bench,
)

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.benchmarks.mme import TASKS
from llavakit.evaluation.pictures import InParquet, picture_bytes

PARQUET: list[tuple[str, Callable[..., None], list[dict[str, Any]], str]] = [
    ("ai2d", test_ai2d.write, test_ai2d.ROWS, "question"),
    ("mmstar", test_mmstar.write, test_mmstar.ROWS, "question"),
    ("mmstar", test_mmstar.write, test_mmstar.ROWS, "category"),
    ("realworldqa", test_realworldqa.write, test_realworldqa.ROWS, "question"),
    ("realworldqa", test_realworldqa.write, test_realworldqa.ROWS, "answer"),
]


@pytest.mark.parametrize(("name", "write", "rows", "column"), PARQUET)
def test_a_cell_without_a_value_is_no_text(
    name: str, write: Callable[..., None], rows: list[dict[str, Any]], column: str, tmp_path: Path
) -> None:
    write(tmp_path / "data" if name == "ai2d" else tmp_path, [*rows[:-1], rows[-1] | {column: None}])
    with pytest.raises(LlavakitError, match=f"parquet: field '{column}' is None, expected text"):
        load(name).read(tmp_path, load(name).variants[0].name)


def test_a_question_of_seed_bench_has_text_and_is_about_a_picture_or_a_video(tmp_path: Path) -> None:
    for changed, sentence in (
        ({"choice_b": None}, "field 'choice_b' is None, expected text"),
        ({"question": None}, "field 'question' is None, expected text"),
        ({"data_type": "Single Image"}, "question 1 is about a 'Single Image'; expected image or video"),
    ):
        rows = [test_seed_bench.ROWS[0] | changed, *test_seed_bench.ROWS[1:]]
        (tmp_path / "SEED-Bench.json").write_text(json.dumps({"questions": rows}))
        with pytest.raises(LlavakitError, match=sentence):
            load("seed_bench").read(tmp_path, "v1.5")


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"answer_type": "7"}, "question 1 wants a 7 with None digits, which no rule reads"),
        ({"answer": ["quarter"]}, r"field 'answer' is \['quarter'\], expected text"),
        ({"choices": "quarter"}, "the choices of question 1 are 'quarter', expected a list"),
    ],
)
def test_a_question_of_mathvista_is_of_a_form_that_a_rule_reads(
    changed: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    test_mathvista.write(tmp_path, [test_mathvista.ROWS[0] | changed])
    with pytest.raises(LlavakitError, match=sentence):
        load("mathvista").read(tmp_path, "format")


def test_a_question_of_mmmu_has_options_or_is_open(tmp_path: Path) -> None:
    test_mmmu.write(tmp_path, test_mmmu.row("Art", question_type="choice"))
    with pytest.raises(LlavakitError, match="the type 'choice' is neither multiple-choice nor open"):
        load("mmmu").read(tmp_path, "v1.5")


def test_popes_mean_is_of_three_splits(tmp_path: Path) -> None:
    row = {"question_id": 1, "image": "COCO_val2014_000000000001.jpg", "text": "Is it?", "label": "no"}
    for split in ("random", "popular", "adversarial"):
        text = "" if split == "random" else json.dumps(row)
        (tmp_path / f"coco_pope_{split}.json").write_text(text)
    with pytest.raises(LlavakitError, match="has no question of the splits random; a mean over fewer"):
        load("pope").read(tmp_path, "v1.5")


@pytest.mark.parametrize(
    ("splits", "sentence"),
    [
        (["random", "popular"], "has no question of the splits adversarial; a mean over fewer"),
        (
            ["random", "popular", "adversarial", "test"],
            "has a question of the category 'test'; expected random",
        ),
    ],
)
def test_popes_copy_has_its_three_splits(splits: list[str], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "Full").mkdir()
    for split in splits:
        row = {"question_id": "1", "question": "Is it?", "answer": "no", "category": split}
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"Full/{split}-00000-of-00001.parquet")
    with pytest.raises(LlavakitError, match=sentence):
        load("pope").read(tmp_path, "v1.5")


def test_mmes_copy_has_every_task(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = [
        {"question_id": f"{task}/1.png", "question": "Is it?", "answer": answer, "category": task}
        for task in TASKS
        if task != "OCR"
        for answer in ("Yes", "No")
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data/test-00000-of-00001.parquet")
    with pytest.raises(LlavakitError, match="lacks the tasks OCR; a sum over fewer is no MME score"):
        load("mme").read(tmp_path, "v1.5")


def test_a_copy_without_its_pictures_is_told_when_one_is_to_be_shown(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    pq.write_table(pa.table({"question": ["Is it?"]}), path)
    with pytest.raises(LlavakitError, match="has no column image, which holds the pictures"):
        picture_bytes(InParquet(path, 0, "image"))
    (tmp_path / "half.parquet").write_bytes(b"PAR1")
    with pytest.raises(LlavakitError, match=r"row 3: its picture cannot be read"):
        picture_bytes(InParquet(tmp_path / "half.parquet", 3, "image"))
