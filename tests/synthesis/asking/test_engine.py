"""The engine asks for what is missing, once, within its limits, and does with each trouble what that trouble asks for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.synthesis.asking.teachers import Hurried, Scripted, replied, requests, trouble

from llavakit.synthesis.asking import Account, Budget, Journal, Limits, Price, Prices, run
from llavakit.synthesis.teacher import TeacherError, TeacherReply, TeacherRequest, Trouble, Usage


def ask(
    path: Path, teacher: Any, wanted: Iterable[TeacherRequest], limits: Limits | None = None, **more: Any
) -> Account:
    with Journal(path / "j.sqlite") as journal:
        return asyncio.run(run(wanted, teacher, journal, limits=limits, clock=Hurried(), **more))


def test_every_request_is_answered_once_and_never_again(tmp_path: Path) -> None:
    teacher = Scripted(lambda request, _: replied(request))
    account = ask(tmp_path, teacher, requests(50))
    assert (account.answered, account.calls, account.skipped) == (50, 50, 0)
    account = ask(tmp_path, teacher, requests(60))
    assert (account.answered, account.skipped) == (10, 50)
    assert set(teacher.calls.values()) == {1}


def test_equal_requests_under_way_are_asked_once(tmp_path: Path) -> None:
    teacher = Scripted(lambda request, _: replied(request), seconds=0.001)
    account = ask(tmp_path, teacher, [*requests(3), *requests(3)])
    assert account.answered == 3 and set(teacher.calls.values()) == {1}
    assert account.repeated + account.skipped == 3


def test_requests_are_drawn_when_there_is_room_for_them(tmp_path: Path) -> None:
    drawn = ended = most = 0

    def counted() -> Iterable[TeacherRequest]:
        nonlocal drawn, most
        for request in requests(500):
            drawn += 1
            most = max(most, drawn - ended)
            yield request

    def answer(request: TeacherRequest, _: int) -> TeacherReply:
        nonlocal ended
        ended += 1
        return replied(request)

    ask(tmp_path, Scripted(answer), counted(), Limits(concurrency=10))
    assert drawn == 500 and most <= 12


@pytest.mark.parametrize("kind", [Trouble.RATE_LIMIT, Trouble.OVERLOADED, Trouble.TRANSIENT])
def test_what_may_pass_is_tried_again(tmp_path: Path, kind: Trouble) -> None:
    teacher = Scripted(lambda request, attempt: trouble(kind) if attempt < 3 else replied(request))
    account = ask(tmp_path, teacher, requests(5))
    assert account.answered == 5 and account.troubles[kind.value] == 10


def test_what_never_passes_is_given_up_and_asked_again_by_the_next_run(tmp_path: Path) -> None:
    teacher = Scripted(lambda *_: trouble(Trouble.TRANSIENT))
    account = ask(tmp_path, teacher, requests(2), Limits(attempts=3))
    assert (account.gave_up, account.calls, account.answered) == (2, 6, 0)
    assert ask(tmp_path, Scripted(lambda request, _: replied(request)), requests(2)).answered == 2


def test_a_refused_request_is_never_repeated(tmp_path: Path) -> None:
    teacher = Scripted(lambda *_: trouble(Trouble.REFUSED))
    account = ask(tmp_path, teacher, requests(3))
    assert (account.refused, account.calls) == (3, 3)
    assert ask(tmp_path, teacher, requests(3)).calls == 0
    with Journal(tmp_path / "j.sqlite", read_only=True) as journal:
        stored = journal.stored(next(requests(1)).key)
        assert stored is not None and (stored.reply, stored.trouble) == (None, "refused")


def test_where_nothing_will_work_the_run_stops_and_keeps_what_was_under_way(tmp_path: Path) -> None:
    def script(request: TeacherRequest, _: int) -> TeacherReply | TeacherError:
        return trouble(Trouble.ACCESS) if request.messages[-1].content == "question 1" else replied(request)

    account = ask(tmp_path, Scripted(script, seconds=0.002), requests(100), Limits(concurrency=4))
    assert account.stopped == "access" and account.reason == "it is access"
    assert account.calls < 10 and account.answered == account.calls - 1


def test_a_cut_reply_gets_more_room_once(tmp_path: Path) -> None:
    rooms: list[int] = []

    def script(request: TeacherRequest, _: int) -> TeacherReply:
        rooms.append(request.max_tokens)
        return replied(request, "length")

    account = ask(tmp_path, Scripted(script), requests(1), Limits(more_room=3))
    assert rooms == [100, 300] and (account.cut, account.answered) == (1, 1)
    ask(tmp_path, Scripted(script), requests(1), Limits(more_room=3))
    assert rooms == [100, 300]


def test_a_cut_reply_whose_second_call_was_lost_gets_it_in_the_next_run(tmp_path: Path) -> None:
    only = next(requests(1))
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.keep(journal.begin(only, 100, 0, 0), only.key, replied(only, "length"), 0.0, 0.1)
    rooms: list[int] = []

    def script(request: TeacherRequest, _: int) -> TeacherReply:
        rooms.append(request.max_tokens)
        return replied(request)

    ask(tmp_path, Scripted(script), [only])
    assert rooms == [200]


def test_retry_after_holds_everybody_back(tmp_path: Path) -> None:
    times: list[float] = []

    def script(request: TeacherRequest, attempt: int) -> TeacherReply | TeacherError:
        times.append(asyncio.get_running_loop().time() * 1000)
        first = len(times) == 1
        return trouble(Trouble.RATE_LIMIT, retry_after=40.0) if first else replied(request)

    ask(tmp_path, Scripted(script), requests(5), Limits(concurrency=1))
    assert times[1] - times[0] >= 40


def test_limits_a_minute_are_kept(tmp_path: Path) -> None:
    times: list[float] = []

    def script(request: TeacherRequest, _: int) -> TeacherReply:
        times.append(asyncio.get_running_loop().time() * 1000)
        return replied(request)

    ask(tmp_path, Scripted(script), requests(30), Limits(requests_per_minute=60))
    for start in times:
        assert sum(start <= time < start + 20 for time in times) <= 26  # 20 seconds' worth, and five saved up


@pytest.mark.parametrize("seed", range(5))
def test_the_budget_is_never_exceeded(tmp_path: Path, seed: int) -> None:
    """Billed as a service bills: also for replies that were lost on their way."""
    draw = random.Random(seed)
    price = Price(draw.uniform(0.1, 20), draw.uniform(0.1, 80), 0.1)
    billed = 0.0

    def script(request: TeacherRequest, _: int) -> TeacherReply | TeacherError:
        nonlocal billed
        usage = Usage(draw.randint(1, 8), draw.randint(0, 100))
        billed += price.of(usage)
        if draw.random() < 0.2:
            return trouble(Trouble.TRANSIENT, paid=True)
        return replied(request, usage=usage)

    budget = draw.uniform(20, 200) * price.output / 1e6
    limits = Limits(concurrency=64, budget=Budget(usd=budget))
    for _ in range(3):
        account = ask(
            tmp_path, Scripted(script, seconds=0.001), requests(400), limits, prices=Prices({"m": price})
        )
        assert account.stopped == "budget" and billed <= account.usd <= budget
    assert "of a budget of" in account.reason


def test_a_budget_of_tokens_is_kept_without_prices(tmp_path: Path) -> None:
    teacher = Scripted(lambda request, _: replied(request, usage=Usage(10, 90)))
    account = ask(tmp_path, teacher, requests(100), Limits(budget=Budget(tokens=2000)))
    assert account.stopped == "budget" and 1000 < account.tokens <= 2000


def test_a_run_that_is_asked_to_stop_waits_for_what_is_under_way(tmp_path: Path) -> None:
    async def stopped(journal: Journal) -> Account:
        stop = asyncio.Event()

        def script(request: TeacherRequest, _: int) -> TeacherReply:
            if teacher.calls.total() > 10:
                stop.set()
            return replied(request)

        teacher = Scripted(script, seconds=0.002)
        return await run(requests(1000), teacher, journal, stop=stop)

    with Journal(tmp_path / "j.sqlite") as journal:
        account = asyncio.run(stopped(journal))
        assert account.stopped == "asked to" and account.answered == account.calls == journal.count() < 100
