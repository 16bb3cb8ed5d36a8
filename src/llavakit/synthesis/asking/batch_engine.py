"""The engine in batch mode: requests are handed over by the ten thousand, and fetched when the service is done.

It goes in rounds. A round takes in what batches have ended, then hands over whatever still has no answer: what is new,
what a batch left undone, what was cut and gets more room. All that it knows stands in the journal, so a run that was
killed goes on where it was, and a batch that it had begun is found by its metadata and adopted, never begun again.

Knows requests by key, and batches as a service tells of them. Knows no prompt and reads no reply.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeVar

from llavakit.synthesis.asking.budget import Purse
from llavakit.synthesis.asking.engine import Clock, LoopClock
from llavakit.synthesis.asking.events import Account, Limits, Report, silent
from llavakit.synthesis.asking.journal import Journal
from llavakit.synthesis.asking.prices import Prices
from llavakit.synthesis.asking.stored import is_settled
from llavakit.synthesis.endpoint.batch_files import MOST_BYTES, MOST_REQUESTS, split
from llavakit.synthesis.endpoint.batches import BatchState
from llavakit.synthesis.endpoint.chat_format import TokenField
from llavakit.synthesis.teacher import TeacherError, TeacherReply, TeacherRequest, Trouble

JOURNAL, SHARD = "llavakit_journal", "llavakit_shard"  # of a batch's metadata
_FIRST_POLL, _LONGEST_POLL = 1.0, 60.0
T = TypeVar("T")


class Service(Protocol):
    """What runs batches, as `endpoint.batches.Batches` does."""

    async def create(self, lines: Sequence[bytes], metadata: Mapping[str, str]) -> BatchState: ...

    async def list(self) -> list[BatchState]: ...

    async def state(self, id: str) -> BatchState: ...

    async def results(self, state: BatchState) -> Iterator[tuple[str, TeacherReply | TeacherError]]: ...


@dataclass(frozen=True, slots=True)
class Shape:
    """What a batch file may hold, and the name of the limit of tokens in it."""

    most_requests: int = MOST_REQUESTS
    most_bytes: int = MOST_BYTES
    token_field: TokenField = "max_tokens"


async def run_batches(
    requests: Callable[[], Iterable[TeacherRequest]],
    service: Service,
    journal: Journal,
    *,
    limits: Limits | None = None,
    prices: Prices | None = None,
    report: Report = silent,
    stop: asyncio.Event | None = None,
    shape: Shape | None = None,
    clock: Clock | None = None,
) -> Account:
    """Go in rounds until every request has an answer or was given up, the budget is used up, or `stop` is set.

    Args:
        requests: all of them, anew each time it is called.

    A run that is stopped leaves its batches to the service; the next one adopts them.
    """
    limits = limits or Limits()
    purse = Purse(limits.budget, prices, *journal.spent())
    engine = _BatchEngine(
        service, journal, limits, purse, report, stop or asyncio.Event(), clock or LoopClock()
    )
    return await engine.run(requests, shape or Shape())


@dataclass(slots=True)
class _BatchEngine:
    service: Service
    journal: Journal
    limits: Limits
    purse: Purse
    report: Report
    stop: asyncio.Event
    clock: Clock
    account: Account = field(default_factory=Account)
    attempts: Counter[str] = field(default_factory=Counter)  # of requests that came back without an answer
    short: bool = False  # whether the budget did not reach for all that is missing
    adopted: int = (
        0  # requests that were answered or refused by batches of an earlier run, until they are met
    )
    untaken: str = ""  # why the service took none of the round's batches
    rounds: int = 0  # in which all that is missing was gone through
    failures: int = 0  # calls to the service in a row that failed
    began: float = 0.0

    async def run(self, requests: Callable[[], Iterable[TeacherRequest]], shape: Shape) -> Account:
        self.began = self.clock.now()
        try:
            await self._adopt()
            while True:
                await self._wait()
                if self.untaken:  # the next would fare no better
                    self._end("access", f"the service took none of the batches: {self.untaken}")
                if self.account.stopped:
                    break
                if self.rounds == 0:
                    self.adopted = self.account.answered + self.account.refused
                self.short = False
                begun = await self._hand_over(requests(), shape)
                self.rounds += 1
                if not begun:
                    if self.short:
                        spent = f"{self.purse.usd:.4f} and {self.purse.tokens:,} tokens are spent"
                        self._end("budget", f"{spent}, and the next request may cost more than is left")
                    break
        except TeacherError as error:
            if self.stop.is_set():
                self._end("asked to", f"it was asked to stop; before that: {error}")
            self._end("access", str(error))
        self._tell()
        return self.account

    async def _adopt(self) -> None:
        """Find the batches that an earlier run began, by what it noted or by their metadata."""
        opened = self.journal.open_batches()
        if not opened:
            return
        theirs = {
            state.metadata.get(SHARD, ""): state.id
            for state in await self._patiently(self.service.list)
            if state.metadata.get(JOURNAL) == self.journal.id
        }
        for shard, service_id, _ in opened:
            if shard in theirs:
                self.journal.note_batch(shard, theirs[shard], "begun")
            elif not service_id:
                self._drop(shard, "never handed over")

    def _drop(self, shard: str, outcome: str) -> None:
        """A shard that the service does not have: its calls cost nothing."""
        for call in self.journal.calls_of_batch(shard).values():
            self.journal.end(call, outcome, 0.0, 0)
        self.journal.note_batch(shard, "", "done")

    async def _wait(self) -> None:
        """Until all batches have ended and are taken in, or the run is to stop."""
        pause, taken, self.untaken = _FIRST_POLL, 0, ""
        while opened := self.journal.open_batches():
            ended = 0
            for shard, service_id, keys in opened:
                state = await self._patiently(partial(self.service.state, service_id))
                if state.ended:
                    await self._take_in(shard, state, keys)
                    ended += 1
                    if state.status == "failed":
                        self.untaken = state.problem or f"{state.id} failed"
                    else:
                        taken += 1
            self._tell()
            if self.stop.is_set():
                left = self.journal.open_batches()
                self._end(
                    "asked to",
                    f"it was asked to stop; {len(left)} batches go on, and the next run fetches them",
                )
                return
            if taken:
                self.untaken = ""
            if ended == len(opened):
                return
            await self._sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL)
        if self.stop.is_set():
            self._end("asked to", "it was asked to stop")

    async def _take_in(self, shard: str, state: BatchState, keys: Mapping[str, str]) -> None:
        calls = self.journal.calls_of_batch(shard)
        for sent, outcome in await self._patiently(partial(self.service.results, state)):
            key = keys.get(sent)
            call = calls.pop(key, None) if key is not None else None
            if key is None or call is None:
                continue  # a line that stands twice, or was taken in before a kill
            if isinstance(outcome, TeacherReply):
                self._keep(key, call, outcome)
            elif outcome.trouble is Trouble.REFUSED:
                self.journal.refuse(call, key, outcome.trouble.value, str(outcome), 0.0, 0)
                self._troubled(outcome)
                self.account.refused += 1
            else:
                if outcome.paid:  # by how much is not told, so what was set aside counts as spent
                    self.journal.end(call, outcome.trouble.value)
                else:
                    self.journal.end(call, outcome.trouble.value, 0.0, 0)
                self._troubled(outcome)
                self.attempts[key] += 1
        for key, call in calls.items():
            self.journal.end(call, "not worked on", 0.0, 0)
            self.attempts[key] += 1
            self.account.troubles["not worked on"] += 1
            self.account.last_trouble = state.problem or f"the batch {state.id} ended as {state.status}"
        self.journal.note_batch(shard, state.id, "done")
        self.purse.usd, self.purse.tokens = self.journal.spent()

    def _keep(self, key: str, call: int, reply: TeacherReply) -> None:
        identity = self.journal.identity(key) or {}
        price = self.purse.price(str(identity.get("model", "")))
        usd = price.of(reply.usage, in_batch=True) if price is not None else 0.0
        self.journal.keep(call, key, reply, usd, 0.0)
        if reply.finish == "length" and self._asked_again(key, identity):
            self.account.cut += 1
        else:
            self.account.answered += 1

    def _asked_again(self, key: str, identity: Mapping[str, object]) -> bool:
        stored = self.journal.stored(key)
        first = identity.get("max_tokens")
        return stored is not None and stored.sent_max_tokens == first and self.limits.more_room > 1

    def _troubled(self, error: TeacherError) -> None:
        self.account.troubles[error.trouble.value] += 1
        self.account.last_trouble = str(error)
        if error.trouble is Trouble.ACCESS:
            self._end("access", str(error))

    async def _hand_over(self, requests: Iterable[TeacherRequest], shape: Shape) -> bool:
        """Begin batches of all that has no answer. False when there is nothing to hand over."""
        self.account.gave_up = 0
        originals: dict[str, TeacherRequest] = {}  # by the key under which they are sent
        begun = 0
        files = split(
            self._missing(requests, originals),
            token_field=shape.token_field,
            most_requests=shape.most_requests,
            most_bytes=shape.most_bytes,
        )
        for file in files:
            if self.stop.is_set():
                return True
            keys = {sent: originals[sent].key for sent in file.keys}
            rooms = {sent: self._room(originals[sent]) for sent in file.keys}
            shard = secrets.token_hex(16)  # never that of an earlier batch of the same requests
            self.journal.plan_batch(shard, keys)
            for sent in file.keys:
                usd, tokens = self.purse.most(originals[sent], rooms[sent], in_batch=True)
                self.journal.begin(originals[sent], rooms[sent], usd, tokens, shard)
                self.account.calls += 1
            state = await self._begin(shard, file.lines)
            self.journal.note_batch(shard, state.id, "begun")
            begun += 1
            for sent in file.keys:
                del originals[sent]
            self._tell()
        return begun > 0

    async def _begin(self, shard: str, lines: Sequence[bytes]) -> BatchState:
        """Begin a batch. When it is not known whether that worked, the service is asked before it is tried again."""
        metadata = {JOURNAL: self.journal.id, SHARD: shard}

        async def attempt() -> BatchState:
            if self.failures:
                for state in await self.service.list():
                    if state.metadata.get(SHARD) == shard:
                        return state
            return await self.service.create(lines, metadata)

        return await self._patiently(attempt)

    def _missing(
        self, requests: Iterable[TeacherRequest], originals: dict[str, TeacherRequest]
    ) -> Iterator[TeacherRequest]:
        """Requests without an answer, with the room they get, as far as the budget reaches."""
        for request in requests:
            key = request.key
            if is_settled(self.journal.stored(key), request, self.limits.more_room):
                self._skip()
                continue
            if self.attempts[key] >= self.limits.attempts:
                self.account.gave_up += 1
                continue
            room = self._room(request)
            most = self.purse.most(request, room, in_batch=True)
            if not self.purse.set_aside(*most):
                self.short = True
                return
            self.purse.spend(most, *most)  # as the journal has it until the batch is taken in
            sent = replace(request, max_tokens=room)
            originals[sent.key] = request
            yield sent

    def _skip(self) -> None:
        """Count a request that was answered before this run; later rounds meet this run's own answers too."""
        if self.rounds == 0:
            if self.adopted > 0:
                self.adopted -= 1
            else:
                self.account.skipped += 1

    def _room(self, request: TeacherRequest) -> int:
        stored = self.journal.stored(request.key)
        if stored is None or self.limits.more_room <= 1:
            return request.max_tokens
        return max(request.max_tokens + 1, round(request.max_tokens * self.limits.more_room))

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """A call to the service, tried again while what went wrong may pass."""
        while True:
            try:
                found = await ask()
            except TeacherError as error:
                self._count(error)
                hopeless = error.trouble in (Trouble.ACCESS, Trouble.REFUSED)
                if hopeless or self.stop.is_set() or self.failures >= self.limits.attempts:
                    raise
                await self._sleep(max(error.retry_after or 0.0, _FIRST_POLL * 2**self.failures))
            else:
                self.failures = 0
                return found

    def _count(self, error: TeacherError) -> None:
        self.failures += 1
        self.account.troubles[error.trouble.value] += 1
        self.account.last_trouble = str(error)

    async def _sleep(self, seconds: float) -> None:
        """That long, or until the run is to stop."""
        stopped, slept = (
            asyncio.ensure_future(self.stop.wait()),
            asyncio.ensure_future(self.clock.sleep(seconds)),
        )
        await asyncio.wait((stopped, slept), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        slept.cancel()

    def _end(self, why: str, sentence: str) -> None:
        if not self.account.stopped:
            self.account.stopped, self.account.reason = why, sentence  # type: ignore[assignment]

    def _tell(self) -> None:
        account = self.account
        account.usd, account.tokens = self.purse.usd, self.purse.tokens
        account.under_way = account.window = sum(len(keys) for _, _, keys in self.journal.open_batches())
        account.seconds = self.clock.now() - self.began
        self.report(account)
