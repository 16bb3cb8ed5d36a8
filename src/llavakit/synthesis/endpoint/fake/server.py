"""A fake endpoint that runs: in this event loop (`FakeEndpoint`), or in a thread of its own (`FakeServer`).

Listens on the loopback address unless told otherwise, writes nothing to disk, and is gone the moment it is closed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

from llavakit.errors import LlavakitError
from llavakit.synthesis.endpoint.fake.batching import Batching
from llavakit.synthesis.endpoint.fake.chat import Chat, error_answer
from llavakit.synthesis.endpoint.fake.http import Answer, Call, Connection
from llavakit.synthesis.endpoint.fake.settings import FakeSettings


class FakeEndpoint:
    """A fake endpoint in the running event loop, as an asynchronous context manager.

    Raises:
        LlavakitError: the port cannot be had.
    """

    def __init__(self, settings: FakeSettings | None = None) -> None:
        self.settings = settings or FakeSettings()
        self.chat = Chat(self.settings)
        self.batching = Batching(self.chat)
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._routes: dict[tuple[str, str], Callable[[Call], Awaitable[Answer]]] = {
            ("POST", "/v1/chat/completions"): self.chat.answer,
            ("GET", "/v1/models"): self._models,
            ("GET", "/stats"): self._stats,
        }

    @property
    def url(self) -> str:
        """The address up to `/v1`."""
        if self._server is None:
            raise LlavakitError("The fake endpoint is not running; use it as `async with FakeEndpoint(...)`.")
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    def stats(self, *, keys: bool = True) -> dict[str, Any]:
        """What `GET /stats` tells."""
        slots, elapsed = self.chat.slots, self.chat.counts.elapsed_s
        busy_s = slots.busy_s
        return {
            "slots": slots.number,
            "busy": slots.busy,
            "most_busy": slots.most_busy,
            "waiting": slots.waiting,
            "most_waiting": slots.most_waiting,
            "busy_slot_s": busy_s,
            "utilisation": busy_s / (slots.number * elapsed) if slots.number and elapsed else None,
            **self.batching.told(),
            **self.chat.counts.told(keys=keys),
        }

    async def __aenter__(self) -> Self:
        loop, settings = asyncio.get_running_loop(), self.settings
        try:
            self._server = await loop.create_server(
                lambda: Connection(self._handle, self.connections),
                settings.host,
                settings.port,
                backlog=1024,
            )
        except OSError as error:
            raise LlavakitError(
                f"The fake endpoint cannot listen on {settings.host} port {settings.port} ({error.strerror}); "
                "give another port, or 0 for a free one."
            ) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            for connection in list(self.connections):
                connection.drop()
            self._server = None
            await asyncio.sleep(0)  # what was dropped is cleared away in the loop's next turn

    async def _handle(self, call: Call) -> Answer:
        wrong_key = self.settings.key and call.headers.get("authorization") != f"Bearer {self.settings.key}"
        if wrong_key and call.path != "/stats":
            return error_answer(401, "The key is not the one this endpoint was started with.")
        if call.path.startswith(("/v1/files", "/v1/batches")):
            return await self.batching.answer(call)
        route = self._routes.get((call.method, call.path.rstrip("/")))
        if route is None:
            return error_answer(404, f"There is nothing at {call.method} {call.path}.")
        return await route(call)

    async def _models(self, call: Call) -> Answer:
        entries = [{"id": name, "object": "model", "owned_by": "llavakit"} for name in self.settings.models]
        return Answer(body=json.dumps({"object": "list", "data": entries}).encode())

    async def _stats(self, call: Call) -> Answer:
        keys = parse_qs(call.query).get("keys") != ["0"]
        return Answer(body=json.dumps(self.stats(keys=keys)).encode())


class FakeServer:
    """A fake endpoint in a thread of its own, as a context manager: `with FakeServer(settings) as fake: fake.url`."""

    def __init__(self, settings: FakeSettings | None = None) -> None:
        self.settings = settings or FakeSettings()
        self.url = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event
        self._fake: FakeEndpoint
        self._failed: LlavakitError | None = None
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fake-endpoint", daemon=True)

    def stats(self, *, keys: bool = True) -> dict[str, Any]:
        """What `GET /stats` tells, read between two requests; still there after the end."""
        if self._loop is None or self._loop.is_closed():
            return self._fake.stats(keys=keys)

        async def read() -> dict[str, Any]:
            return self._fake.stats(keys=keys)

        return asyncio.run_coroutine_threadsafe(read(), self._loop).result(10)

    def __enter__(self) -> Self:
        self._thread.start()
        self._up.wait()
        if self._failed is not None:
            raise self._failed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        try:
            async with FakeEndpoint(self.settings) as fake:
                self._loop, self._fake, self.url = asyncio.get_running_loop(), fake, fake.url
                self._up.set()
                await self._stop.wait()
        except LlavakitError as error:
            self._failed = error
            self._up.set()


async def serve_until_signalled(
    settings: FakeSettings, started: Callable[[FakeEndpoint], None]
) -> FakeEndpoint:
    """Run until SIGINT or SIGTERM. started: called once the port is open. The endpoint comes back with its books.

    Raises:
        LlavakitError: the port cannot be had.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with FakeEndpoint(settings) as fake:
        started(fake)
        await stop.wait()
    return fake
