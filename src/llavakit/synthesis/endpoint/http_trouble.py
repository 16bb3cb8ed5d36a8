"""What a failed request means: from an HTTP status, its headers and its body to a `TeacherError`.

Servers word the same trouble in many ways; what counts is what to do next, so each is put into one `Trouble`. Here too
are the durations in which servers tell how long to wait, and the rate headers they send along.

Knows no connection and sends nothing. No message from here holds a key: what looks like one is struck out.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from llavakit.synthesis.teacher import TeacherError, Trouble

_ACCESS_CODES = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "invalid_api_key",
    "account_deactivated",
    "model_not_found",
    "unsupported_parameter",  # every request of a run sends the same parameters, so none would be taken
}
_REFUSED_CODES = {
    "content_filter",
    "content_policy_violation",
    "context_length_exceeded",
    "string_above_max_length",
}
_ACCESS_STATUS = {401, 402, 403, 404, 405}
_REFUSED_STATUS = {400, 413, 415, 422}
_OVERLOADED_STATUS = {503, 529}
_GATEWAY_GAVE_UP = {504, 524}  # whoever stood behind the gateway may have gone on working
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|h|hours?|m|minutes?|s|seconds?)(?![a-z])", re.I)
_TRY_AGAIN = re.compile(r"(?:try again|retry|wait)\D{0,20}?((?:\d+(?:\.\d+)?\s*[a-z]+\s*)+)", re.I)
_KEY_LIKE = re.compile(r"\b(?:sk|key|gsk|hf)[-_][\w*.-]{6,}")
_LONGEST_EXCERPT = 300


@dataclass(frozen=True, slots=True)
class RateHeaders:
    """The `x-ratelimit-*` headers of a response; None where the server does not tell.

    reset_*_s: seconds until the whole limit is free again, counted from `seen_at` on the clock `time.monotonic`.
    """

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests_s: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens_s: float | None = None
    seen_at: float = 0.0


def read_rate_headers(headers: Mapping[str, str]) -> RateHeaders | None:
    """The rate headers of a response; None where it has none."""
    if not any(f"x-ratelimit-{what}" in headers for what in ("limit-requests", "limit-tokens")):
        return None
    return RateHeaders(
        _whole(headers.get("x-ratelimit-limit-requests")),
        _whole(headers.get("x-ratelimit-remaining-requests")),
        seconds_of(headers.get("x-ratelimit-reset-requests")),
        _whole(headers.get("x-ratelimit-limit-tokens")),
        _whole(headers.get("x-ratelimit-remaining-tokens")),
        seconds_of(headers.get("x-ratelimit-reset-tokens")),
        time.monotonic(),
    )


def seconds_of(text: str | None) -> float | None:
    """Seconds of a duration: `1.5`, `20ms`, `6m0s`, `1h2m3.5s`, `2 minutes`. None for anything else."""
    if text is None:
        return None
    try:
        value = float(text)
        return value if 0 <= value < float("inf") else None
    except ValueError:
        pass
    parts = _DURATION.findall(text)
    if not parts:
        return None
    return sum(float(number) * _unit(unit.lower()) for number, unit in parts)


def retry_after(headers: Mapping[str, str], message: str, *, now: datetime | None = None) -> float | None:
    """Seconds after which the server wants to be asked again: by header, or else by its own words.

    Read in this order: `retry-after-ms`, `retry-after` (seconds or an HTTP date), "try again in 1.5s" in the message.
    """
    milliseconds = seconds_of(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    told = headers.get("retry-after")
    if told is not None:
        seconds = seconds_of(told)
        return seconds if seconds is not None else _until(told, now or datetime.now(UTC))
    words = _TRY_AGAIN.search(message)
    return seconds_of(words.group(1)) if words else None


def error_of(status: int, headers: Mapping[str, str], body: str, *, at: str) -> TeacherError:
    """The error of a response that is no reply. at: the URL that was asked, named in the sentence."""
    message, code = error_words(body)
    said = f"{at} answered {status}" + (f": {message}" if message else " with an empty body")
    trouble, advice = _judge(status, code, message, headers.get("location", ""))
    if advice:
        said = f"{said.rstrip('.')}. {advice}"
    wait = (
        retry_after(headers, message)
        if trouble in (Trouble.RATE_LIMIT, Trouble.OVERLOADED, Trouble.TRANSIENT)
        else None
    )
    return TeacherError(trouble, without_keys(said), retry_after=wait, paid=status in _GATEWAY_GAVE_UP)


def error_words(body: str) -> tuple[str, str]:
    """The message and the code of an error body, in any of the shapes servers use; the body's beginning otherwise."""
    try:
        value = json.loads(body)
    except json.JSONDecodeError:
        return excerpt(re.sub(r"<[^>]*>", " ", body)), ""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict) and value.get("error"):
        value = value["error"]
    if not isinstance(value, dict):
        return excerpt(value if isinstance(value, str) else json.dumps(value)), ""
    message = value.get("message") or value.get("detail")
    text = message if isinstance(message, str) else json.dumps(message if message else value)
    code = value.get("code") or value.get("type") or ""
    return excerpt(text), str(code)


def excerpt(text: str) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_EXCERPT else line[:_LONGEST_EXCERPT] + "..."


def without_keys(text: str, key: str | None = None) -> str:
    """The text with this key, and with whatever looks like one, struck out."""
    if key:
        text = text.replace(key, "[key]")
    return _KEY_LIKE.sub("[key]", text)


def _judge(status: int, code: str, message: str, location: str) -> tuple[Trouble, str]:
    """What the trouble is, and what the user may do about it."""
    lower = message.lower()
    if code == "unsupported_parameter" or ("unsupported" in lower and "max_tokens" in lower):
        return Trouble.ACCESS, (
            "The endpoint does not take one of the parameters that are sent; "
            "where that is `max_tokens`, use `max_completion_tokens` in its place."
        )
    if code in _ACCESS_CODES or (
        status == 429 and ("billing" in lower or "exceeded your current quota" in lower)
    ):
        return (
            Trouble.ACCESS,
            "Look after the key, the account and the model's name; nothing works until then.",
        )
    if code in _REFUSED_CODES:
        return Trouble.REFUSED, ""
    if status == 429:
        # more tokens in one request than a whole minute allows: waiting does not help
        return (Trouble.REFUSED if "request too large" in lower else Trouble.RATE_LIMIT), ""
    if status in _OVERLOADED_STATUS:
        return Trouble.OVERLOADED, ""
    if status in (401, 403):
        return Trouble.ACCESS, "Set LLAVAKIT_TEACHER_KEY to a key that the endpoint takes."
    if status in _ACCESS_STATUS:
        return Trouble.ACCESS, "Look after the URL and the model's name."
    if 300 <= status < 400:
        return Trouble.ACCESS, f"Redirections are not followed; give the URL itself ({excerpt(location)})."
    if status in _REFUSED_STATUS:
        return Trouble.REFUSED, ""
    return Trouble.TRANSIENT, ""


def _unit(name: str) -> float:
    if name.startswith(("ms", "milli")):
        return 0.001
    return {"h": 3600.0, "m": 60.0, "s": 1.0}[name[0]]


def _until(date: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _whole(text: Any) -> int | None:
    try:
        return int(text)
    except (TypeError, ValueError):
        return None
