"""Official files with a value of another kind anywhere: one sentence, or questions that can be marked; never a crash."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.benchmarks import (
    test_chair,
    test_llava_bench,
    test_mathvista,
    test_seed_bench,
    test_short_answers,
)

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.marking import mark_answers
from llavakit.evaluation.reading import read_questions

WAYS: dict[str, Callable[[Path], object]] = {
    "vqav2_val": test_short_answers.vqa_files,
    "textvqa": test_short_answers.textvqa_files,
    "seed_bench": test_seed_bench.write,
    "mathvista": test_mathvista.write,
    "chair_all": test_chair.official,
    "llava_bench_coco": test_llava_bench.coco,
}
VALUES: list[Any] = [None, [], {}, 0, -1, 1.5, "", "x", True, [None], {"a": 1}, "\x00", 10**30, "nan", "[1"]
ANSWERS = ["", "A", "yes", "y" * 100_000, "\x00\x1b", "\n\t", "\ud800", "1e400", "[1e999, nan, 2, 3]", "½"]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of a document stands."""
    if place:
        yield place
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*place, key))


def changed(document: Any, rng: random.Random) -> Any:
    """A copy with one value of another kind, or one that is gone."""
    document = deepcopy(document)
    *before, last = rng.choice(list(places(document)))
    inside = document
    for key in before:
        inside = inside[key]
    if rng.random() < 0.2:
        del inside[last]
    else:
        inside[last] = rng.choice(VALUES)
    return document


@pytest.mark.parametrize("name", WAYS)
def test_a_damaged_file_is_told_or_does_no_harm(name: str, tmp_path: Path) -> None:
    WAYS[name](tmp_path)
    benchmark, rng = load(name), random.Random(name)
    refused = 0
    for path in sorted(path for path in tmp_path.rglob("*.json*") if path.is_file()):
        whole = path.read_text()
        lines = path.suffix == ".jsonl"
        document = [json.loads(line) for line in whole.splitlines()] if lines else json.loads(whole)
        for _ in range(40):
            new = changed(document, rng)
            path.write_text("\n".join(map(json.dumps, new)) if lines else json.dumps(new))
            try:
                questions = read_questions(benchmark, tmp_path, benchmark.variants[0].name)
                answers = {question.id: rng.choice(ANSWERS) for question in questions}
                if questions and not benchmark.needs_judge:
                    mark_answers(benchmark, questions, answers, draws=5)
            except LlavakitError as error:
                refused += 1
                assert "\n" not in str(error)
        path.write_text(whole)
    assert refused > 10


def test_the_sentence_names_benchmark_file_and_fault(tmp_path: Path) -> None:
    test_seed_bench.write(tmp_path)
    path = tmp_path / "SEED-Bench.json"
    document = json.loads(path.read_text())
    document["questions"][0]["question_type_id"] = "first"
    path.write_text(json.dumps(document))
    with pytest.raises(
        LlavakitError, match=r"seed_bench: SEED-Bench.json in .* 'first'\): download it again"
    ):
        read_questions(load("seed_bench"), tmp_path, "v1.5")
