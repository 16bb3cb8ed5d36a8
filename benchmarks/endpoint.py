"""What a request costs on the two sides of an endpoint: CPU time of our client, and of the scripted server.

    python benchmarks/endpoint.py

The server runs in a process of its own and is asked in two ways. First by bare sockets that send ready bytes, which
shows how many requests one core of the server answers; it has to answer 1,500 or more, or it would be the bottleneck
of what is measured against it. Then by `Endpoint`, with 8 to 1,000 requests at once, beside a plain httpx2 client with
one pool in the same run: the time must not grow with the number at once.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from llavakit.synthesis.endpoint.batch_files import batch_line
from llavakit.synthesis.endpoint.chat_format import chat_body, chat_reply
from llavakit.synthesis.endpoint.endpoint import Endpoint
from llavakit.synthesis.kinds import open_kinds
from llavakit.synthesis.teacher import Message, TeacherRequest
from results import write_result

LEAST_A_CORE = 1500
SYMBOLS = (
    "A dog sits beside a red chair.\nA dog indoors.\n\ndog: [0.1, 0.5, 0.3, 0.9]\nchair: [0.6, 0.4, 0.9, 0.9]"
)


def requests(number: int, *, prompts: bool) -> list[TeacherRequest]:
    """Different requests; with the whole prompt of a conversation and its examples, or with symbols alone."""
    messages = [Message("user", SYMBOLS)]
    if prompts:
        (kind,) = open_kinds(["conversation"])
        examples = [(Message("user", given), Message("assistant", said)) for given, said in kind.examples]
        messages = [Message("system", kind.system), *(one for pair in examples for one in pair), *messages]
    return [TeacherRequest(tuple(messages), model="m", seed=seed) for seed in range(number)]


@contextmanager
def server(*options: str) -> Iterator[tuple[str, Callable[[], float]]]:
    """(URL, seconds of CPU that the server has used) of a scripted endpoint in another process."""
    command = [sys.executable, "-m", "llavakit.cli.main", "fake-endpoint", *options]
    source = str(Path(__file__).parent.parent / "src")
    environment = {**os.environ, "PYTHONPATH": source}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None

        def cpu() -> float:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        yield process.stdout.readline().strip(), cpu
        process.terminate()


async def by_sockets(url: str, number: int, connections: int) -> None:
    """Send ready bytes over kept connections, and read the answers by their lengths."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
    bodies = [
        httpx2.Request("POST", url, json=chat_body(one)).content for one in requests(number, prompts=True)
    ]
    waiting = iter(bodies)

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        for body in waiting:
            writer.write(head % (len(body), body))
            told = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(told.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))


async def client_ms(ask: Callable[[TeacherRequest], Awaitable[object]], at_once: int) -> float:
    """Milliseconds of this process's CPU a request, connections already open."""
    for number in (at_once, max(600, 2 * at_once)):  # the first round opens the connections
        waiting, start = iter(requests(number, prompts=False)), time.process_time()

        async def one(waiting: Iterator[TeacherRequest] = waiting) -> None:
            for request in waiting:
                await ask(request)

        await asyncio.gather(*(one() for _ in range(at_once)))
    return (time.process_time() - start) / number * 1000


async def clients(url: str, at_once: int) -> tuple[float, float]:
    """(ours, plain client with one pool), each in milliseconds a request."""
    limits = httpx2.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with (
        Endpoint(url, connections=at_once) as endpoint,
        httpx2.AsyncClient(limits=limits, timeout=60, trust_env=False) as plain,
    ):

        async def plainly(request: TeacherRequest) -> object:
            response = await plain.post(f"{url}/chat/completions", json=chat_body(request))
            return chat_reply(response.text)

        return await client_ms(endpoint.reply, at_once), await client_ms(plainly, at_once)


def main() -> None:
    number = 4000
    with server() as (url, cpu):
        before = cpu()
        asyncio.run(by_sockets(url, number, 16))
        a_core = number / (cpu() - before)
    size = len(batch_line(requests(1, prompts=True)[0]))
    ratio = a_core / LEAST_A_CORE
    print(
        f"server: {a_core:.0f} requests of {size} bytes a second of CPU, {ratio:.2f} x the {LEAST_A_CORE} it needs"
    )
    told = {}
    with server("--latency", "0.05") as (url, _):
        for at_once in (8, 64, 256, 1000):
            ours, plain = asyncio.run(clients(url, at_once))
            told[at_once] = {
                "ours_ms": round(ours, 3),
                "one_pool_ms": round(plain, 3),
                "ratio": round(plain / ours, 2),
            }
            times = f"{ours:.2f} ms of CPU a request; one pool {plain:.2f} ms, {plain / ours:.2f} x"
            print(f"client, {at_once:4} at once: {times}")
    content = {
        "server_requests_a_core": round(a_core),
        "server_least": LEAST_A_CORE,
        "server_ratio": round(ratio, 2),
        "request_bytes": size,
        "client_by_requests_at_once": told,
    }
    write_result("endpoint", content)


if __name__ == "__main__":
    main()
