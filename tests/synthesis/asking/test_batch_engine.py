"""Batch mode: every request is answered, none is paid twice, whatever a batch leaves undone and whenever a run ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.synthesis.asking.teachers import Hurried, requests

from llavakit.synthesis.asking import Account, Budget, Journal, Limits, Price, Prices
from llavakit.synthesis.asking.batch_engine import Shape, run_batches
from llavakit.synthesis.endpoint.batches import Batches, BatchState
from llavakit.synthesis.endpoint.endpoint import Endpoint
from llavakit.synthesis.endpoint.fake import FakeEndpoint, FakeSettings
from llavakit.synthesis.teacher import TeacherError, TeacherReply, Trouble

SHAPE = Shape(most_requests=10)


class Killed(BaseException):
    """The end of a process, as far as a test can have it."""


class Dying(Batches):
    """Ends the process when a batch has been begun, before anybody hears of it."""

    async def create(self, lines: Sequence[bytes], metadata: Mapping[str, str]) -> BatchState:
        await super().create(lines, metadata)
        raise Killed


class Doubtful(Batches):
    """The first batch is begun, and the answer lost."""

    lost = False

    async def create(self, lines: Sequence[bytes], metadata: Mapping[str, str]) -> BatchState:
        state = await super().create(lines, metadata)
        if not self.lost:
            self.lost = True
            raise TeacherError(Trouble.TRANSIENT, "the connection was cut", paid=True)
        return state


class Unread(Batches):
    """Replies of a batch that were paid for and cannot be read."""

    async def results(self, state: BatchState) -> Iterator[tuple[str, TeacherReply | TeacherError]]:
        unread = TeacherError(Trouble.TRANSIENT, "half a JSON", paid=True)
        return iter([(key, unread) for key, _ in await super().results(state)])


class Misshapen(Batches):
    """Hands over files that the service cannot read."""

    async def create(self, lines: Sequence[bytes], metadata: Mapping[str, str]) -> BatchState:
        return await super().create([b"nonsense\n"], metadata)


def rehearse(
    settings: FakeSettings, path: Path, act: Callable[[Endpoint, Journal], Awaitable[Any]]
) -> tuple[Any, dict[str, Any]]:
    """What `act` gives, with a journal and an endpoint to a fake one, and the fake one's books."""

    async def inside() -> tuple[Any, dict[str, Any]]:
        async with FakeEndpoint(settings) as fake, Endpoint(fake.url) as endpoint:
            with Journal(path / "j.sqlite") as journal:
                found = await act(endpoint, journal)
            return found, fake.stats(keys=False)

    return asyncio.run(inside())


def asked(
    number: int = 35, kind: type[Batches] = Batches, **more: Any
) -> Callable[[Endpoint, Journal], Awaitable[Account]]:
    async def act(endpoint: Endpoint, journal: Journal) -> Account:
        wanted = lambda: requests(number, model="fake-teacher")  # noqa: E731
        return await run_batches(wanted, kind(endpoint), journal, shape=SHAPE, clock=Hurried(), **more)

    return act


def test_every_request_is_answered_once(tmp_path: Path) -> None:
    async def twice(endpoint: Endpoint, journal: Journal) -> tuple[Account, Account, int]:
        return await asked()(endpoint, journal), await asked()(endpoint, journal), journal.count()

    (first, second, kept), books = rehearse(FakeSettings(batch_s=0.02), tmp_path, twice)
    assert (first.answered, first.calls, second.skipped, kept) == (35, 35, 35, 35)
    assert first.skipped == second.answered == 0
    assert books["batches"] == 4 and books["paid"] == 35 and books["paid_again"] == 0


def test_what_a_batch_leaves_undone_goes_into_the_next(tmp_path: Path) -> None:
    account, books = rehearse(FakeSettings(batch_expire=0.5), tmp_path, asked(limits=Limits(attempts=20)))
    assert account.answered == 35 and account.troubles.total() > 0
    assert books["batches"] > 4 and books["paid_again"] == 0


def test_a_cut_reply_gets_more_room_in_a_further_batch_once(tmp_path: Path) -> None:
    account, _ = rehearse(FakeSettings(faults={"truncated": 1.0}), tmp_path, asked(5))
    assert (account.answered, account.cut, account.calls) == (5, 5, 10)


