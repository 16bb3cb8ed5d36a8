"""A fake endpoint keeps its capacity, serves the faults it was told to, and books every request exactly."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from typing import Any

import httpx2
import pytest

from llavakit.errors import LlavakitError
from llavakit.synthesis.endpoint.chat_format import chat_body
from llavakit.synthesis.endpoint.endpoint import Endpoint
from llavakit.synthesis.endpoint.fake import FakeEndpoint, FakeServer, FakeSettings
from llavakit.synthesis.endpoint.fake.allowances import Allowance
from llavakit.synthesis.endpoint.fake.fate import draw, key_of
from llavakit.synthesis.teacher import Message, TeacherError, TeacherReply, TeacherRequest, Trouble

SYMBOLS = "A dog sits beside a red chair.\nA brown dog in a room.\n\ndog: [0.1, 0.5, 0.3, 0.9]\nchair: [0.6, 0.4, 0.9, 0.9]"


def request(number: int = 0, **settings: Any) -> TeacherRequest:
    return TeacherRequest((Message("user", SYMBOLS),), model="m", seed=number, **settings)


def ask(
    settings: FakeSettings, requests: list[TeacherRequest], timeout_s: float = 5.0, at_once: int = 1000
) -> tuple[list[TeacherReply | TeacherError], dict[str, Any], Endpoint]:
    """What came back for each, the server's books, and the endpoint that asked."""

    async def run() -> tuple[list[TeacherReply | TeacherError], dict[str, Any], Endpoint]:
        turns = asyncio.Semaphore(at_once)

        async def one(endpoint: Endpoint, request: TeacherRequest) -> TeacherReply | TeacherError:
            async with turns:
                try:
                    return await endpoint.reply(request)
                except TeacherError as error:
                    return error

        async with (
            FakeEndpoint(settings) as fake,
            Endpoint(fake.url, key=settings.key, timeout_s=timeout_s) as endpoint,
        ):
            replies = await asyncio.gather(*(one(endpoint, request) for request in requests))
            return list(replies), fake.stats(), endpoint

    return asyncio.run(run())


def told(fault: str, **settings: Any) -> tuple[TeacherReply | TeacherError, dict[str, Any]]:
    replies, stats, _ = ask(FakeSettings(faults={fault: 1.0}, **settings), [request()], timeout_s=0.3)
    assert stats["faults"] == {fault: 1}
    return replies[0], stats


def test_slots_bound_the_work_and_the_rest_waits_in_line() -> None:
    _, stats, _ = ask(FakeSettings(slots=3, latency_s=0.1), [request(n) for n in range(12)])
    assert stats["most_busy"] == 3 and stats["most_at_once"] == 12 and stats["most_waiting"] == 9
    assert stats["paid"] == stats["answered"] == 12
    assert 12 * 0.09 < stats["busy_slot_s"] <= 3 * stats["elapsed_s"]
    assert 0.5 < stats["utilisation"] <= 1


def test_who_leaves_the_line_takes_no_slot_and_costs_nothing() -> None:
    async def run() -> None:
        async with (
            FakeEndpoint(FakeSettings(slots=1, latency_s=0.15)) as fake,
            Endpoint(fake.url) as patient,
            Endpoint(fake.url, timeout_s=0.05) as hasty,
        ):
            first = asyncio.create_task(patient.reply(request(1)))
            await asyncio.sleep(0.02)
            with pytest.raises(TeacherError, match="whole answer"):
                await hasty.reply(request(2))
            await asyncio.gather(first, patient.reply(request(3)))
            stats = fake.stats()
        assert (stats["left_waiting"], stats["paid"], stats["answered"], stats["busy"]) == (1, 2, 2, 0)
        assert key_of(chat_body(request(2))) not in stats["paid_by_key"]

    asyncio.run(run())


def test_no_more_connections_are_opened_than_asked_for_and_open_ones_are_used_again() -> None:
    async def run() -> None:
        async with (
            FakeEndpoint(FakeSettings(latency_s=0.002)) as fake,
            Endpoint(fake.url, connections=19) as endpoint,
        ):
            for at_once in (60, 60, 1):
                await asyncio.gather(*(endpoint.reply(request(n)) for n in range(at_once)))
            stats = fake.stats()
            assert stats["answered"] == 121 and 17 <= stats["most_at_once"] <= 19
            assert len(fake.connections) == stats["most_at_once"]

    asyncio.run(run())


