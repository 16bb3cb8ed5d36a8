"""Batches are handed over as files within the limits, found again, and fetched with every line accounted for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from llavakit.errors import LlavakitError
from llavakit.synthesis.endpoint.batch_files import batch_line, read_results, split
from llavakit.synthesis.endpoint.batches import Batches, BatchState
from llavakit.synthesis.endpoint.endpoint import Endpoint
from llavakit.synthesis.endpoint.fake import FakeEndpoint, FakeSettings
from llavakit.synthesis.teacher import Message, TeacherError, TeacherReply, TeacherRequest, Trouble

T = TypeVar("T")


def request(number: int, model: str = "m") -> TeacherRequest:
    return TeacherRequest((Message("user", f"Picture {number}: a dog."),), model=model, seed=number)


REQUESTS = [request(number) for number in range(40)]
LINES = [batch_line(one) for one in REQUESTS]


def with_batches(then: Callable[[Batches, FakeEndpoint], Awaitable[T]], **settings: Any) -> T:
    async def run() -> T:
        async with FakeEndpoint(FakeSettings(**settings)) as fake, Endpoint(fake.url) as endpoint:
            return await then(Batches(endpoint), fake)

    return asyncio.run(run())


async def ended(batches: Batches, state: BatchState) -> BatchState:
    for _ in range(100):
        state = await batches.state(state.id)
        if state.ended:
            return state
        await asyncio.sleep(0.005)
    raise AssertionError(state)


def test_files_hold_one_model_and_stay_within_requests_and_bytes() -> None:
    mixed = [request(number, model) for number in range(10) for model in ("a", "b")]
    files = list(split([*mixed, *mixed], most_requests=4))
    assert [(file.model, len(file.keys)) for file in files] == [
        ("a", 4), ("b", 4), ("a", 4), ("b", 4), ("a", 2), ("b", 2),
    ]  # fmt: skip
    assert sorted(key for file in files for key in file.keys) == sorted(one.key for one in mixed)
    size = len(LINES[10])
    assert [len(file.lines) for file in split(REQUESTS[10:16], most_bytes=2 * size)] == [2, 2, 2]
    for file in files:
        told = [json.loads(line) for line in file.lines]
        assert [line["custom_id"] for line in told] == list(file.keys)
        assert {line["body"]["model"] for line in told} == {file.model}
    with pytest.raises(LlavakitError, match="batch file holds"):
        list(split(REQUESTS, most_bytes=20))


def test_a_batch_comes_back_as_the_same_replies_as_asking_one_by_one() -> None:
    async def run(batches: Batches, fake: FakeEndpoint) -> None:
        begun = await batches.create(LINES, {"run": "7"})
        assert (begun.status, begun.total, begun.metadata) == ("validating", 40, {"run": "7"})
        state = await ended(batches, begun)
        assert (state.status, state.done, state.failed, state.error_file) == ("completed", 40, 0, "")
        results = dict(await batches.results(state))
        assert list(results) == [one.key for one in REQUESTS]
        reply, alone = results[REQUESTS[3].key], await batches.endpoint.reply(REQUESTS[3])
        assert isinstance(reply, TeacherReply)
        assert (reply.text, reply.usage, reply.finish) == (alone.text, alone.usage, alone.finish)
        stats = fake.stats()
        assert stats["paid"] == 41 and stats["batch_lines"] == 40

    with_batches(run)


def test_a_batch_moves_on_with_time_and_what_was_done_of_a_cancelled_one_is_kept() -> None:
    async def run(batches: Batches, fake: FakeEndpoint) -> None:
        begun = await batches.create(LINES, {})
        await asyncio.sleep(0.05)
        under_way = await batches.state(begun.id)
        assert under_way.status == "in_progress" and 0 < under_way.done < 40
        state = await ended(batches, await batches.cancel(begun.id))
        assert state.status == "cancelled"
        results = dict(await batches.results(state))
        kinds = [type(one) for one in results.values()]
        assert len(results) == 40 and kinds.count(TeacherReply) == state.done >= under_way.done
        assert state.done < 40 and fake.stats()["paid"] == state.done
        last = results[REQUESTS[-1].key]
        assert isinstance(last, TeacherError) and "not worked on" in str(last) and not last.paid

    with_batches(run, batch_s=1.0)


def test_what_expired_can_be_handed_over_again_until_nothing_is_missing() -> None:
    async def run(batches: Batches, fake: FakeEndpoint) -> None:
        missing = {one.key: batch_line(one) for one in REQUESTS}
        statuses = []
        while missing:
            state = await ended(batches, await batches.create(list(missing.values()), {}))
            statuses.append(state.status)
            for key, result in await batches.results(state):
                if isinstance(result, TeacherReply):
                    del missing[key]
                else:
                    assert result.trouble is Trouble.TRANSIENT
        assert statuses[0] == "expired" and statuses[-1] == "completed" and len(statuses) > 2
        assert fake.stats()["paid"] == 40

    with_batches(run, batch_expire=0.5)


def test_batches_are_found_again_over_all_pages() -> None:
    async def run(batches: Batches, fake: FakeEndpoint) -> None:
        for number in range(105):
            await batches.create(LINES[:1], {"number": str(number)})
        found = await batches.list()
        assert [state.metadata["number"] for state in found] == [str(n) for n in reversed(range(105))]

    with_batches(run)


def test_lines_that_failed_say_why_as_a_single_request_would() -> None:
    async def run(batches: Batches, fake: FakeEndpoint) -> None:
        state = await ended(batches, await batches.create(LINES, {}))
        assert 0 < state.failed < 40 and state.error_file
        errors = [one for _, one in await batches.results(state) if isinstance(one, TeacherError)]
        assert len(errors) == state.failed and {error.trouble for error in errors} == {Trouble.TRANSIENT}

    with_batches(run, faults={"500": 0.4})


def test_a_batch_that_is_none_fails_with_its_reason() -> None:
    async def run(batches: Batches, fake: FakeEndpoint) -> None:
        for lines, why in (
            ([LINES[0], LINES[0]], "same `custom_id`"),
            ([LINES[0], batch_line(request(1, "other"))], "more than one model"),
            ([b"nonsense\n"], "Line 1"),
        ):
            state = await ended(batches, await batches.create(lines, {}))
            assert state.status == "failed" and why in state.problem
        with pytest.raises(TeacherError, match="404"):
            await batches.state("batch_99")

    with_batches(run)


def test_lines_of_results_are_read_or_told() -> None:
    expired = {"custom_id": "k", "response": None, "error": {"code": "batch_expired", "message": "late"}}
    refused = {"custom_id": "r", "response": {"status_code": 400, "body": {"error": {"message": "bad"}}}}
    broken = {"custom_id": "b", "response": {"status_code": 200, "body": {"choices": []}}}
    text = "\n".join(json.dumps(one) for one in (expired, refused, broken))
    told = dict(read_results(text, at="file-1"))
    troubles = {key: one.trouble for key, one in told.items() if isinstance(one, TeacherError)}
    assert troubles == {"k": Trouble.TRANSIENT, "r": Trouble.REFUSED, "b": Trouble.TRANSIENT}
    for line in ('{"custom_id": "half', "[]", '{"response": null}'):
        with pytest.raises(LlavakitError, match="file-1, line 1"):
            list(read_results(line, at="file-1"))
