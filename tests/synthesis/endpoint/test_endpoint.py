"""An endpoint makes one attempt, tells trouble as it is, and keeps its key to itself."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from llavakit.errors import LlavakitError
from llavakit.synthesis.endpoint.endpoint import Endpoint, key_for, proxy_for, whole_url
from llavakit.synthesis.teacher import Message, TeacherError, TeacherRequest, Trouble

REQUEST = TeacherRequest((Message("user", "a dog"),), model="m")
GOOD = json.dumps(
    {"id": "c", "model": "m", "choices": [{"message": {"content": "A dog."}, "finish_reason": "stop"}]}
)
T = TypeVar("T")


def answer(status: int = 200, body: str = GOOD, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@asynccontextmanager
async def server(*answers: bytes | None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """(URL, requests as they came). Each request gets the next answer: bytes then closed, or None for silence."""
    seen: list[bytes] = []
    given = iter(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        seen.append(head + await reader.readexactly(length))
        said = next(given)
        if said is None:
            await reader.read()
        else:
            writer.write(said)
        writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with running:
        yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}", seen


def ask(
    *answers: bytes | None,
    then: Callable[[Endpoint], Awaitable[T]],
    key: str = "",
    timeout_s: float = 5.0,
) -> tuple[T, list[bytes]]:
    async def run() -> tuple[T, list[bytes]]:
        async with (
            server(*answers) as (url, seen),
            Endpoint(url, key=key, timeout_s=timeout_s) as endpoint,
        ):
            return await then(endpoint), seen

    return asyncio.run(run())


async def fail(endpoint: Endpoint) -> TeacherError:
    with pytest.raises(TeacherError) as caught:
        await endpoint.reply(REQUEST)
    return caught.value


def test_a_reply_comes_back_from_below_v1_with_its_id() -> None:
    reply, seen = ask(answer(X_Request_Id="r-9"), then=lambda e: e.reply(REQUEST), key="secret-1")
    assert (reply.text, reply.request_id, reply.raw) == ("A dog.", "r-9", GOOD)
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1")
    assert b"authorization: bearer secret-1" in head.lower()
    assert json.loads(body)["messages"] == [{"role": "user", "content": "a dog"}]


def test_rate_headers_are_kept_as_last_seen() -> None:
    async def twice(endpoint: Endpoint) -> list[int | None]:
        told = []
        for _ in range(3):
            await endpoint.reply(REQUEST)
            told.append(endpoint.rate.remaining_requests if endpoint.rate else None)
        return told

    limited = {"X_RateLimit_Limit_Requests": "10"}
    answers = [answer(**limited, X_RateLimit_Remaining_Requests="9"), answer()]
    told, _ = ask(answer(), *answers, then=twice)
    assert told == [None, 9, 9]


def test_one_attempt_is_one_request_whatever_comes_back() -> None:
    for status in (429, 500, 503):
        error, seen = ask(answer(status, '{"error": "busy"}', Retry_After="3"), answer(), then=fail)
        assert len(seen) == 1 and error.retry_after == 3 and "busy" in str(error)


def test_silence_is_trouble_that_may_have_cost() -> None:
    error, _ = ask(None, then=fail, timeout_s=0.05)
    assert error.trouble is Trouble.TRANSIENT and error.paid and "0.05 s" in str(error)


def test_a_connection_cut_before_or_within_the_answer_may_have_cost() -> None:
    for cut in (b"", answer()[:-20]):
        error, _ = ask(cut, then=fail)
        assert error.trouble is Trouble.TRANSIENT and error.paid and "cut" in str(error)


def test_a_server_that_is_not_there_is_named_and_costs_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

        async def run() -> TeacherError:
            async with Endpoint(url) as endpoint:
                return await fail(endpoint)

        error = asyncio.run(run())
    assert error.trouble is Trouble.TRANSIENT and not error.paid and url in str(error)


def test_the_key_is_in_no_error_even_where_the_server_says_it() -> None:
    error, _ = ask(answer(401, '{"error": "no such key as Zq77pass"}'), then=fail, key="Zq77pass")
    assert error.trouble is Trouble.ACCESS
    assert "Zq77pass" not in str(error) and "LLAVAKIT_TEACHER_KEY" in str(error)
    error, _ = ask(answer(200, '{"told": "Zq77pass"}'), then=fail, key="Zq77pass")
    assert (
        error.trouble is Trouble.TRANSIENT and "Zq77pass" not in str(error) and "no `choices`" in str(error)
    )


def test_models_are_listed() -> None:
    names, seen = ask(answer(body='{"data": [{"id": "a"}, {"id": "b"}]}'), then=lambda e: e.models())
    assert names == ["a", "b"] and seen[0].startswith(b"GET /v1/models ")

    async def refuse(endpoint: Endpoint) -> None:
        with pytest.raises(TeacherError, match="no list of objects"):
            await endpoint.models()

    ask(answer(body='{"models": []}'), then=refuse)


def test_an_endpoint_that_is_not_open_says_so() -> None:
    with pytest.raises(LlavakitError, match="async with"):
        asyncio.run(Endpoint("http://127.0.0.1:1").reply(REQUEST))


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1"),
        ("https://host/api/v1/chat/completions", "https://host/api/v1"),
        ("https://host/v1beta/openai/", "https://host/v1beta/openai"),
    ],
)
def test_urls_are_taken_with_and_without_v1(given: str, whole: str) -> None:
    assert whole_url(given) == whole


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host", "http://", "http://me:pw@h/v1", "http://h/v1?key=k"]
)
def test_urls_that_are_none_or_hold_a_key_are_refused(url: str) -> None:
    with pytest.raises(LlavakitError, match="URL") as caught:
        Endpoint(url)
    assert "pw" not in str(caught.value) and "key=k" not in str(caught.value)


def test_openais_key_goes_to_openai_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAVAKIT_TEACHER_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    assert key_for("https://api.openai.com/v1") == "theirs"
    assert key_for("https://api.openai.com.evil.example/v1") == key_for("https://notopenai.com/v1") == ""
    monkeypatch.setenv("LLAVAKIT_TEACHER_KEY", "ours")
    assert key_for("https://api.openai.com/v1") == key_for("http://127.0.0.1:1/v1") == "ours"


def test_a_proxy_serves_other_hosts_but_never_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "inside.example")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    assert proxy_for("https://host.example/v1") == "http://proxy:3128"
    assert proxy_for("https://inside.example/v1") is None
    assert proxy_for("http://host.example/v1") is None
    assert proxy_for("https://127.0.0.1/v1") is proxy_for("https://[::1]/v1") is None
    assert proxy_for("https://localhost/v1") is None
