"""The capacity of a fake endpoint: slots that requests take, and the time for which they were taken."""

from __future__ import annotations

import asyncio
import time
from collections import deque


class Slots:
    """At most `number` at once, 0 for any number; who comes later waits in the order of coming.

    busy, waiting: now; most_busy, most_waiting: ever. busy_s: seconds for which slots were taken, summed over slots.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.busy = self.most_busy = self.most_waiting = 0
        self._busy_s = 0.0
        self._since = time.monotonic()
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def full(self) -> bool:
        return bool(self.number) and self.busy >= self.number

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def busy_s(self) -> float:
        return self._busy_s + self.busy * (time.monotonic() - self._since)

    async def take(self, gone: asyncio.Future[None]) -> bool:
        """Wait for a slot and take it; False, with none taken, when the asker is gone before its turn."""
        if self.full:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            self.most_waiting = max(self.most_waiting, len(self._queue))
            try:
                await asyncio.wait((turn, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not turn.done():
                    self._queue.remove(turn)
            return turn.done()  # the slot was handed over by who gave it back
        self._set(self.busy + 1)
        return True

    def give_back(self) -> None:
        """Hand the slot to who waits longest, or free it."""
        if self._queue:
            self._queue.popleft().set_result(None)
        else:
            self._set(self.busy - 1)

    def _set(self, busy: int) -> None:
        now = time.monotonic()
        self._busy_s += self.busy * (now - self._since)
        self._since, self.busy = now, busy
        self.most_busy = max(self.most_busy, busy)
