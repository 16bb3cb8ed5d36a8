"""A judge's word on answers, and marks made with it.

What the judge was, as it named itself, when it spoke, what that cost, and the hash of everything it was asked with
stand in the result. An answer on which the judge gave no word is counted, and never marked as if it had.

Knows benchmarks' requests and replies as text; what they say is the benchmarks' matter.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Benchmark, Question
from llavakit.evaluation.judge import DECLINED, NO_REPLY, Heard, Judge, hear
from llavakit.evaluation.judged_before import ABOUT_NONE, read_replies
from llavakit.evaluation.marking import Marked, mark_answers
from llavakit.synthesis.teacher import TeacherRequest
from llavakit.synthesis.teachers import LOCAL


@dataclass(frozen=True, slots=True)
class Judged:
    """Marks with a judge's help: of the questions that are scored, and what is to be told of the judge.

    replies: the judge's words on a question, a run after the other. calls_now: paid for in this process.
    """

    questions: tuple[Question, ...]
    marked: Marked
    counts: dict[str, int]
    told: dict[str, Any]
    replies: dict[str, tuple[str, ...]]
    calls_now: int


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
    by_id = {question.id: question for question in questions}
    if judge.runs < 1:
        raise LlavakitError(f"--judge-runs is {judge.runs}, expected at least 1")
    runs = [_requests(benchmark, questions, answers, judge, run) for run in range(judge.runs)]
    _check_prices(judge, runs[0].values())
    if judge.saved:
        heard = read_replies(benchmark, list(runs[0]), judge.saved)
    else:
        heard = hear(
            judge,
            benchmark.name,
            runs,
            folder,
            unread=lambda name, reply: _unread(benchmark, by_id[name], answers[name], reply),
            again=benchmark.ask_judge_again,
        )
    counts = heard.counts
    scored = _scored(benchmark, questions, runs[0], heard, counts, partial)
    kept = {question.id: answers[question.id] for question in scored}
    marks = [mark_answers(benchmark, scored, kept, judged=found) for found in heard.replies]
    for place, marked in enumerate(marks[1:], start=2):
        counts.update({f"marked in judging {place}: {note}": number for note, number in marked.notes.items()})
    told: dict[str, Any] = {
        "judge": judge.spec,
        "asked_as": [] if judge.saved else sorted({request.model for request in runs[0].values()}),
        "answered_as": sorted(heard.models),
        "prompts": None if judge.saved else _prompts_hash(runs[0].values()),
        "judged": len(runs[0]),
        "runs": len(heard.replies),
        "replied": list(heard.replied),
        "calls": heard.calls,
        "tokens": heard.tokens,
    }
    if judge.prices is not None:
        told["cost"] = heard.cost
    if len(marks) > 1:
        scores = [marked.score for marked in marks]
        spread = stdev(scores) if all(map(math.isfinite, scores)) else math.nan
        told |= {"scores": scores, "deviation": spread}
    replies = {
        name: tuple(found.get(name, "") for found in heard.replies)
        for name in kept
        if any(name in found for found in heard.replies)
    }
    return Judged(tuple(scored), _mean(benchmark, marks), dict(counts), told, replies, heard.calls_now)


def _unread(benchmark: Benchmark, question: Question, answer: str, reply: str) -> bool:
    assert benchmark.mark_judged is not None
    return benchmark.mark_judged(question, answer, reply).parsed is None


def _check_prices(judge: Judge, requests: Iterable[TeacherRequest]) -> None:
    for request in requests:
        if judge.prices is not None and judge.prices.of(request.model) is None:
            raise LlavakitError(
                f"the judge is asked as {request.model}, of which --judge-prices has no price: write it into the file"
            )


def _requests(
    benchmark: Benchmark, questions: Sequence[Question], answers: Mapping[str, str], judge: Judge, run: int
) -> dict[str, TeacherRequest]:
    """What one run asks, by question; a question that needs no judge is not among them."""
    assert benchmark.ask_judge is not None
    model = judge.model or (judge.spec if judge.spec.startswith(LOCAL) else "")
    found = {}
    for question in questions:
        request = benchmark.ask_judge(question, answers[question.id])
        if request is not None:
            found[question.id] = replace(request, model=model or request.model, sample=run)
    return found


def _scored(
    benchmark: Benchmark,
    questions: Sequence[Question],
    requests: Mapping[str, TeacherRequest],
    heard: Heard,
    counts: Counter[str],
    partial: bool,
) -> list[Question]:
    """The questions whose marks do not miss a judge's word in any run."""
    silent_on = {name for name in requests for found in heard.replies if name not in found}
    if not silent_on:
        return list(questions)
    if not benchmark.needs_judge:
        counts["read without the judge's help"] = len(silent_on)
        return list(questions)
    if not partial:
        raise LlavakitError(_silence(benchmark, len(silent_on), len(requests), counts, heard.last_trouble))
    gone = {question.unit for question in questions if question.unit and question.id in silent_on}
    scored = [
        question for question in questions if question.id not in silent_on and question.unit not in gone
    ]
    counts["questions left out for want of the judge's word"] = len(questions) - len(scored)
    if not scored:
        raise LlavakitError(f"{benchmark.name}: the judge gave no word on any answer")
    return scored


def _silence(benchmark: Benchmark, silent_on: int, asked: int, counts: Counter[str], trouble: str) -> str:
    """One sentence about answers without the judge's word, and what can be done."""
    reasons = ("not judged", ABOUT_NONE)
    why = ", ".join(f"{number} {what}" for what, number in counts.items() if what.startswith(reasons))
    last = f"; the last time: {trouble.rstrip('.')}" if trouble else ""
    ways = ["score the others with --partial"]
    if counts[NO_REPLY]:
        ways.insert(0, "give the command again to ask for those without a reply")
    if counts[DECLINED]:
        ways.append("ask another with --judge-model")
    return (
        f"{benchmark.name}: the judge gave no word on {silent_on} of {asked} answers ({why}{last}); "
        f"{', or '.join(ways)}"
    )


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