@pytest.mark.parametrize(("status", "trouble"), [(429, Trouble.RATE_LIMIT), (503, Trouble.OVERLOADED)])
def test_beyond_the_slots_requests_are_rejected_where_so_asked(status: Any, trouble: Trouble) -> None:
    settings = FakeSettings(
        slots=2, latency_s=0.2, overload="reject", reject_status=status, retry_after_s=0.25
    )
    replies, stats, _ = ask(settings, [request(n) for n in range(5)])
    errors = [reply for reply in replies if isinstance(reply, TeacherError)]
    assert len(errors) == stats["rejected"] == 3 and stats["paid"] == 2
    assert {(error.trouble, error.retry_after) for error in errors} == {(trouble, 0.25)}


@pytest.mark.parametrize(
    ("fault", "trouble", "paid"),
    [
        ("429", Trouble.RATE_LIMIT, 0),
        ("500", Trouble.TRANSIENT, 0),
        ("503", Trouble.OVERLOADED, 0),
        ("silence", Trouble.TRANSIENT, 1),
        ("cut", Trouble.TRANSIENT, 1),
        ("broken-body", Trouble.TRANSIENT, 1),
    ],
)
def test_a_fault_on_the_way_is_an_error_that_knows_whether_it_cost(
    fault: str, trouble: Trouble, paid: int
) -> None:
    error, stats = told(fault)
    assert isinstance(error, TeacherError)
    assert error.trouble is trouble and error.paid == bool(paid)
    assert stats["paid"] == paid and stats["received"] == 1


def test_a_fault_in_what_is_written_is_a_reply_that_was_paid_for() -> None:
    def written(fault: str) -> TeacherReply:
        reply, stats = told(fault)
        assert isinstance(reply, TeacherReply) and stats["paid"] == 1
        return reply

    assert written("truncated").finish == "length"
    assert "sorry" in written("refusal").text.lower() or "cannot" in written("refusal").text
    assert (written("content-filter").finish, written("content-filter").text) == ("content_filter", "")
    assert (written("empty").finish, written("empty").text) == ("stop", "")
    assert "Question:" not in written("malformed").text


def test_a_slow_request_takes_its_time() -> None:
    start = time.monotonic()
    told("slow", latency_s=0.01, slow_factor=8)
    assert time.monotonic() - start > 0.075


def test_the_same_request_meets_the_same_fate_and_another_attempt_another_one() -> None:
    settings = FakeSettings(seed=3, faults={"500": 0.5, "empty": 0.5})
    fates = [draw(settings, f"k{n}", attempt, seeded=True) for n in range(200) for attempt in (1, 2)]
    again = [draw(settings, f"k{n}", attempt, seeded=True) for n in range(200) for attempt in (1, 2)]
    assert [(f.way, f.written) for f in fates] == [(f.way, f.written) for f in again]
    assert 60 < sum(a.way != b.way for a, b in zip(fates[::2], fates[1::2], strict=True)) < 140
    assert all(a.written == b.written for a, b in zip(fates[::2], fates[1::2], strict=True))
    unseeded = [
        draw(settings, f"k{n}", attempt, seeded=False).written for n in range(200) for attempt in (1, 2)
    ]
    assert unseeded[::2] != unseeded[1::2]
    rates = Counter(fate.way for fate in fates)
    assert 150 < rates["500"] < 250


def test_replies_depend_on_the_request_and_not_on_the_attempt() -> None:
    replies, stats, _ = ask(FakeSettings(), [request(1), request(1), request(2)], at_once=1)
    texts = [reply.text for reply in replies if isinstance(reply, TeacherReply)]
    assert texts[0] == texts[1] != texts[2]
    assert stats["different"] == 2 and stats["paid_again"] == 1
    assert stats["paid_by_key"] == {key_of(chat_body(request(1))): 2, key_of(chat_body(request(2))): 1}


