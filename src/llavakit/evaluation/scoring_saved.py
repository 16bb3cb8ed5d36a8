"""Scores for a file of saved answers: read the benchmark, join, mark, and tell what the score was made from.

Asks no model.
"""

from __future__ import annotations

from pathlib import Path

from llavakit.errors import LlavakitError
from llavakit.evaluation import benchmarks
from llavakit.evaluation.benchmark import Benchmark, Variant
from llavakit.evaluation.marking import mark_answers
from llavakit.evaluation.provenance import Hashes
from llavakit.evaluation.results import Scored
from llavakit.evaluation.saved import join, read_rows


def choose_variant(benchmark: Benchmark, name: str | None) -> Variant:
    """A benchmark's variant by name, its first when None; raises LlavakitError telling those there are."""
    for variant in benchmark.variants:
        if name is None or variant.name == name:
            return variant
    there = ", ".join(variant.name for variant in benchmark.variants)
    raise LlavakitError(f"{benchmark.name} has no variant {name!r}: choose among {there}")


def data_folder(data: Path, name: str) -> Path:
    """Where a benchmark's files lie: the folder of its name or of its family below `data`, else `data` itself."""
    for folder in (data / name, data / benchmarks.family(name)):
        if folder.is_dir():
            return folder
    if not data.is_dir():
        raise LlavakitError(
            f"{data} is no folder, expected the one that holds the benchmarks' files (--data)"
        )
    return data


def score_file(
    name: str,
    answers: Path,
    data: Path,
    *,
    variant: str | None = None,
    partial: bool = False,
    hashes: Hashes | None = None,
) -> Scored:
    """One benchmark's score for one file of answers.

    Raises LlavakitError for an unknown benchmark, missing data, or answers that cannot be joined to the questions.
    """
    benchmark = benchmarks.load(name)
    chosen = choose_variant(benchmark, variant)
    folder = data_folder(data, name)
    rows = read_rows(answers)
    questions = benchmark.read(folder, chosen.name)
    joined = join(benchmark, questions, rows, partial=partial)
    marked = mark_answers(benchmark, joined.questions, joined.answers)
    return Scored(
        benchmark,
        chosen,
        joined.questions,
        joined.answers,
        marked,
        joined.counts,
        (hashes or Hashes()).data(benchmark, folder),
        len(questions),
    )
