"""The engine: asks a teacher for every request that the journal has no answer to, as fast as the teacher bears.

Requests are drawn when there is room for them, so memory does not grow with their number. Every call is set aside in
the budget and noted in the journal before it is sent; its reply is committed before anything else is made of it. What
went wrong decides what is done next: a limit or an overload waits and shrinks the window, a passing fault is tried
again later, a refused request is never repeated, and where nothing will work the run stops.

Knows requests by key. Knows no prompt and no picture, and reads no reply.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from llavakit.synthesis.asking.budget import Purse
from llavakit.synthesis.asking.events import Account, Limits, Report, silent
from llavakit.synthesis.asking.journal import Journal
from llavakit.synthesis.asking.pace import Bucket, Window
from llavakit.synthesis.asking.prices import Prices
from llavakit.synthesis.asking.stored import is_settled
from llavakit.synthesis.teacher import Teacher, TeacherError, TeacherReply, TeacherRequest, Trouble

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0
_REPORT_EVERY = 0.2
_PATIENCE = 5  # times as many calls may find the endpoint overloaded as may fail
_OVERLOAD = (Trouble.RATE_LIMIT, Trouble.OVERLOADED)


class Clock(Protocol):
    """Seconds that only go forward, and how to let them pass."""

    def now(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class LoopClock:
    """The clock of the running event loop."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class _Job:
    request: TeacherRequest
    key: str  # of the request, which takes time to make
    max_tokens: int
    attempts: int = 0  # calls that failed by no fault of their number
    overloads: int = 0  # calls that were too many

    @property
    def sent(self) -> TeacherRequest:
        """The request with the room that it has by now."""
        if self.max_tokens == self.request.max_tokens:
            return self.request
        r = self.request
        return TeacherRequest(r.messages, r.model, r.seed, r.temperature, self.max_tokens, r.schema, r.sample)


async def run(
    requests: Iterable[TeacherRequest],
    teacher: Teacher,
    journal: Journal,
    *,
    limits: Limits | None = None,
    prices: Prices | None = None,
    report: Report = silent,
    stop: asyncio.Event | None = None,
    clock: Clock | None = None,
) -> Account:
    """Ask until every request has an answer, the budget is used up, or `stop` is set.

    What is under way when the run stops is waited for and kept. Returns the account with which the run ended; a
    request that was given up after `limits.attempts` has no answer and is asked again by the next run.
    """
    limits = limits or Limits()
    purse = Purse(limits.budget, prices, *journal.spent())
    engine = _Engine(teacher, journal, limits, purse, report, stop or asyncio.Event(), clock or LoopClock())
    return await engine.run(iter(requests))


