"""A judge of `llavakit eval`: opened as the command line says, watched while it is asked, and told of at the end.

Knows judges, what they cost, and rich.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from llavakit.cli.generation_view import GenerationView
from llavakit.errors import LlavakitError
from llavakit.evaluation.judge import Judge, Watch
from llavakit.synthesis.asking import Account, Limits, Report, read_prices
from llavakit.synthesis.teachers import LOCAL, open_teacher

if TYPE_CHECKING:
    from llavakit.evaluation.results import Scored

SAVED = "saved:"
TIMEOUT_S = 120.0
CONCURRENCY = 16
NAMED = 8


def make_judge(
    spec: str, model: str, runs: int, timeout_s: float | None, attempts: int, prices: Path | None
) -> Judge:
    """A judge by the command line's words; nothing is opened yet.

    timeout_s: of one call, None for two minutes. attempts: calls for one reply before it is given up.
    """
    if spec.startswith(SAVED):
        if runs != 1 or model or timeout_s is not None or prices is not None:
            raise LlavakitError(
                f"--judge {SAVED}... reads replies and asks nobody: leave out the other options of a judge"
            )
        files = tuple(Path(part) for part in spec.removeprefix(SAVED).split(",") if part)
        if not files:
            raise LlavakitError(f"--judge {SAVED} names no file of a judge's replies")
        return Judge(spec, partial(open_teacher, spec), saved=files)
    if timeout_s is not None and spec.startswith(LOCAL):
        raise LlavakitError("--judge-timeout is for a judge behind an address; a model here takes its time")
    if timeout_s is not None and timeout_s <= 0:
        raise LlavakitError(f"--judge-timeout is {timeout_s:g}, expected more than 0 seconds")
    return Judge(
        spec,
        partial(open_teacher, spec, timeout_s=TIMEOUT_S if timeout_s is None else timeout_s),
        model,
        runs,
        Limits(concurrency=CONCURRENCY, attempts=attempts, more_room=1.0),
        read_prices(prices) if prices is not None else None,
        partial(_view, money=prices is not None),
    )


def _view(title: str, missing: int, money: bool) -> AbstractContextManager[Report]:
    return GenerationView(Console(), f"{title}, judging", missing, money=money)


def in_bar(bar: Progress) -> Watch:
    """Watches a judge in a line of a progress display that stands already."""

    @contextmanager
    def watch(title: str, missing: int) -> Iterator[Report]:
        line = bar.add_task(f"{title}, judging", total=missing)

        def report(account: Account) -> None:
            bar.update(line, completed=account.answered + account.refused + account.gave_up)

        yield report

    return watch


def show_judge(console: Console, one: Scored) -> None:
    """Who judged, what it took, and how far its runs lie apart."""
    told = one.judge
    if told is None:
        return
    parts = [f"asked as {', '.join(told['asked_as'])}"] if told["asked_as"] else []
    if told["answered_as"] != told["asked_as"]:
        parts.append(f"answered as {', '.join(told['answered_as']) or 'nobody'}")
    parts.append(f"{told['judged']:,} answers")
    if told["runs"] > 1:
        parts.append(f"{told['runs']} runs")
    if told["calls"]:
        parts.append(f"{told['calls']:,} calls ({one.judge_calls:,} now)")
        parts.append(f"{told['tokens']:,} tokens")
    if "cost" in told:
        parts.append(f"cost {told['cost']:.4f}")
    console.print(f"  judge: {'; '.join(parts)}", markup=False, soft_wrap=True)
    unread = [verdict.question.id for verdict in one.marked.verdicts if verdict.parsed is None]
    if unread and one.benchmark.needs_judge:
        more = f" and {len(unread) - NAMED:,} more" if len(unread) > NAMED else ""
        console.print(
            f"  judge: its reply could not be read on {', '.join(unread[:NAMED])}{more}, which are left out of "
            f"{one.benchmark.headline}",
            markup=False,
            soft_wrap=True,
        )
    if "scores" in told:
        scores = ", ".join(f"{score:.2f}" for score in told["scores"])
        console.print(
            f"  judge: {one.benchmark.headline} of its runs {scores}; deviation {told['deviation']:.2f}",
            markup=False,
            soft_wrap=True,
        )