def test_a_batch_of_a_run_that_was_killed_is_adopted(tmp_path: Path) -> None:
    async def killed_and_resumed(endpoint: Endpoint, journal: Journal) -> Account:
        wanted = lambda: requests(35, model="fake-teacher")  # noqa: E731
        with pytest.raises(Killed):
            await run_batches(wanted, Dying(endpoint), journal, shape=SHAPE, clock=Hurried())
        assert journal.open_batches()[0][1] == ""  # nobody knows its name
        return await asked()(endpoint, journal)

    account, books = rehearse(FakeSettings(), tmp_path, killed_and_resumed)
    assert account.answered == 35 and books["paid"] == 35 and books["batches"] == 4


def test_a_batch_whose_begin_is_in_doubt_is_looked_for_before_it_is_begun_again(tmp_path: Path) -> None:
    async def doubtful(endpoint: Endpoint, journal: Journal) -> Account:
        wanted = lambda: requests(35, model="fake-teacher")  # noqa: E731
        return await run_batches(wanted, Doubtful(endpoint), journal, shape=SHAPE, clock=Hurried())

    account, books = rehearse(FakeSettings(), tmp_path, doubtful)
    assert account.answered == 35 and books["paid"] == 35 and books["batches"] == 4


def test_a_run_that_is_asked_to_stop_leaves_its_batches_to_the_service(tmp_path: Path) -> None:
    async def stopped_and_resumed(endpoint: Endpoint, journal: Journal) -> tuple[Account, Account]:
        stop = asyncio.Event()
        report = lambda account: stop.set() if account.under_way == 35 else None  # noqa: E731
        first = await asked(stop=stop, report=report)(endpoint, journal)
        return first, await asked()(endpoint, journal)

    (first, second), books = rehearse(FakeSettings(batch_s=1.0), tmp_path, stopped_and_resumed)
    assert first.stopped == "asked to" and "4 batches go on" in first.reason
    assert first.answered + second.answered == 35 and books["paid_again"] == 0
    assert second.answered + second.skipped == 35  # what was adopted is none that was there


def test_a_run_that_is_asked_to_stop_hands_nothing_over_any_more(tmp_path: Path) -> None:
    stop = asyncio.Event()
    report = lambda account: stop.set() if account.under_way else None  # noqa: E731
    account, books = rehearse(FakeSettings(batch_s=60), tmp_path, asked(stop=stop, report=report))
    assert account.stopped == "asked to" and books["batches"] == 1


def test_a_batch_is_never_taken_for_an_earlier_one_of_the_same_requests(tmp_path: Path) -> None:
    async def thrice(endpoint: Endpoint, journal: Journal) -> tuple[Account, list[BatchState]]:
        once = Limits(attempts=1)
        await asked(5, limits=once)(endpoint, journal)
        with pytest.raises(Killed):
            await asked(5, Dying)(endpoint, journal)
        return await asked(5, limits=once)(endpoint, journal), await Batches(endpoint).list()

    (account, batches), _ = rehearse(FakeSettings(batch_expire=1.0), tmp_path, thrice)
    assert len({state.metadata["llavakit_shard"] for state in batches}) == len(batches) == 2
    assert account.gave_up == 5 and account.troubles["transient"] == 5


def test_a_reply_that_was_paid_for_and_is_lost_counts_as_all_that_was_set_aside(tmp_path: Path) -> None:
    prices = Prices({"fake-teacher": Price(1.0, 4.0, 1.0, batch=0.5)})
    account, books = rehearse(
        FakeSettings(), tmp_path, asked(5, Unread, prices=prices, limits=Limits(attempts=1))
    )
    billed = (books["prompt_tokens"] * 1.0 + books["completion_tokens"] * 4.0) * 0.5 / 1e6
    assert account.gave_up == 5 and account.usd >= billed > 0


def test_where_the_service_takes_no_batch_the_run_ends_and_says_why(tmp_path: Path) -> None:
    account, books = rehearse(FakeSettings(), tmp_path, asked(35, Misshapen))
    assert account.stopped == "access" and "Line 1 is no request" in account.reason
    assert books["batches"] == 4 and account.usd == 0


def test_the_budget_holds_at_the_batch_price_and_what_was_set_aside_too_much_is_used(tmp_path: Path) -> None:
    price = Price(1.0, 4.0, 1.0, batch=0.5)
    prices = Prices({"fake-teacher": price})
    budget = 6 * price.most(40, 100, in_batch=True)
    account, books = rehearse(
        FakeSettings(), tmp_path, asked(200, limits=Limits(budget=Budget(usd=budget)), prices=prices)
    )
    billed = (books["prompt_tokens"] * 1.0 + books["completion_tokens"] * 4.0) * 0.5 / 1e6
    assert account.stopped == "budget" and account.usd == pytest.approx(billed)
    assert billed <= budget and account.answered > 6
