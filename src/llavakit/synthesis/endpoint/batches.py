"""OpenAI's Batch API: many requests handed over as a file, and fetched as files when the batch has ended.

Whoever hands over a batch names it by metadata, and finds it again by listing when it forgot the id. Nothing here
waits for a batch or hands it over twice.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from llavakit.synthesis.endpoint.batch_files import read_results
from llavakit.synthesis.endpoint.endpoint import Endpoint, listed
from llavakit.synthesis.endpoint.http_trouble import excerpt
from llavakit.synthesis.teacher import TeacherError, TeacherReply, Trouble

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_PAGE = 100
_FILE_S = 600.0  # a file of 200 MB takes its time


@dataclass(frozen=True, slots=True)
class BatchState:
    """A batch as the server tells of it.

    status: `validating`, `in_progress`, `finalizing`, `cancelling`, or one of `ENDED`. total, done, failed: requests.
    *_file: ids of files, "" where there is none. problem: why a batch failed as a whole.
    """

    id: str
    status: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    total: int = 0
    done: int = 0
    failed: int = 0
    input_file: str = ""
    output_file: str = ""
    error_file: str = ""
    problem: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it; what was finished of an expired or cancelled batch can be fetched."""
        return self.status in ENDED


class Batches:
    """The batches of one endpoint, which is open."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def create(self, lines: Sequence[bytes], metadata: Mapping[str, str]) -> BatchState:
        """Upload lines (see `batch_files`) and have them worked on within a day.

        Raises:
            TeacherError: the file was uploaded or the batch begun only maybe; list before creating it again.
        """
        boundary = secrets.token_hex(16)
        kind = f"multipart/form-data; boundary={boundary}"
        sent = await self.endpoint.send(
            "POST", "/files", _form(boundary, lines), kind=kind, timeout_s=_FILE_S
        )
        file = _object(sent.text, at=f"{self.endpoint.url}/files")
        body = {
            "input_file_id": file["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": dict(metadata),
        }
        begun = await self.endpoint.send(
            "POST", "/batches", json.dumps(body).encode(), kind="application/json"
        )
        return self._state(begun.text)

    async def list(self) -> list[BatchState]:
        """All batches the server knows, newest first, over all pages.

        Raises:
            TeacherError: the list cannot be had.
        """
        found: list[BatchState] = []
        after: dict[str, str] = {}
        while True:
            path = f"/batches?{urlencode({'limit': _PAGE, **after})}"
            page = (await self.endpoint.send("GET", path)).text
            entries = listed(page, at=f"{self.endpoint.url}/batches")
            found += [_state_of(entry) for entry in entries]
            if not entries or not json.loads(page).get("has_more"):
                return found
            after = {"after": entries[-1]["id"]}

    async def state(self, id: str) -> BatchState:
        """How a batch stands. Raises TeacherError when it cannot be had."""
        return self._state((await self.endpoint.send("GET", f"/batches/{quote(id, safe='')}")).text)

    async def results(self, state: BatchState) -> Iterator[tuple[str, TeacherReply | TeacherError]]:
        """(key, reply or why there is none) for every line of the output file and the error file, in that order.

        Raises:
            TeacherError: a file cannot be fetched; LlavakitError, while iterating: a line is no result.
        """
        texts = []
        for file in (state.output_file, state.error_file):
            if file:
                path = f"/files/{quote(file, safe='')}/content"
                texts.append((file, (await self.endpoint.send("GET", path, timeout_s=_FILE_S)).text))
        return (result for file, text in texts for result in read_results(text, at=f"The batch file {file}"))

    async def cancel(self, id: str) -> BatchState:
        """Have no more of a batch worked on. Raises TeacherError when it cannot be cancelled."""
        return self._state(
            (await self.endpoint.send("POST", f"/batches/{quote(id, safe='')}/cancel", b"")).text
        )

    def _state(self, raw: str) -> BatchState:
        return _state_of(_object(raw, at=f"{self.endpoint.url}/batches"))


def _state_of(entry: Mapping[str, Any]) -> BatchState:
    counts, metadata = entry.get("request_counts") or {}, entry.get("metadata") or {}
    problems = (entry.get("errors") or {}).get("data") or []
    return BatchState(
        id=entry["id"],
        status=str(entry.get("status") or "unknown"),
        metadata={str(name): str(value) for name, value in metadata.items()},
        total=int(counts.get("total") or 0),
        done=int(counts.get("completed") or 0),
        failed=int(counts.get("failed") or 0),
        input_file=str(entry.get("input_file_id") or ""),
        output_file=str(entry.get("output_file_id") or ""),
        error_file=str(entry.get("error_file_id") or ""),
        problem=excerpt("; ".join(str(one.get("message")) for one in problems)),
    )


def _object(raw: str, *, at: str) -> dict[str, Any]:
    """An object with an `id`. Raises TeacherError when it is none."""
    try:
        value = json.loads(raw)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        raise TeacherError(
            Trouble.TRANSIENT, f"{at} sent no object with an `id`, but {excerpt(raw)!r}.", paid=True
        )
    return value


def _form(boundary: str, lines: Sequence[bytes]) -> bytes:
    """A form of two fields, `purpose` and `file`."""
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="requests.jsonl"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    return b"".join((head.encode(), *lines, f"\r\n--{boundary}--\r\n".encode()))