def test_usage_is_billed_and_a_reply_ends_at_its_limit_of_tokens() -> None:
    (short, whole), stats, _ = ask(FakeSettings(), [request(max_tokens=5), request()])
    assert isinstance(short, TeacherReply) and isinstance(whole, TeacherReply)
    assert (short.finish, short.usage.completion, len(short.text)) == ("length", 5, 20)
    assert whole.finish == "stop" and whole.usage.prompt == -(-len(SYMBOLS) // 4)
    assert stats["completion_tokens"] == 5 + whole.usage.completion
    assert stats["prompt_tokens"] == 2 * whole.usage.prompt


def test_limits_a_minute_answer_429_and_tell_where_they_stand() -> None:
    replies, stats, endpoint = ask(
        FakeSettings(requests_per_minute=3), [request(n) for n in range(5)], at_once=1
    )
    kinds = [type(reply) for reply in replies]
    assert kinds == [TeacherReply] * 3 + [TeacherError] * 2
    assert stats["rate_limited"] == 2 and stats["paid"] == 3
    last = replies[-1]
    assert isinstance(last, TeacherError) and last.trouble is Trouble.RATE_LIMIT
    assert last.retry_after is not None and 15 < last.retry_after <= 20
    assert (
        endpoint.rate is not None
        and endpoint.rate.limit_requests == 3
        and endpoint.rate.remaining_requests == 0
    )


def test_an_allowance_fills_up_with_time() -> None:
    now = [0.0]
    allowance = Allowance("tokens", 60, clock=lambda: now[0])
    allowance.use(60)
    assert allowance.lacking_s(10) == pytest.approx(10)
    now[0] = 7.0
    assert allowance.lacking_s(10) == pytest.approx(3)
    assert allowance.headers()["x-ratelimit-remaining-tokens"] == "7"
    now[0] = 1000.0
    assert allowance.lacking_s(10_000) == 0  # more than ever fits is let through


def test_a_key_is_asked_for_and_unknown_places_are_told() -> None:
    settings = FakeSettings(key="right")

    async def run() -> None:
        async with FakeEndpoint(settings) as fake:
            async with Endpoint(fake.url, key="wrong") as endpoint:
                with pytest.raises(TeacherError, match="key") as caught:
                    await endpoint.reply(request())
                assert caught.value.trouble is Trouble.ACCESS
            async with Endpoint(fake.url, key="right") as endpoint:
                assert await endpoint.models() == ["fake-teacher"]
                with pytest.raises(TeacherError, match="nothing at GET /v1/nowhere"):
                    await endpoint.send("GET", "/nowhere")

    asyncio.run(run())


def test_chunked_pipelined_and_broken_requests_are_understood() -> None:
    body = json.dumps(chat_body(request())).encode()

    async def talk(url: str, sent: bytes) -> bytes:
        host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for at in range(0, len(sent), 50):
            writer.write(sent[at : at + 50])
            await writer.drain()
        got = await reader.read()
        writer.close()
        return got

    def head(*lines: str) -> bytes:
        return "\r\n".join(["POST /v1/chat/completions HTTP/1.1", *lines]).encode() + b"\r\n\r\n"

    async def run() -> None:
        async with FakeEndpoint() as fake:
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:30], body[30:]))
            chunked = head("transfer-encoding: chunked", "connection: close") + chunks + b"0\r\n\r\n"
            assert b"200 OK" in await talk(fake.url, chunked)
            two = head(f"content-length: {len(body)}") + body
            last = head(f"content-length: {len(body)}", "connection: close") + body
            assert (await talk(fake.url, two + last)).count(b"200 OK") == 2
            assert b"400 Bad" in await talk(fake.url, b"nonsense\r\n\r\n")
            assert b"400 Bad" in await talk(fake.url, head("content-length: many"))
            assert b"no JSON" in await talk(fake.url, head("content-length: 2", "connection: close") + b"{[")

    asyncio.run(run())


def test_a_server_in_a_thread_answers_and_leaves_its_books_and_no_port() -> None:
    with FakeServer(FakeSettings(faults={"silence": 1.0})) as fake:
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(
                f"{fake.url}/chat/completions", json=chat_body(request()), timeout=0.1, trust_env=False
            )
        over_http = httpx2.get(fake.url.removesuffix("/v1") + "/stats", trust_env=False).json()
        assert over_http["paid"] == fake.stats()["paid"] == 1
        port = int(fake.url.removesuffix("/v1").rpartition(":")[2])
        with pytest.raises(LlavakitError, match="cannot listen"), FakeServer(FakeSettings(port=port)):
            pass
    assert fake.stats()["paid"] == 1
    with socket.socket() as gone:
        assert gone.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"faults": {"599": 0.1}}, "no fault"),
        ({"faults": {"500": 1.5}}, "share"),
        ({"faults": {"500": 0.6, "cut": 0.6}}, "come to 1"),
        ({"slots": -1}, "slots"),
        ({"jitter": 2.0}, "jitter"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(LlavakitError, match=told):
        FakeSettings(**settings)
