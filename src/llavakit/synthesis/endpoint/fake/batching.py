"""The Batch API of a fake endpoint: files in memory, and batches that move on with time.

A batch takes `batch_s` seconds from its creation, whoever looks; its lines are worked on in step with that. A share of
them can be left undone, as in a batch that expires.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from llavakit.synthesis.endpoint.fake.chat import Chat, error_answer, what_is_wrong
from llavakit.synthesis.endpoint.fake.fate import generator, key_of
from llavakit.synthesis.endpoint.fake.http import Answer, Call

_MOST_REQUESTS = 50_000
_MOST_BYTES = 200 * 1024 * 1024
_AT_A_TIME = 100  # lines between two turns of the event loop


@dataclass(slots=True)
class _Batch:
    number: int
    input_file: str
    metadata: dict[str, str]
    lines: list[dict[str, Any]]
    begun: float
    problem: str = ""
    next_line: int = 0
    cancelled: bool = False
    ended: bool = False
    output: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    expired: int = 0
    files: tuple[str, str] = ("", "")
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def id(self) -> str:
        return f"batch_{self.number}"


class Batching:
    """Files and batches; `answer` takes every call below `/v1/files` and `/v1/batches`."""

    def __init__(self, chat: Chat) -> None:
        self._chat, self._settings = chat, chat.settings
        self._files: dict[str, bytes] = {}
        self._named = 0
        self._batches: dict[str, _Batch] = {}

    def told(self) -> dict[str, Any]:
        """Counts for the books."""
        lines = sum(len(batch.lines) for batch in self._batches.values())
        return {"batches": len(self._batches), "batch_lines": lines, "files": len(self._files)}

    async def answer(self, call: Call) -> Answer:
        _, _, place, *rest = call.path.rstrip("/").split("/")
        asked = (call.method, place, len(rest))
        if asked == ("POST", "files", 0):
            return self._upload(call)
        if asked == ("POST", "batches", 0):
            return self._create(call)
        if asked == ("GET", "batches", 0):
            return await self._list(call)
        if place == "files" and rest and rest[0] in self._files:
            return self._file(call.method, rest)
        if place == "batches" and rest and rest[0] in self._batches:
            batch = self._batches[rest[0]]
            if asked == ("GET", "batches", 1):
                return _sent(await self._told_of(batch))
            if asked == ("POST", "batches", 2) and rest[1] == "cancel":
                await self._advance(batch)
                batch.cancelled = not batch.ended
                return _sent(await self._told_of(batch))
        return error_answer(404, f"There is nothing at {call.method} {call.path}.")

    def _upload(self, call: Call) -> Answer:
        parts = _form(call)
        if parts.get("purpose") != b"batch" or "file" not in parts:
            return error_answer(400, "Expected a form with `purpose` batch and `file`.")
        if len(parts["file"]) > _MOST_BYTES:
            return error_answer(413, "The file is larger than 200 MB.")
        return _sent(self._file_object(self._keep(parts["file"])))

    def _file(self, method: str, rest: list[str]) -> Answer:
        if method == "GET" and rest[1:] == ["content"]:
            return Answer(body=self._files[rest[0]], kind="application/octet-stream")
        if method == "DELETE" and len(rest) == 1:
            del self._files[rest[0]]
            return _sent({"id": rest[0], "object": "file", "deleted": True})
        return _sent(self._file_object(rest[0]))

    def _create(self, call: Call) -> Answer:
        try:
            body = json.loads(call.body)
            content = self._files[body["input_file_id"]]
        except (ValueError, KeyError, TypeError):
            return error_answer(400, "`input_file_id` names no file that was uploaded.")
        lines, problem = _lines(content)
        number = len(self._batches) + 1
        metadata = dict(body.get("metadata") or {})
        batch = _Batch(number, body["input_file_id"], metadata, lines, time.monotonic(), problem)
        self._batches[batch.id] = batch
        return _sent(self._object(batch, "validating"))

    async def _list(self, call: Call) -> Answer:
        query = parse_qs(call.query)
        limit, after = int(query.get("limit", ["20"])[0]), query.get("after", [""])[0]
        newest_first = list(reversed(self._batches.values()))
        if after in self._batches:
            newest_first = [one for one in newest_first if one.number < self._batches[after].number]
        shown = [await self._told_of(batch) for batch in newest_first[:limit]]
        return _sent({"object": "list", "data": shown, "has_more": len(newest_first) > limit})

    async def _told_of(self, batch: _Batch) -> dict[str, Any]:
        await self._advance(batch)
        if batch.problem:
            return self._object(batch, "failed")
        if batch.ended:
            status = "cancelled" if batch.cancelled else "expired" if batch.expired else "completed"
            return self._object(batch, status)
        return self._object(batch, "in_progress" if batch.next_line else "validating")

    async def _advance(self, batch: _Batch) -> None:
        """Work on as many lines as the time since the creation allows, and end the batch behind the last."""
        async with batch.turn:
            if batch.ended or batch.problem:
                return
            share = (
                (time.monotonic() - batch.begun) / self._settings.batch_s if self._settings.batch_s else 1.0
            )
            until = len(batch.lines) if share >= 1 else int(share * len(batch.lines))
            while batch.next_line < until and not batch.cancelled:
                self._work(batch, batch.lines[batch.next_line])
                batch.next_line += 1
                if batch.next_line % _AT_A_TIME == 0:
                    await asyncio.sleep(0)
            if batch.cancelled or share >= 1:
                for line in batch.lines[batch.next_line :]:
                    batch.errors.append(_undone(line, "batch_cancelled", "The batch was cancelled before."))
                batch.files = (self._keep_rows(batch.output), self._keep_rows(batch.errors))
                batch.ended = True

    def _work(self, batch: _Batch, line: dict[str, Any]) -> None:
        left = generator(self._settings, key_of(line["body"]), f"expired in {batch.number}").random()
        if left < self._settings.batch_expire:
            batch.expired += 1
            batch.errors.append(
                _undone(line, "batch_expired", "The batch expired before this was worked on.")
            )
            return
        status, body = self._chat.answer_line(line["body"])
        response = {
            "status_code": status,
            "request_id": f"req_{batch.number}_{batch.next_line}",
            "body": body,
        }
        row = {
            "id": f"row_{batch.next_line}",
            "custom_id": line["custom_id"],
            "response": response,
            "error": None,
        }
        (batch.output if status == 200 else batch.errors).append(row)

    def _object(self, batch: _Batch, status: str) -> dict[str, Any]:
        problems = [{"code": "invalid", "message": batch.problem, "line": None, "param": None}]
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "status": status,
            "errors": {"object": "list", "data": problems} if status == "failed" else None,
            "input_file_id": batch.input_file,
            "completion_window": "24h",
            "output_file_id": batch.files[0] or None,
            "error_file_id": batch.files[1] or None,
            "metadata": batch.metadata,
            "request_counts": {
                "total": len(batch.lines),
                "completed": len(batch.output),
                "failed": len(batch.errors),
            },
        }

    def _keep(self, content: bytes) -> str:
        self._named += 1
        self._files[f"file-{self._named}"] = content
        return f"file-{self._named}"

    def _keep_rows(self, rows: list[dict[str, Any]]) -> str:
        return self._keep(b"".join(json.dumps(row).encode() + b"\n" for row in rows)) if rows else ""

    def _file_object(self, name: str) -> dict[str, Any]:
        size = len(self._files[name])
        return {"id": name, "object": "file", "bytes": size, "purpose": "batch", "status": "processed"}


def _lines(content: bytes) -> tuple[list[dict[str, Any]], str]:
    """The lines of an input file, and why they are no batch, "" when they are one."""
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(content.splitlines(), 1):
        try:
            line = json.loads(text)
            complete = isinstance(line["custom_id"], str) and line["url"] == "/v1/chat/completions"
        except (ValueError, KeyError, TypeError):
            complete = False
        if not complete:
            return [], f"Line {number} is no request with `custom_id`, `url` and `body`."
        if wrong := what_is_wrong(line.get("body")):
            return [], f"Line {number}: {wrong}"
        lines.append(line)
    if not lines or len(lines) > _MOST_REQUESTS:
        return [], f"The file holds {len(lines)} requests; expected 1 to {_MOST_REQUESTS}."
    if len({line["custom_id"] for line in lines}) < len(lines):
        return [], "Two lines have the same `custom_id`."
    if len({line["body"].get("model") for line in lines}) > 1:
        return [], "The lines name more than one model."
    return lines, ""


def _undone(line: dict[str, Any], code: str, message: str) -> dict[str, Any]:
    error = {"code": code, "message": message}
    return {"id": "row", "custom_id": line["custom_id"], "response": None, "error": error}


def _form(call: Call) -> dict[str, bytes]:
    """The fields of a multipart form; none where it is not one."""
    kind, _, boundary = call.headers.get("content-type", "").partition("boundary=")
    if not kind.startswith("multipart/form-data") or not boundary:
        return {}
    fields: dict[str, bytes] = {}
    for part in call.body.split(b"--" + boundary.strip('"').encode("latin-1"))[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'\bname="([^"]*)"', head)
        if name:
            fields[name[1].decode("latin-1")] = content.removesuffix(b"\r\n")
    return fields


def _sent(value: dict[str, Any]) -> Answer:
    return Answer(body=json.dumps(value).encode())
