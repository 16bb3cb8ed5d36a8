"""Scores for a file of saved answers: read the benchmark, join, mark, and tell what the score was made from.

Asks no model but a judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.evaluation import benchmarks
from llavakit.evaluation.benchmark import Benchmark, Question, Variant
from llavakit.evaluation.judge import Judge
from llavakit.evaluation.judging import judge_answers
from llavakit.evaluation.marking import mark_answers
from llavakit.evaluation.provenance import Hashes
from llavakit.evaluation.reading import read_questions
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
    judge: Judge | None = None,
    folder: Path | None = None,
) -> Scored:
    """One benchmark's score for one file of answers.

    folder: where a judge's replies are kept.

    Raises LlavakitError for an unknown benchmark, missing data, or answers that cannot be joined to the questions.
    """
    benchmark = benchmarks.load(name)
    chosen = choose_variant(benchmark, variant)
    files = data_folder(data, name)
    rows = read_rows(answers)
    questions = read_questions(benchmark, files, chosen.name)
    joined = join(benchmark, questions, rows, partial=partial)
    return scored(
        benchmark,
        chosen,
        joined.questions,
        joined.answers,
        joined.counts,
        (hashes or Hashes()).data(benchmark, files),
        len(questions),
        judge=judge,
        folder=folder,
        partial=partial,
    )


def scored(
    benchmark: Benchmark,
    variant: Variant,
    questions: Sequence[Question],
    answers: Mapping[str, str],
    counts: Mapping[str, int],
    data: Mapping[str, str],
    total: int,
    *,
    asking: Mapping[str, Any] | None = None,
    judge: Judge | None = None,
    folder: Path | None = None,
    partial: bool = False,
) -> Scored:
    """Marks answers, with a judge's help where there is one and the benchmark takes it."""
    if judge is None or benchmark.ask_judge is None:
        marked = mark_answers(benchmark, questions, answers)
        return Scored(benchmark, variant, questions, answers, marked, counts, data, total, asking or {})
    if folder is None:
        raise LlavakitError("a judge's replies need a folder to be kept in: give one with --out")
    judged = judge_answers(benchmark, questions, answers, judge, folder, partial=partial)
    kept = {question.id: answers[question.id] for question in judged.questions}
    return Scored(
        benchmark,
        variant,
        judged.questions,
        kept,
        judged.marked,
        {**counts, **judged.counts},
        data,
        total,
        asking or {},
        judged.told,
        judged.replies,
        judged.calls_now,
    )
