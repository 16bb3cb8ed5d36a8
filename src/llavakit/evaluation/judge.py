"""A judge, and asking it to the end: through the journal and the engine that synthesis asks with.

Every reply is kept before it is read, so that a run that was ended pays for nothing twice. A reply that cannot be read
is asked for again where the benchmark's rule says how, in rounds, since a judge's next request hangs on its last reply.

Knows requests and replies as text. Knows no benchmark, and marks nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from llavakit.errors import LlavakitError
from llavakit.synthesis.asking import Account, Journal, Limits, Prices, Report, ask_all
from llavakit.synthesis.asking.events import silent
from llavakit.synthesis.teacher import Teacher, TeacherRequest

JOURNAL = "judge.sqlite"
NO_REPLY = "not judged: no reply"
DECLINED = "not judged: the judge declined or said nothing"

Watch = Callable[[str, int], AbstractContextManager[Report]]
"""Watches an asking, by what is asked about and how many requests have no reply yet."""
Again = Callable[[TeacherRequest, int], TeacherRequest | None]
"""What is asked when a reply cannot be read, of the first request and how often was asked; None for no more."""


def unwatched(title: str, missing: int) -> AbstractContextManager[Report]:
    """Nobody looks."""
    return nullcontext(silent)


@dataclass(frozen=True, slots=True)
class Judge:
    """Who judges: by what a user wrote, how it is opened, and under which name it is asked.

    model: in the place of the one that the benchmark pins; "" leaves that. runs: how often every answer is judged.
    prices: to tell the cost; None when it is not wanted. saved: files of replies to read in the place of asking.
    """

    spec: str
    opened: Callable[[], AbstractAsyncContextManager[Teacher]]
    model: str = ""
    runs: int = 1
    limits: Limits = field(default_factory=lambda: Limits(concurrency=16, more_room=1.0))
    prices: Prices | None = None
    watch: Watch = unwatched
    saved: tuple[Path, ...] = ()


@dataclass(slots=True)
class Heard:
    """What a judge said.

    replies: of every run, by question. counts: why others have none, and what was odd. models: as they named
    themselves. last_trouble: of a call without a reply. replied: when, the first time and the last, in UTC. calls,
    tokens, cost: of all that has a reply, whenever it was asked; calls_now: of this process alone.
    """

    replies: list[dict[str, str]]
    counts: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    last_trouble: str = ""
    replied: tuple[str, str] = ("", "")
    calls: int = 0
    calls_now: int = 0
    tokens: int = 0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class _Open:
    run: int
    name: str
    first: TeacherRequest
    request: TeacherRequest
    asked: int = 1


def hear(
    judge: Judge,
    title: str,
    requests: Sequence[Mapping[str, TeacherRequest]],
    folder: Path,
    *,
    unread: Callable[[str, str], bool],
    again: Again | None = None,
) -> Heard:
    """Asks for every reply that `judge.sqlite` below the folder lacks.

    requests: of every run, by question. unread: whether a question's reply says nothing. Raises LlavakitError when the
    judge cannot be asked to the end; what it said until then is kept.
    """
    heard = Heard([{} for _ in requests])
    times: list[str] = []
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / JOURNAL) as journal:
        waiting = [
            _Open(run, name, one, one) for run, some in enumerate(requests) for name, one in some.items()
        ]
        while waiting:
            _ask(judge, title, [one.request for one in waiting], journal, heard)
            further: list[_Open] = []
            for one in waiting:
                stored = journal.stored(one.request.key)
                if stored is None:
                    heard.counts[NO_REPLY] += 1
                    continue
                heard.calls += stored.attempts
                if stored.reply is None:
                    heard.counts[f"not judged: {stored.trouble}"] += 1
                    heard.last_trouble = stored.message
                    continue
                reply = stored.reply
                times.append(stored.at)
                heard.tokens += reply.usage.prompt + reply.usage.completion
                heard.models[reply.model] += 1
                price = judge.prices.of(one.request.model) if judge.prices is not None else None
                heard.cost += price.of(reply.usage) if price is not None else 0.0
                silent_on = bool(reply.refusal) or not reply.text.strip()
                if again is not None and (silent_on or unread(one.name, reply.text)):
                    request = again(one.first, one.asked)
                    if request is not None:
                        heard.counts["replies of the judge that could not be read, asked for again"] += 1
                        further.append(_Open(one.run, one.name, one.first, request, one.asked + 1))
                        continue
                if silent_on and again is None:
                    heard.counts[DECLINED] += 1
                else:
                    heard.replies[one.run][one.name] = reply.text
            waiting = further
    if times:
        heard.replied = min(times), max(times)
    if len(heard.models) > 1:
        heard.counts.update({f"replies of {name}": number for name, number in heard.models.items()})
    return heard


def _ask(
    judge: Judge, title: str, requests: Sequence[TeacherRequest], journal: Journal, heard: Heard
) -> None:
    missing = sum(journal.stored(request.key) is None for request in requests)
    if not missing:
        return
    with judge.watch(title, missing) as report:
        account: Account = ask_all(
            requests, judge.opened(), journal, limits=judge.limits, prices=judge.prices, report=report
        )
    heard.calls_now += account.calls
    heard.last_trouble = account.last_trouble
    if account.stopped:
        kept = sum(journal.stored(request.key) is not None for request in requests)
        raise LlavakitError(
            f"the judge {judge.spec} was not asked to the end: {account.reason.rstrip('.')}; {kept} of "
            f"{len(requests)} replies are kept, give the command again to go on"
        )
