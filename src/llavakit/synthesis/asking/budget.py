"""The budget: nothing is sent before the most that it can cost has been set aside.

What a prompt will be billed is not known before the reply, so it is estimated from above: from the bytes of its texts,
by a rate that replies teach. A call whose reply is lost keeps all that was set aside for it as spent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llavakit.synthesis.asking.prices import Price, Prices
from llavakit.synthesis.teacher import TeacherRequest, Usage

_BYTES_A_TOKEN = 2.0  # until replies tell; English has about four
_TOKENS_A_MESSAGE = 8
_TOKENS_A_PICTURE = 3000  # above what services bill for pictures of up to 1,024 pixels
_MARGIN = 1.25
_ENOUGH = 20  # replies, before their rate stands in for the cautious one


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that all calls of a journal may cost, in money, in tokens or both. None is no limit."""

    usd: float | None = None
    tokens: int | None = None


class Purse:
    """What is spent and what is set aside.

    usd, tokens: what earlier calls in the same journal cost.
    """

    def __init__(self, budget: Budget, prices: Prices | None, usd: float = 0.0, tokens: int = 0) -> None:
        self.budget, self.prices = budget, prices
        self.usd, self.tokens = usd, tokens
        self._aside_usd, self._aside_tokens = 0.0, 0
        self._rate = 1 / _BYTES_A_TOKEN
        self._heard, self._seen = 0, 0.0

    def price(self, model: str) -> Price | None:
        return self.prices.of(model) if self.prices is not None else None

    def prompt_tokens(self, request: TeacherRequest) -> int:
        """The most tokens that a prompt will be billed for."""
        pictures = sum(len(message.pictures) for message in request.messages)
        fixed = _TOKENS_A_MESSAGE * len(request.messages) + _TOKENS_A_PICTURE * pictures
        return math.ceil(_size(request) * self._rate) + fixed

    def most(self, request: TeacherRequest, max_tokens: int, *, in_batch: bool = False) -> tuple[float, int]:
        """The most money and tokens that a call can cost."""
        prompt = self.prompt_tokens(request)
        price = self.price(request.model)
        usd = price.most(prompt, max_tokens, in_batch=in_batch) if price is not None else 0.0
        return usd, prompt + max_tokens

    def set_aside(self, usd: float, tokens: int) -> bool:
        """Whether this much is left; it is set aside then."""
        spent_usd = self.usd + self._aside_usd + usd
        spent_tokens = self.tokens + self._aside_tokens + tokens
        if self.budget.usd is not None and spent_usd > self.budget.usd:
            return False
        if self.budget.tokens is not None and spent_tokens > self.budget.tokens:
            return False
        self._aside_usd += usd
        self._aside_tokens += tokens
        return True

    def spend(self, aside: tuple[float, int], usd: float, tokens: int) -> None:
        """Give back what was set aside for a call and count what it cost."""
        self._aside_usd = max(self._aside_usd - aside[0], 0.0)
        self._aside_tokens -= aside[1]
        self.usd += usd
        self.tokens += tokens

    def learn(self, request: TeacherRequest, usage: Usage) -> None:
        """Let a reply's bill teach how many tokens a prompt's bytes are: the highest rate seen, with a margin."""
        size = _size(request)
        if not usage.prompt or not size or any(message.pictures for message in request.messages):
            return
        self._seen = max(self._seen, usage.prompt / size * _MARGIN)
        self._heard += 1
        if self._heard >= _ENOUGH or self._seen > self._rate:
            self._rate = min(self._seen, 1.0)


def _size(request: TeacherRequest) -> int:
    return sum(len(message.content.encode("utf-8", "surrogatepass")) for message in request.messages)
