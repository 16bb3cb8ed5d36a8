"""An environment outside the repository, and a server in it that answers on loopback and is always stopped.

What the checks of servers share of processes and HTTP. The server speaks the OpenAI form of chats; it gets a bounded
time to start and to answer, and its whole process group is ended on every way out, Ctrl-C and SIGTERM included.

Knows virtual environments, processes and HTTP. Knows no model: questions and answers are text and picture files.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
REPOSITORY = Path(__file__).resolve().parents[2]
STOP = 20.0  # seconds that a server gets to end by itself
_VERSION = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has no business on loopback


@dataclass(frozen=True)
class Answer:
    """What the server says to one chat: its text, the positions it counted in the prompt, and how long it took."""

    text: str
    prompt_tokens: int
    seconds: float


@dataclass(frozen=True)
class Server:
    """A server that is up. seconds: from its start until it said so."""

    port: int
    model: str
    seconds: float

    def ask(self, messages: list[dict[str, Any]], max_tokens: int, limit: float) -> Answer:
        """The greedy answer to a chat. Ends the script when there is none within `limit` seconds."""
        body = {"model": self.model, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
        request = urllib.request.Request(
            f"http://{HOST}:{self.port}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        began = time.monotonic()
        try:
            with _DIRECT.open(request, timeout=limit) as response:
                found = json.load(response)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise SystemExit(f"the server refused a chat with {error.code}: {said[-2000:]}") from error
        seconds = time.monotonic() - began
        return Answer(found["choices"][0]["message"]["content"], found["usage"]["prompt_tokens"], seconds)


def picture_part(png: bytes) -> dict[str, Any]:
    """A picture as a part of a message."""
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """The Python of an environment that has `packages`, made where it is not there.

    packages: requirements, the first of them NAME==VERSION, by which an environment that is there is recognised.
    """
    folder = folder.resolve()
    if folder.is_relative_to(REPOSITORY):
        raise SystemExit(f"{folder} lies in the repository; name an environment outside it with --venv")
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making an environment in {folder}", flush=True)
        venv.create(folder, with_pip=True)
    name, _, wanted = packages[0].partition("==")
    name = name.partition("[")[0]
    if version(python, name) != wanted:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def version(python: Path, name: str) -> str | None:
    """The version of a distribution in an environment; None where it is not there."""
    found = subprocess.run([python, "-P", "-c", _VERSION, name], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    command: Sequence[str], settings: Mapping[str, str], model: str, port: int, limit: float
) -> Iterator[Server]:
    """Starts a server, waits until it is healthy, and stops it whatever happens.

    settings: environment variables besides those that are set. model: what chats name. limit: seconds to start.
    """
    heard = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as empty, open(Path(empty) / "log", "w+b") as log:
        cache = {
            "HF_HUB_CACHE": empty,
            "HF_HUB_OFFLINE": "1",
        }  # nothing is loaded but the folder that is named
        process = subprocess.Popen(
            command,
            env={**usual, **cache, **settings},
            cwd=empty,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            began = time.monotonic()
            while not _healthy(port):
                log.seek(0)
                if process.poll() is not None:
                    raise SystemExit(f"the server ended with {process.returncode}: {_tail(log.read())}")
                if time.monotonic() - began > limit:
                    raise SystemExit(f"the server was not up after {limit:.0f} s: {_tail(log.read())}")
                time.sleep(0.2)
            yield Server(port, model, time.monotonic() - began)
        finally:
            _stop(process)
            signal.signal(signal.SIGTERM, heard)


def _healthy(port: int) -> bool:
    try:
        with _DIRECT.open(f"http://{HOST}:{port}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _tail(log: bytes) -> str:
    return log.decode(errors="replace")[-3000:]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the server's process group, first asking, then not."""
    for wish in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, wish)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
