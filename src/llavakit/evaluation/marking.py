"""A benchmark's marks and figures for saved answers, with all that was noticed on the way.

Pure: no model, no files. What a judge has to say comes in as text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Benchmark, Figures, Question, Verdict
from llavakit.evaluation.intervals import Interval, bootstrap


@dataclass(frozen=True, slots=True)
class Marked:
    """Verdicts in the order of the questions, the figures, and how often each note was made.

    score: the headline, nan when it is undefined. others: what other tools would give for the same answers.
    """

    verdicts: tuple[Verdict, ...]
    figures: Figures
    others: Figures
    notes: dict[str, int]
    score: float
    interval: Interval


def mark_answers(
    benchmark: Benchmark,
    questions: Sequence[Question],
    answers: Mapping[str, str],
    *,
    judged: Mapping[str, str] | None = None,
    draws: int = 0,
) -> Marked:
    """Marks every question's answer.

    judged: a judge's replies by question id. draws: of the bootstrap, 0 for a number that fits the benchmark.
    Raises LlavakitError when a benchmark that needs a judge is marked without one.
    """
    if benchmark.needs_judge and judged is None:
        raise LlavakitError(f"{benchmark.name} is marked by a judge: name one with --judge")
    verdicts = []
    for question in questions:
        answer, reply = answers[question.id], (judged or {}).get(question.id)
        if reply is not None and benchmark.mark_judged is not None:
            verdicts.append(benchmark.mark_judged(question, answer, reply))
            continue
        if (
            benchmark.needs_judge
            and benchmark.ask_judge is not None
            and benchmark.ask_judge(question, answer)
        ):
            raise LlavakitError(f"{benchmark.name}: question {question.id} lacks the judge's word")
        verdicts.append(benchmark.mark(question, answer))
    figures = dict(benchmark.summarise(verdicts))
    if benchmark.headline not in figures:
        raise LlavakitError(f"{benchmark.name} gives no figure named {benchmark.headline}")
    others = dict(benchmark.others(questions, answers)) if benchmark.others is not None else {}
    notes = Counter(verdict.note for verdict in verdicts if verdict.note)
    notes["nothing understood"] += sum(verdict.parsed is None for verdict in verdicts)
    score = figures[benchmark.headline]
    return Marked(
        tuple(verdicts), figures, others, dict(+notes), score, bootstrap(benchmark, verdicts, draws=draws)
    )


def categories(verdicts: Sequence[Verdict]) -> dict[str, tuple[float, int]]:
    """The mean credit in percent and the number of questions with a credit of every category, in order."""
    tally: dict[str, list[float]] = {}
    for verdict in verdicts:
        if verdict.question.category and math.isfinite(verdict.credit):
            tally.setdefault(verdict.question.category, []).append(verdict.credit)
    return {name: (100 * math.fsum(credits) / len(credits), len(credits)) for name, credits in tally.items()}
