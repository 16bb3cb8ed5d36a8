"""What the engine is told to do, what it says while it runs, and what it ends with. Data alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from llavakit.synthesis.asking.budget import Budget


@dataclass(frozen=True, slots=True)
class Limits:
    """How the engine may ask.

    concurrency: the most calls at once. attempts: calls for one request before it is given up. more_room: by this the
    room of a reply that was cut is multiplied, once; 1 never asks again.
    """

    concurrency: int = 256
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    attempts: int = 6
    more_room: float = 2.0
    budget: Budget = field(default_factory=Budget)


@dataclass(slots=True)
class Account:
    """How a run stands, counted from its start.

    skipped: requests that the journal had an answer to. repeated: requests that are equal to one under way. answered,
    refused, gave_up: requests by how they ended. cut: replies that were asked for once more with more room. troubles:
    attempts without a reply, by why. usd, tokens: of the whole journal. stopped: why the run ended before its requests
    did, "" when it did not; reason: a sentence about it.
    """

    skipped: int = 0
    repeated: int = 0
    answered: int = 0
    refused: int = 0
    gave_up: int = 0
    calls: int = 0
    cut: int = 0
    troubles: Counter[str] = field(default_factory=Counter)
    last_trouble: str = ""
    usd: float = 0.0
    tokens: int = 0
    under_way: int = 0
    window: int = 0
    seconds: float = 0.0
    waiting_s: float = 0.0
    stopped: Literal["", "budget", "access", "asked to"] = ""
    reason: str = ""

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds if self.seconds > 0 else 0.0


Report = Callable[[Account], None]


def silent(account: Account) -> None:
    """A report that nobody reads."""
