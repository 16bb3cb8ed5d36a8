"""A judge's word on answers: another model is asked, through the journal and the engine that synthesis asks with.

Every reply is kept before it is read, so that a run that was ended pays for nothing twice. What the judge was, as it
named itself, and the hash of everything it was asked with stand in the result. An answer on which the judge gave no
word is counted, and never marked as if it had.

Knows benchmarks' requests and replies as text; what they say is the benchmarks' matter.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Benchmark, Question
from llavakit.evaluation.marking import Marked, mark_answers
from llavakit.synthesis.asking import Journal, Limits, Report, ask_all
from llavakit.synthesis.asking.events import silent
from llavakit.synthesis.teacher import Teacher, TeacherRequest

JOURNAL = "judge.sqlite"


@dataclass(frozen=True, slots=True)
class Judge:
    """Who judges: by what a user wrote, how it is opened, and under which name it is asked.

    model: in the place of the one that the benchmark pins; "" leaves that. runs: how often every answer is judged.
    """

    spec: str
    opened: Callable[[], AbstractAsyncContextManager[Teacher]]
    model: str = ""
    runs: int = 1
    limits: Limits = field(default_factory=lambda: Limits(concurrency=16, more_room=1.0))
    report: Report = silent


@dataclass(frozen=True, slots=True)
class Judged:
    """Marks with a judge's help: of the questions that are scored, and what is to be told of the judge."""

    questions: tuple[Question, ...]
    marked: Marked
    counts: dict[str, int]
    told: dict[str, Any]


def judge_answers(
    benchmark: Benchmark,
    questions: Sequence[Question],
    answers: Mapping[str, str],
    judge: Judge,
    folder: Path,
    *,
    partial: bool = False,
) -> Judged:
    """Asks the judge, keeps its replies in `judge.sqlite` below the folder, and marks.

    With several runs, figures are means over them; verdicts and interval are those of the first. partial: leaves out,
    in whole units, what the judge gave no word on. Raises LlavakitError when the benchmark has no judge, when the judge
    cannot be reached, or when it gave no word on an answer that cannot be marked without (unless partial).
    """
    if benchmark.ask_judge is None or benchmark.mark_judged is None:
        raise LlavakitError(f"{benchmark.name} is marked without a judge: leave out --judge")
    if judge.runs < 1:
        raise LlavakitError(f"--judge-runs is {judge.runs}, expected at least 1")
    runs = [_requests(benchmark, questions, answers, judge, run) for run in range(judge.runs)]
    folder.mkdir(parents=True, exist_ok=True)
    replies: list[dict[str, str]] = [{} for _ in runs]
    counts: Counter[str] = Counter()
    models: set[str] = set()
    with Journal(folder / JOURNAL) as journal:
        wanted = [request for requests in runs for request in requests.values()]
        if any(journal.stored(request.key) is None for request in wanted):
            account = ask_all(wanted, judge.opened(), journal, limits=judge.limits, report=judge.report)
            if account.stopped:
                raise LlavakitError(f"the judge {judge.spec} was not asked to the end: {account.reason}")
        for requests, found in zip(runs, replies, strict=True):
            for name, request in requests.items():
                stored = journal.stored(request.key)
                if stored is None or stored.reply is None:
                    counts[f"not judged: {stored.trouble if stored else 'no reply'}"] += 1
                elif stored.reply.refusal or not stored.reply.text.strip():
                    counts["not judged: the judge declined or said nothing"] += 1
                else:
                    found[name] = stored.reply.text
                    models.add(stored.reply.model)
    scored = _scored(benchmark, questions, runs[0], replies, counts, partial)
    kept = {question.id: answers[question.id] for question in scored}
    marks = [mark_answers(benchmark, scored, kept, judged=found) for found in replies]
    told = {
        "judge": judge.spec,
        "asked_as": sorted({request.model for request in runs[0].values()}),
        "answered_as": sorted(models),
        "prompts": _prompts_hash(runs[0].values()),
        "judged": len(runs[0]),
        "runs": judge.runs,
    }
    if judge.runs > 1:
        scores = [marked.score for marked in marks]
        told |= {"scores": scores, "deviation": stdev(scores)}
    return Judged(tuple(scored), _mean(benchmark, marks), dict(counts), told)


def _requests(
    benchmark: Benchmark, questions: Sequence[Question], answers: Mapping[str, str], judge: Judge, run: int
) -> dict[str, TeacherRequest]:
    """What one run asks, by question; a question that needs no judge is not among them."""
    assert benchmark.ask_judge is not None
    found = {}
    for question in questions:
        request = benchmark.ask_judge(question, answers[question.id])
        if request is not None:
            found[question.id] = replace(request, model=judge.model or request.model, sample=run)
    return found


def _scored(
    benchmark: Benchmark,
    questions: Sequence[Question],
    requests: Mapping[str, TeacherRequest],
    replies: Sequence[Mapping[str, str]],
    counts: Counter[str],
    partial: bool,
) -> list[Question]:
    """The questions whose marks do not miss a judge's word in any run."""
    silent_on = {name for name in requests for found in replies if name not in found}
    if not silent_on:
        return list(questions)
    if not benchmark.needs_judge:
        counts["read without the judge's help"] = len(silent_on)
        return list(questions)
    if not partial:
        why = ", ".join(f"{number} {what}" for what, number in counts.items())
        raise LlavakitError(
            f"{benchmark.name}: the judge gave no word on {len(silent_on)} of {len(requests)} answers ({why}); "
            "give the command again to ask for these alone, or score the others with --partial"
        )
    gone = {question.unit for question in questions if question.unit and question.id in silent_on}
    scored = [
        question for question in questions if question.id not in silent_on and question.unit not in gone
    ]
    counts["questions left out for want of the judge's word"] = len(questions) - len(scored)
    if not scored:
        raise LlavakitError(f"{benchmark.name}: the judge gave no word on any answer")
    return scored


def _mean(benchmark: Benchmark, marks: Sequence[Marked]) -> Marked:
    if len(marks) == 1:
        return marks[0]
    figures = {name: mean(marked.figures[name] for marked in marks) for name in marks[0].figures}
    interval = replace(marks[0].interval, method=f"{marks[0].interval.method}, first judging of {len(marks)}")
    return replace(marks[0], figures=figures, score=figures[benchmark.headline], interval=interval)


def _prompts_hash(requests: Any) -> str:
    """Over everything that was sent, but not to whom."""
    sent = sorted(
        json.dumps({**request.identity(), "model": ""}, sort_keys=True, default=str) for request in requests
    )
    return hashlib.sha256("\n".join(sent).encode("utf-8", "surrogatepass")).hexdigest()
