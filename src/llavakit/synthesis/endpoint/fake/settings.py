"""How a fake endpoint behaves: its capacity, its limits, and how often which trouble befalls a request.

Data alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from llavakit.errors import LlavakitError

WAY_FAULTS = {
    "429": "told to come later, with a Retry-After, before any work",
    "500": "an internal error, before any work",
    "503": "overloaded, before any work",
    "silence": "worked on, and never answered",
    "cut": "worked on, and the connection cut before or within the answer",
    "broken-body": "worked on, and answered with half a JSON",
    "slow": "worked on for `slow_factor` times the latency",
}
"""Troubles on the way; drawn anew for every attempt."""

WRITTEN_FAULTS = {
    "truncated": "cut in the middle, with the reason `length`",
    "refusal": "an apology in place of an answer",
    "content-filter": "withheld, with the reason `content_filter`",
    "malformed": "not in the form that was asked for",
    "empty": "no text at all",
}
"""Troubles in what is written; they belong to the request, and come again with it where it has a seed."""


@dataclass(frozen=True, slots=True)
class FakeSettings:
    """What a fake endpoint is like.

    slots: the most that are worked on at once, 0 for any number. latency_s, jitter: seconds of work on a request, and
    by what share they vary. overload: what happens beyond the slots: `queue` lets requests wait, `reject` answers them
    with `reject_status`. faults: the rate, 0 to 1, of each of `WAY_FAULTS` and `WRITTEN_FAULTS`. retry_after_s: the
    wait that a 429 names. requests_per_minute, tokens_per_minute: limits, 0 for none; a whole minute's worth may come
    at once. key: the bearer token that is asked for, "" for none. batch_s: seconds that a batch takes.
    batch_expire: the share of each batch's requests that is left undone when it expires, 0 for batches that complete.
    """

    seed: int = 0
    slots: int = 0
    latency_s: float = 0.0
    jitter: float = 0.0
    overload: Literal["queue", "reject"] = "queue"
    reject_status: Literal[429, 503] = 429
    faults: Mapping[str, float] = field(default_factory=dict)
    retry_after_s: float = 1.0
    slow_factor: float = 10.0
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    models: tuple[str, ...] = ("fake-teacher",)
    key: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    batch_s: float = 0.0
    batch_expire: float = 0.0

    def __post_init__(self) -> None:
        known = {**WAY_FAULTS, **WRITTEN_FAULTS}
        for name, rate in self.faults.items():
            if name not in known:
                raise LlavakitError(f"There is no fault {name!r}; there are {', '.join(known)}.")
            if not 0 <= rate <= 1:
                raise LlavakitError(
                    f"The rate of the fault {name!r} is {rate}; expected a share from 0 to 1."
                )
        for group in (WAY_FAULTS, WRITTEN_FAULTS):
            total = sum(rate for name, rate in self.faults.items() if name in group)
            if total > 1 + 1e-9:
                raise LlavakitError(
                    f"The rates of {', '.join(name for name in group if name in self.faults)} come to {total:g}; "
                    "a request meets one of them at most, so they may come to 1."
                )
        for name in (
            "slots", "latency_s", "jitter", "retry_after_s", "slow_factor",
            "requests_per_minute", "tokens_per_minute", "batch_s", "batch_expire",
        ):  # fmt: skip
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise LlavakitError(f"{name} of a fake endpoint is {value}; expected 0 or more.")
        for name in ("jitter", "batch_expire"):
            if getattr(self, name) > 1:
                raise LlavakitError(f"{name} of a fake endpoint is {getattr(self, name)}; expected 0 to 1.")
