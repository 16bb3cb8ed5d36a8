"""The books of a fake endpoint: what came, what was worked on and so paid for, and which faults were served."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any


class Counts:
    """Counted by the server, so that nothing that happens to a client can change them.

    A request is paid for from the moment it is worked on, whether or not its answer arrives.
    """

    def __init__(self) -> None:
        self.received_by_key: Counter[str] = Counter()
        self.paid_by_key: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.answered = self.rejected = self.rate_limited = self.left_waiting = 0
        self.at_once = self.most_at_once = 0
        self.prompt_tokens = self.completion_tokens = 0
        self._first: float | None = None
        self._last = 0.0

    def arrive(self, key: str) -> int:
        """The number of this attempt at this key, from 1."""
        self._first = time.monotonic() if self._first is None else self._first
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.received_by_key[key] += 1
        return self.received_by_key[key]

    def leave(self) -> None:
        self.at_once -= 1
        self._last = time.monotonic()

    def bill(self, key: str, prompt: int, completion: int) -> None:
        self.paid_by_key[key] += 1
        self.prompt_tokens += prompt
        self.completion_tokens += completion

    @property
    def elapsed_s(self) -> float:
        """From the first arrival to the last answer, or to now while requests are under way."""
        if self._first is None:
            return 0.0
        return (time.monotonic() if self.at_once else self._last) - self._first

    def told(self, *, keys: bool = True) -> dict[str, Any]:
        """All of it as plain values; by key too if asked."""
        told: dict[str, Any] = {
            "received": self.received_by_key.total(),
            "different": len(self.received_by_key),
            "answered": self.answered,
            "paid": self.paid_by_key.total(),
            "paid_again": self.paid_by_key.total() - len(self.paid_by_key),
            "rejected": self.rejected,
            "rate_limited": self.rate_limited,
            "left_waiting": self.left_waiting,
            "at_once": self.at_once,
            "most_at_once": self.most_at_once,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "elapsed_s": self.elapsed_s,
            "faults": dict(self.faults),
        }
        if keys:
            told["received_by_key"] = dict(self.received_by_key)
            told["paid_by_key"] = dict(self.paid_by_key)
        return told
