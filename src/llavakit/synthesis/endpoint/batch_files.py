"""The files of OpenAI's Batch API: requests a line each, split as its limits want, and lines of results.

A line is known by its `custom_id`, which is the request's key. Knows no connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.synthesis.endpoint.chat_format import TokenField, chat_body, chat_reply
from llavakit.synthesis.endpoint.http_trouble import error_of, error_words
from llavakit.synthesis.teacher import TeacherError, TeacherReply, TeacherRequest, Trouble

MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000

_UNDONE = {"batch_expired", "batch_cancelled"}
"""Codes of requests that were never worked on, because their batch ended before."""


@dataclass(frozen=True, slots=True)
class BatchFile:
    """Requests to one model that go into one batch: their keys, and a line for each."""

    model: str
    keys: tuple[str, ...]
    lines: tuple[bytes, ...]


def batch_line(request: TeacherRequest, *, token_field: TokenField = "max_tokens") -> bytes:
    """A request as a line, with its line end."""
    line = {
        "custom_id": request.key,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": chat_body(request, token_field=token_field),
    }
    return json.dumps(line).encode() + b"\n"


def split(
    requests: Iterable[TeacherRequest],
    *,
    token_field: TokenField = "max_tokens",
    most_requests: int = MOST_REQUESTS,
    most_bytes: int = MOST_BYTES,
) -> Iterator[BatchFile]:
    """Files of one model each, full ones as soon as they are; no more than one a model is held at a time.

    Equal requests go out once.

    Raises:
        LlavakitError: one request alone is more than a file may hold.
    """
    held: dict[str, list[tuple[str, bytes]]] = {}
    sizes: dict[str, int] = {}
    seen: set[str] = set()
    for request in requests:
        key = request.key
        if key in seen:
            continue
        seen.add(key)
        line = batch_line(request, token_field=token_field)
        if len(line) > most_bytes:
            raise LlavakitError(
                f"The request {key[:12]} takes {len(line):,} bytes, and a batch file holds {most_bytes:,}; "
                "send its pictures smaller."
            )
        rows = held.setdefault(request.model, [])
        if rows and (len(rows) >= most_requests or sizes[request.model] + len(line) > most_bytes):
            yield _file(request.model, rows)
            rows = held[request.model] = []
        sizes[request.model] = (sizes[request.model] if rows else 0) + len(line)
        rows.append((key, line))
    for model, rows in held.items():
        yield _file(model, rows)


def read_results(text: str, *, at: str) -> Iterator[tuple[str, TeacherReply | TeacherError]]:
    """(key, reply or why there is none) of every line of an output or error file. at: the file, for sentences.

    Raises:
        LlavakitError: a line is no result.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            key, response, error = entry["custom_id"], entry.get("response"), entry.get("error")
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as problem:
            raise LlavakitError(
                f"{at}, line {number}, is no result of a batch ({problem!r}); fetch the results again."
            ) from problem
        yield str(key), _outcome(response, error, f"{at}, line {number},")


def _outcome(response: Any, error: Any, at: str) -> TeacherReply | TeacherError:
    if isinstance(response, dict) and isinstance(response.get("status_code"), int):
        body = json.dumps(response.get("body"))
        if response["status_code"] != 200:
            return error_of(response["status_code"], {}, body, at=at)
        try:
            return chat_reply(body, request_id=str(response.get("request_id") or ""), at=at)
        except TeacherError as found:
            return found
    message, code = error_words(json.dumps({"error": error}))
    undone = " was not worked on" if code in _UNDONE else " failed"
    return TeacherError(Trouble.TRANSIENT, f"{at}{undone}: {message}")


def _file(model: str, rows: list[tuple[str, bytes]]) -> BatchFile:
    return BatchFile(model, tuple(key for key, _ in rows), tuple(line for _, line in rows))
