"""Limits a minute as hosts keep them: an allowance that fills up steadily, told in `x-ratelimit-*` headers."""

from __future__ import annotations

import time
from collections.abc import Callable


class Allowance:
    """So much a minute, 0 for no limit; a whole minute's worth may be used at once."""

    def __init__(self, name: str, a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.a_minute, self._clock = name, a_minute, clock
        self._left, self._at = float(a_minute), clock()

    def lacking_s(self, amount: float) -> float:
        """Seconds until so much may be used; 0 when it may be now, or when it is more than will ever fit."""
        if not self.a_minute:
            return 0.0
        self._fill()
        return max(0.0, min(amount, self.a_minute) - self._left) * 60 / self.a_minute

    def use(self, amount: float) -> None:
        """Take so much; a negative amount gives back."""
        if self.a_minute:
            self._fill()
            self._left = min(self._left - amount, float(self.a_minute))

    def headers(self) -> dict[str, str]:
        if not self.a_minute:
            return {}
        self._fill()
        full_in = (self.a_minute - self._left) * 60 / self.a_minute
        return {
            f"x-ratelimit-limit-{self.name}": str(self.a_minute),
            f"x-ratelimit-remaining-{self.name}": str(max(0, int(self._left))),
            f"x-ratelimit-reset-{self.name}": f"{full_in:.3f}s",
        }

    def _fill(self) -> None:
        now = self._clock()
        self._left = min(float(self.a_minute), self._left + (now - self._at) * self.a_minute / 60)
        self._at = now
