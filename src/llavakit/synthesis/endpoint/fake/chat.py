"""How a fake endpoint answers a chat completion: limits, slots, faults, the reply, and what it is billed at.

The order is a host's: what cannot be read is refused, then the limits speak, then the slots; from there on the work is
paid for, whatever becomes of the answer.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from typing import Any

from llavakit.synthesis.endpoint.fake.allowances import Allowance
from llavakit.synthesis.endpoint.fake.counts import Counts
from llavakit.synthesis.endpoint.fake.fate import Fate, draw, generator, key_of
from llavakit.synthesis.endpoint.fake.http import Answer, Call
from llavakit.synthesis.endpoint.fake.settings import FakeSettings
from llavakit.synthesis.endpoint.fake.slots import Slots
from llavakit.synthesis.endpoint.fake.writing import write_reply

_CHARACTERS_A_TOKEN = 4
_TOKENS_A_PICTURE = 256
_DEFAULT_MAX_TOKENS = 1024
_APOLOGIES = (
    "I'm sorry, but I can't help with that.",
    "I'm sorry, but as an AI language model I cannot see images.",
    "I cannot assist with this request.",
)
_EARLY_FAULTS = {"429": 429, "500": 500, "503": 503}


class Chat:
    """The one place where chat completions are answered; batches come here too, past limits and slots."""

    def __init__(self, settings: FakeSettings) -> None:
        self.settings, self.counts, self.slots = settings, Counts(), Slots(settings.slots)
        self.requests = Allowance("requests", settings.requests_per_minute)
        self.tokens = Allowance("tokens", settings.tokens_per_minute)

    async def answer(self, call: Call) -> Answer:
        """Answer one call, taking as long as it takes."""
        try:
            body = json.loads(call.body)
        except ValueError:
            return error_answer(400, "The body is no JSON.")
        wrong = what_is_wrong(body)
        if wrong:
            return error_answer(400, wrong)
        key = key_of(body)
        attempt = self.counts.arrive(key)
        try:
            answer = await self._worked(body, key, attempt, call.gone)
        finally:
            self.counts.leave()
        if answer.status == 200 and answer.ending == "whole":
            self.counts.answered += 1
        return answer

    def answer_line(self, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """(status, body) for one line of a batch; of the faults, only those that a batch can show befall it."""
        key = key_of(body)
        fate = draw(self.settings, key, self.counts.arrive(key), seeded="seed" in body)
        self.counts.leave()
        if fate.way in ("500", "503", "silence", "cut", "broken-body"):
            self.counts.faults["500"] += 1
            return 500, error_body(500, "The engine lost this request.")
        return 200, self._completion(body, key, fate)

    async def _worked(
        self, body: Mapping[str, Any], key: str, attempt: int, gone: asyncio.Future[None]
    ) -> Answer:
        settings = self.settings
        fate = draw(settings, key, attempt, seeded="seed" in body)
        wanted = prompt_tokens(body) + max_tokens(body)
        lacking = max(self.requests.lacking_s(1), self.tokens.lacking_s(wanted))
        if lacking > 0:
            self.counts.rate_limited += 1
            return self._later(429, lacking, "Rate limit reached.")
        self.requests.use(1)
        if fate.way in _EARLY_FAULTS:
            self.counts.faults[fate.way] += 1
            if fate.way == "500":
                return error_answer(500, "The engine stumbled over this request.")
            return self._later(_EARLY_FAULTS[fate.way], settings.retry_after_s, "Too many requests at once.")
        if self.slots.full and settings.overload == "reject":
            self.counts.rejected += 1
            return self._later(settings.reject_status, settings.retry_after_s, "All slots are taken.")
        if not await self.slots.take(gone):
            self.counts.left_waiting += 1
            return Answer(ending="before")
        self.tokens.use(wanted)
        try:
            completion = self._completion(body, key, fate)
            self.tokens.use(completion["usage"]["total_tokens"] - wanted)  # what was not needed after all
            await asyncio.sleep(self._work_s(fate))
        finally:
            self.slots.give_back()
        return await self._sent(completion, fate, gone)

    async def _sent(self, completion: dict[str, Any], fate: Fate, gone: asyncio.Future[None]) -> Answer:
        sent = json.dumps(completion).encode()
        headers = {
            "x-request-id": completion["id"].replace("chatcmpl", "req"),
            **self.requests.headers(),
            **self.tokens.headers(),
        }
        if fate.way in ("silence", "cut", "broken-body", "slow"):
            self.counts.faults[fate.way] += 1
        if fate.way == "silence":
            await gone
        if fate.way == "cut":
            return Answer(200, sent, headers, ending="before" if fate.rng.random() < 0.5 else "within")
        if fate.way == "broken-body":
            return Answer(200, sent[: len(sent) // 2], headers)
        return Answer(200, sent, headers)

    def _completion(self, body: Mapping[str, Any], key: str, fate: Fate) -> dict[str, Any]:
        """The completion as plain values; it is billed here."""
        text = write_reply(body, generator(self.settings, key, "text"), malformed=fate.written == "malformed")
        finish = "stop"
        most = max_tokens(body)
        if fate.written:
            self.counts.faults[fate.written] += 1
        if fate.written == "refusal":
            text = fate.rng.choice(_APOLOGIES)
        elif fate.written in ("empty", "content-filter"):
            text, finish = "", "content_filter" if fate.written == "content-filter" else "stop"
        elif fate.written == "truncated":
            text, finish = text[: int(len(text) * 0.6)], "length"
        if tokens_of(text) > most:
            text, finish = text[: most * _CHARACTERS_A_TOKEN], "length"
        asked, given = prompt_tokens(body), tokens_of(text)
        self.counts.bill(key, asked, given)
        message = {"role": "assistant", "content": text or None if finish == "content_filter" else text}
        return {
            "id": f"chatcmpl-{key[:16]}-{self.counts.paid_by_key[key]}",
            "object": "chat.completion",
            "created": 0,
            "model": body.get("model") or self.settings.models[0],
            "system_fingerprint": f"fake-{self.settings.seed}",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {
                "prompt_tokens": asked,
                "completion_tokens": given,
                "total_tokens": asked + given,
                "prompt_tokens_details": {"cached_tokens": 0},
            },
        }

    def _work_s(self, fate: Fate) -> float:
        varied = self.settings.latency_s * (1 + self.settings.jitter * (2 * fate.rng.random() - 1))
        return varied * (self.settings.slow_factor if fate.way == "slow" else 1)

    def _later(self, status: int, seconds: float, why: str) -> Answer:
        headers = {
            "retry-after": str(math.ceil(seconds)),
            "retry-after-ms": str(math.ceil(seconds * 1000)),
            **self.requests.headers(),
            **self.tokens.headers(),
        }
        message = f"{why} Please try again in {seconds:.3f}s."
        return Answer(status, json.dumps(error_body(status, message)).encode(), headers)


def what_is_wrong(body: Any) -> str:
    """Why a body is no request for a chat completion; "" when it is one."""
    if not isinstance(body, dict):
        return "The body is no JSON object."
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "`messages` is missing or empty."
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in (
            "system",
            "developer",
            "user",
            "assistant",
        ):
            return "A message has no known `role`."
        if not isinstance(message.get("content"), str | list):
            return "A message has no `content`."
    if body.get("stream"):
        return "Streaming is not offered here."
    return ""


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """Tokens of the messages, at four characters each, with a flat number a picture."""
    total = 0
    for message in body["messages"]:
        content = message["content"]
        if isinstance(content, str):
            total += tokens_of(content)
            continue
        for part in content:
            picture = isinstance(part, dict) and part.get("type") == "image_url"
            total += _TOKENS_A_PICTURE if picture else tokens_of(str(part.get("text", "")))
    return total


def max_tokens(body: Mapping[str, Any]) -> int:
    return int(body.get("max_completion_tokens") or body.get("max_tokens") or _DEFAULT_MAX_TOKENS)


def tokens_of(text: str) -> int:
    return -(-len(text) // _CHARACTERS_A_TOKEN)


def error_body(status: int, message: str) -> dict[str, Any]:
    kind = {429: "rate_limit_exceeded", 400: "invalid_request_error", 401: "invalid_api_key"}.get(
        status, "server_error"
    )
    return {"error": {"message": message, "type": kind, "param": None, "code": kind}}


def error_answer(status: int, message: str) -> Answer:
    return Answer(status, json.dumps(error_body(status, message)).encode())
