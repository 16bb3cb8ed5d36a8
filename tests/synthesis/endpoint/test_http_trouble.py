"""A failed request is told apart by what to do next."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from llavakit.synthesis.endpoint.http_trouble import (
    error_of,
    error_words,
    read_rate_headers,
    retry_after,
    seconds_of,
)
from llavakit.synthesis.teacher import Trouble

AT = "http://h/v1/chat/completions"


def body(message: str, code: str = "") -> str:
    return json.dumps({"error": {"message": message, "code": code}})


@pytest.mark.parametrize(
    ("status", "message", "code", "trouble"),
    [
        (429, "Rate limit reached", "rate_limit_exceeded", Trouble.RATE_LIMIT),
        (429, "You exceeded your current quota", "insufficient_quota", Trouble.ACCESS),
        (429, "You exceeded your current quota, see billing.", "", Trouble.ACCESS),
        (429, "Request too large for m: limit 100, requested 500", "rate_limit_exceeded", Trouble.REFUSED),
        (503, "warming up", "", Trouble.OVERLOADED),
        (529, "overloaded_error", "", Trouble.OVERLOADED),
        (500, "oh", "", Trouble.TRANSIENT),
        (502, "oh", "", Trouble.TRANSIENT),
        (408, "slow", "", Trouble.TRANSIENT),
        (400, "bad", "", Trouble.REFUSED),
        (413, "big", "", Trouble.REFUSED),
        (422, "shape", "", Trouble.REFUSED),
        (403, "flagged", "content_policy_violation", Trouble.REFUSED),
        (400, "This model's maximum context length is 10", "context_length_exceeded", Trouble.REFUSED),
        (400, "Unsupported parameter: 'max_tokens'", "unsupported_parameter", Trouble.ACCESS),
        (400, "no good key", "invalid_api_key", Trouble.ACCESS),
        (401, "who", "", Trouble.ACCESS),
        (402, "pay", "", Trouble.ACCESS),
        (403, "not you", "", Trouble.ACCESS),
        (404, "no such model", "model_not_found", Trouble.ACCESS),
        (307, "", "", Trouble.ACCESS),
    ],
)
def test_status_and_code_decide_the_trouble(status: int, message: str, code: str, trouble: Trouble) -> None:
    error = error_of(status, {}, body(message, code), at=AT)
    assert error.trouble is trouble
    assert str(error).startswith(f"{AT} answered {status}") and message in str(error)


def test_only_a_gateway_that_gave_up_may_have_cost_something() -> None:
    assert [status for status in (429, 500, 502, 503, 504) if error_of(status, {}, "", at=AT).paid] == [504]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1.5", 1.5), ("0", 0), ("20ms", 0.02), ("6m0s", 360), ("1h2m3.5s", 3723.5), ("2 minutes", 120),
        ("", None), ("soon", None), ("-1", None), ("nan", None), ("inf", None), (None, None),
    ],
)  # fmt: skip
def test_durations_are_read_as_servers_write_them(text: str | None, seconds: float | None) -> None:
    assert seconds_of(text) == (None if seconds is None else pytest.approx(seconds))


def test_the_time_to_wait_is_read_from_headers_first_and_then_from_words() -> None:
    now = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)
    date = {"retry-after": "Thu, 26 Nov 2026 12:00:30 GMT"}
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}, "") == 0.25
    assert retry_after({"retry-after": "9"}, "try again in 1s") == 9
    assert retry_after(date, "", now=now) == 30
    assert retry_after({"retry-after": "Thu, 26 Nov 2026 11:00:00 GMT"}, "", now=now) == 0
    assert retry_after({"retry-after": "whenever"}, "", now=now) is None
    assert retry_after({}, "Rate limit reached. Please try again in 1m1.5s. Thanks") == 61.5
    assert retry_after({}, "Please retry after 20 seconds.") == 20
    assert retry_after({}, "Please wait 300ms") == 0.3
    assert retry_after({}, "Limit 500, used 480") is None


def test_what_will_never_work_names_no_time_to_wait() -> None:
    headers = {"retry-after": "5"}
    assert error_of(429, headers, body("x"), at=AT).retry_after == 5
    assert error_of(401, headers, body("x"), at=AT).retry_after is None


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ('{"error": {"message": "m", "type": "t"}}', ("m", "t")),
        ('{"error": "just words"}', ("just words", "")),
        ('[{"error": {"message": "m", "code": 400}}]', ("m", "400")),
        ('{"object": "error", "message": "m", "code": 404}', ("m", "404")),
        ('{"detail": "Not Found"}', ("Not Found", "")),
        ('{"detail": [{"loc": ["body"]}]}', ('[{"loc": ["body"]}]', "")),
        ("<html><b>Bad  gateway</b></html>", ("Bad gateway", "")),
        ("", ("", "")),
    ],
)
def test_error_bodies_are_read_in_every_shape(sent: str, told: tuple[str, str]) -> None:
    assert error_words(sent) == told


def test_what_looks_like_a_key_is_struck_out() -> None:
    error = error_of(401, {}, body("Incorrect API key provided: sk-proj-AbC*******xyz."), at=AT)
    assert "AbC" not in str(error) and "[key]" in str(error)


def test_rate_headers_are_read_and_their_absence_is_none() -> None:
    sent = {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    rate = read_rate_headers(sent)
    assert rate is not None
    assert (rate.limit_requests, rate.remaining_requests, rate.reset_requests_s) == (500, 499, 0.12)
    assert (rate.limit_tokens, rate.remaining_tokens, rate.reset_tokens_s) == (30000, None, 360)
    assert read_rate_headers({"date": "x"}) is None