class _Engine:
    def __init__(
        self,
        teacher: Teacher,
        journal: Journal,
        limits: Limits,
        purse: Purse,
        report: Report,
        stop: asyncio.Event,
        clock: Clock,
    ) -> None:
        self.teacher, self.journal, self.limits, self.purse = teacher, journal, limits, purse
        self.report, self.stop, self.clock = report, stop, clock
        self.window = Window(limits.concurrency)
        self.calls_a_minute = _bucket(limits.requests_per_minute)
        self.tokens_a_minute = _bucket(limits.tokens_per_minute)
        self.account = Account(usd=purse.usd, tokens=purse.tokens)
        self.under_way: dict[str, asyncio.Task[None]] = {}
        self.later: list[tuple[float, int, _Job]] = []  # a heap by the time at which to try again
        self.keys: set[str] = set()  # of what is under way or waits
        self.number = 0
        self.not_before = -math.inf  # the endpoint asked not to be asked until then
        self.woken = asyncio.Event()
        self.began = self.said = 0.0

    async def run(self, requests: Iterator[TeacherRequest]) -> Account:
        self.began = self.clock.now()
        waiter = asyncio.create_task(self._watch())
        try:
            await self._ask_all(requests)
        finally:
            waiter.cancel()
            for task in self.under_way.values():
                task.cancel()
            await asyncio.gather(*self.under_way.values(), return_exceptions=True)
        self._tell(at_once=True)
        return self.account

    async def _watch(self) -> None:
        await self.stop.wait()
        self._end("asked to", "it was asked to stop")
        self.woken.set()

    async def _ask_all(self, requests: Iterator[TeacherRequest]) -> None:
        waiting: _Job | None = None
        exhausted = False
        while True:
            self.woken.clear()
            failed = next((t for t in self.under_way.values() if t.done() and t.exception()), None)
            if failed is not None:
                failed.result()
            now = self.clock.now()
            stopping = bool(self.account.stopped)
            if waiting is None and not stopping and len(self.under_way) < self.window.calls:
                waiting = self._retry(now)
                if waiting is None and not exhausted:
                    waiting = self._draw(requests)
                    exhausted = waiting is None
            if waiting is not None and not stopping and len(self.under_way) < self.window.calls:
                pause = self._pause(waiting, now)
                if pause <= 0:
                    if self._send(waiting, now):
                        waiting = None
                        continue
                    if not self.under_way:
                        self._end("budget", self._budget_sentence(waiting))
                        continue
                    pause = math.inf
            else:
                pause = math.inf
            if not self.under_way and (stopping or (waiting is None and exhausted and not self.later)):
                return
            if self.later and waiting is None and not stopping:
                pause = min(pause, self.later[0][0] - now)
            await self._wait(pause)

    async def _wait(self, seconds: float) -> None:
        """Until something happens, or at most that long."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.ensure_future(self.woken.wait())
        parts: list[asyncio.Future[Any]] = [woken]
        if math.isfinite(seconds):
            parts.append(asyncio.ensure_future(self.clock.sleep(seconds)))
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
        self._tell()

    def _retry(self, now: float) -> _Job | None:
        if self.later and self.later[0][0] <= now:
            return heapq.heappop(self.later)[2]
        return None

    def _draw(self, requests: Iterator[TeacherRequest]) -> _Job | None:
        """The next request that is not answered yet."""
        for request in requests:
            key = request.key
            if key in self.keys:
                self.account.repeated += 1
                continue
            stored = self.journal.stored(key)
            if is_settled(stored, request, self.limits.more_room):
                self.account.skipped += 1
                continue
            self.keys.add(key)
            room = request.max_tokens
            if stored is not None:  # it was cut, and the call in a larger room never ended
                room = self._larger(room)
            return _Job(request, key, room)
        return None

    def _larger(self, room: int) -> int:
        return max(room + 1, round(room * self.limits.more_room))

    def _pause(self, job: _Job, now: float) -> float:
        """Seconds until a call may go out by what the endpoint said and by the limits a minute."""
        self._heed_headers()
        pauses = [self.not_before - now]
        if self.calls_a_minute is not None:
            pauses.append(self.calls_a_minute.wait(now, 1))
        if self.tokens_a_minute is not None:
            pauses.append(self.tokens_a_minute.wait(now, self.purse.most(job.request, job.max_tokens)[1]))
        return max(pauses)

    def _heed_headers(self) -> None:
        """Take the limits a minute from what the endpoint says of itself, where the user gave none."""
        rate = getattr(self.teacher, "rate", None)
        if rate is None:
            return
        if self.calls_a_minute is None and rate.limit_requests:
            self.calls_a_minute = Bucket(rate.limit_requests)
        if self.tokens_a_minute is None and rate.limit_tokens:
            self.tokens_a_minute = Bucket(rate.limit_tokens)

    def _send(self, job: _Job, now: float) -> bool:
        usd, tokens = self.purse.most(job.request, job.max_tokens)
        if not self.purse.set_aside(usd, tokens):
            return False
        if self.calls_a_minute is not None:
            self.calls_a_minute.take(now, 1)
        if self.tokens_a_minute is not None:
            self.tokens_a_minute.take(now, tokens)
        self.account.calls += 1
        call = self.journal.begin(job.request, job.max_tokens, usd, tokens)
        task = asyncio.create_task(self._call(job, call, (usd, tokens)))
        self.under_way[job.key] = task
        task.add_done_callback(lambda _: self.woken.set())
        return True

    async def _call(self, job: _Job, call: int, aside: tuple[float, int]) -> None:
        began = self.clock.now()
        try:
            reply = await self.teacher.reply(job.sent)
        except TeacherError as error:
            self._troubled(job, call, aside, error)
        else:
            self._answered(job, call, aside, reply, self.clock.now() - began)
        self.under_way.pop(job.key, None)
        self._tell()

    def _answered(
        self, job: _Job, call: int, aside: tuple[float, int], reply: TeacherReply, latency: float
    ) -> None:
        price = self.purse.price(job.request.model)
        usd = price.of(reply.usage) if price is not None else 0.0
        tokens = reply.usage.prompt + reply.usage.completion
        self.journal.keep(call, job.key, reply, usd, latency)
        self.purse.spend(aside, usd, tokens)
        self.purse.learn(job.request, reply.usage)
        if self.tokens_a_minute is not None:
            self.tokens_a_minute.give_back(aside[1] - tokens)
        self.window.on_reply(self.clock.now(), latency)
        room = job.max_tokens
        if reply.finish == "length" and room == job.request.max_tokens and self.limits.more_room > 1:
            self.account.cut += 1
            self._again(_Job(job.request, job.key, self._larger(room)), 0.0)
            return
        self.keys.discard(job.key)
        self.account.answered += 1

    def _troubled(self, job: _Job, call: int, aside: tuple[float, int], error: TeacherError) -> None:
        now, key, trouble = self.clock.now(), job.key, error.trouble
        usd, tokens = aside if error.paid else (0.0, 0)
        self.account.troubles[trouble.value] += 1
        self.account.last_trouble = str(error)
        self.purse.spend(aside, usd, tokens)
        if trouble is Trouble.REFUSED:
            self.journal.refuse(call, key, trouble.value, str(error), usd, tokens)
            self.keys.discard(key)
            self.account.refused += 1
            return
        self.journal.end(call, trouble.value, usd, tokens)
        if trouble is Trouble.ACCESS:
            self._end("access", str(error))
            self.keys.discard(key)
            return
        if trouble in _OVERLOAD:
            job.overloads += 1
            self.window.on_overload(now, len(self.under_way))
            if error.retry_after is not None:
                self.not_before = max(self.not_before, now + error.retry_after)
        else:
            job.attempts += 1
        if job.attempts >= self.limits.attempts or job.overloads >= _PATIENCE * self.limits.attempts:
            self.keys.discard(key)
            self.account.gave_up += 1
            return
        ceiling = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(job.attempts + job.overloads - 1, 10))
        self._again(job, max(random.uniform(0, ceiling), error.retry_after or 0.0))

    def _again(self, job: _Job, seconds: float) -> None:
        self.number += 1
        heapq.heappush(self.later, (self.clock.now() + seconds, self.number, job))

    def _end(self, why: str, sentence: str) -> None:
        if not self.account.stopped:
            self.account.stopped, self.account.reason = why, sentence  # type: ignore[assignment]

    def _budget_sentence(self, job: _Job) -> str:
        usd, tokens = self.purse.most(job.request, job.max_tokens)
        budget = self.purse.budget
        if budget.usd is not None and self.purse.usd + usd > budget.usd:
            return (
                f"{self.purse.usd:.4f} of a budget of {budget.usd:g} are spent, and the next call may cost "
                f"{usd:.4f}"
            )
        return (
            f"{self.purse.tokens:,} of a budget of {budget.tokens:,} tokens are spent, and the next call may take "
            f"{tokens:,}"
        )

    def _tell(self, at_once: bool = False) -> None:
        now = self.clock.now()
        if not at_once and now - self.said < _REPORT_EVERY:
            return
        self.said = now
        account = self.account
        account.usd, account.tokens = self.purse.usd, self.purse.tokens
        account.under_way, account.window = len(self.under_way), self.window.calls
        account.seconds, account.waiting_s = now - self.began, max(0.0, self.not_before - now)
        self.report(account)


def _bucket(per_minute: float | None) -> Bucket | None:
    return Bucket(per_minute) if per_minute is not None else None
