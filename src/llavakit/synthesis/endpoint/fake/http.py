"""HTTP/1.1 as far as clients of an endpoint use it: requests with a length or in chunks, connections kept alive.

A connection answers one request after the other. What an answer is, is somebody else's business: a handler takes a
`Call` and returns an `Answer`. Reads no URL beyond its path and query, knows no JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 413: "Content Too Large",
            429: "Too Many Requests", 431: "Request Header Fields Too Large", 500: "Internal Server Error",
            503: "Service Unavailable"}  # fmt: skip
_LONGEST_HEAD = 64 * 1024
_LONGEST_BODY = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """A whole request. path: without the query. gone: done as soon as the client has left."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    gone: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back. ending: `whole`, or the connection is cut `before` anything is sent or `within` the body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/json"
    ending: Literal["whole", "before", "within"] = "whole"


Handler = Callable[[Call], Awaitable[Answer]]


class Malformed(Exception):
    """Bytes that are no HTTP request; `status` is what to answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Connection(asyncio.Protocol):
    """One client's connection. `open_connections` is the server's set of those that are open."""

    def __init__(self, handler: Handler, open_connections: set[Connection]) -> None:
        self._handler, self._open = handler, open_connections
        self._bytes = bytearray()
        self._head: tuple[str, str, dict[str, str]] | None = None
        self._chunks: bytearray | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self._gone: asyncio.Future[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._gone = transport, asyncio.get_running_loop().create_future()
        self._open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._open.discard(self)
        if not self._gone.done():
            self._gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        if self._task is None:
            self._next()

    def drop(self) -> None:
        """Cut the connection and stop working for it."""
        if self._task is not None:
            self._task.cancel()
        self._transport.abort()

    def _next(self) -> None:
        """Begin to answer the next request, if the whole of it is there."""
        try:
            call = self._read()
        except Malformed as error:
            self._write(Answer(error.status, b"", {"connection": "close"}))
            self._transport.close()
            return
        if call is not None:
            self._task = asyncio.get_running_loop().create_task(self._answer(call))

    async def _answer(self, call: Call) -> None:
        answer = Answer(ending="before")  # what a handler that fails comes to; the loop tells of the failure
        try:
            answer = await self._handler(call)
        finally:
            self._task = None
            self._send(call, answer)

    def _send(self, call: Call, answer: Answer) -> None:
        if self._gone.done():
            return
        if answer.ending == "before":
            self._transport.abort()
        elif answer.ending == "within":
            self._write(answer, len(answer.body) // 2)
            self._transport.close()
        else:
            self._write(answer)
            if call.headers.get("connection", "").lower() == "close":
                self._transport.close()
            elif self._bytes:
                self._next()

    def _write(self, answer: Answer, until: int | None = None) -> None:
        lines = [
            f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Status')}",
            f"content-type: {answer.kind}",
            f"content-length: {len(answer.body)}",
            *(f"{name}: {value}" for name, value in answer.headers.items()),
        ]
        self._transport.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + answer.body[:until])

    def _read(self) -> Call | None:
        """The next request, taken off the bytes that have come; None while it is not whole."""
        if self._head is None and not self._read_head():
            return None
        assert self._head is not None
        method, target, headers = self._head
        if self._chunks is not None:
            if not self._read_chunks():
                return None
            body = bytes(self._chunks)
        else:
            length = int(headers.get("content-length", 0))
            if len(self._bytes) < length:
                return None
            body = bytes(self._bytes[:length])
            del self._bytes[:length]
        self._head, self._chunks = None, None
        path, _, query = target.partition("?")
        return Call(method, path, query, headers, body, self._gone)

    def _read_head(self) -> bool:
        end = self._bytes.find(b"\r\n\r\n")
        if end < 0:
            if len(self._bytes) > _LONGEST_HEAD:
                raise Malformed(431)
            return False
        lines = self._bytes[:end].decode("latin-1").split("\r\n")
        del self._bytes[: end + 4]
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise Malformed(400)
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines[1:])
        }
        length = headers.get("content-length", "0")
        if not length.isdigit():
            raise Malformed(400)
        if int(length) > _LONGEST_BODY:
            raise Malformed(413)
        if headers.get("transfer-encoding", "").lower() == "chunked":
            self._chunks = bytearray()
        if headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._head = words[0], words[1], headers
        return True

    def _read_chunks(self) -> bool:
        """Move whole chunks over; True after the last, which is empty."""
        assert self._chunks is not None
        while (end := self._bytes.find(b"\r\n")) >= 0:
            try:
                size = int(bytes(self._bytes[:end]).partition(b";")[0], 16)
            except ValueError as error:
                raise Malformed(400) from error
            if len(self._bytes) < end + 2 + size + 2:
                return False
            self._chunks += self._bytes[end + 2 : end + 2 + size]
            del self._bytes[: end + 2 + size + 2]
            if len(self._chunks) > _LONGEST_BODY:
                raise Malformed(413)
            if size == 0:
                return True
        return False
