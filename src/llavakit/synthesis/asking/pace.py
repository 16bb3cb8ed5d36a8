"""How fast an endpoint is asked: how many calls are under way at once, and how many go out a minute.

The window doubles while that brings more replies a second, and until the endpoint says that it is too much: a server
that queues silently says nothing, but then replies take longer in proportion. It then holds what was found, and tries a
little more now and then, ever more rarely while that brings nothing. Too much makes it seven tenths of itself, once a
round trip, and it grows back with every reply to what is known to go.

Replies a second are taken from Little's law, calls under way divided by the mean time they take, which bursts of
replies do not disturb. Knows numbers and times. Knows no network and sends nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

START = 8
_SHRINK = 0.7
_GAIN = 1.12  # a doubled window has to bring this much more, or it was too large
_PROBE, _PROBE_GAIN = 0.1, 1.04
_PROBE_FIRST, _PROBE_LAST = 2.0, 120.0  # seconds between attempts at a larger window
_MARGIN = 1.1


@dataclass(slots=True)
class Window:
    """How many calls may be under way at once. `size` is never below 1 or above `most`."""

    most: int
    size: float = START
    known: float | None = None  # what is known to go; None while it is still being looked for
    latency: float | None = None  # seconds, a running mean
    _last: tuple[float, float, float] | None = (
        None  # size, replies a second and latency of the last whole round
    )
    _skip: int = 0  # replies to calls that were sent before the window had its size
    _taken: list[float] = field(default_factory=list)  # latencies of the round
    _probing: float | None = None  # the size to go back to when the attempt brings nothing
    _probe_at: float = 0.0
    _probe_every: float = _PROBE_FIRST
    _shrunk_at: float = -math.inf
    _streak: int = 0  # overloads since the last reply

    def __post_init__(self) -> None:
        self.size = max(1.0, min(self.size, self.most))

    @property
    def calls(self) -> int:
        return max(1, int(self.size))

    def on_reply(self, now: float, latency: float) -> None:
        """A call that was answered, after `latency` seconds."""
        self.latency = latency if self.latency is None else self.latency + 0.1 * (latency - self.latency)
        self._streak = 0
        if self.known is not None and self.size < self.known:
            self.size = min(self.size + 1, self.known)
            self._start_round()
        elif self._skip > 0:
            self._skip -= 1
        else:
            self._taken.append(latency)
            if len(self._taken) >= self.size:
                self._end_round(now, sum(self._taken) / len(self._taken))

    def on_overload(self, now: float, under_way: int) -> None:
        """The endpoint said that it was too much, with so many calls under way."""
        self._streak += 1
        fewer = max(1.0, under_way - 1.0)
        if self._probing is not None:
            self._fall_back(now)
        elif self.known is None:
            self.known, self._probe_at = fewer, now + self._probe_every
        elif self._streak > 1:  # a single one may be nobody's fault
            self.known = min(self.known, fewer)
        if now - self._shrunk_at >= (self.latency or 0.0):
            self._shrunk_at = now
            self.size = max(1.0, min(self.size, under_way) * _SHRINK)
        self.size = min(self.size, self.known or self.size)
        self._last = None
        self._start_round()

    def _end_round(self, now: float, latency: float) -> None:
        rate = self.size / max(latency, 1e-9)
        last = self._last
        if self.known is None:
            if last is not None and rate < last[1] * _GAIN:
                enough = max(last[0], min(self.size, rate * last[2] * _MARGIN))
                self.known = self.size = enough
                self._probe_at, self._last = now + self._probe_every, None
            elif self.size >= self.most:
                self.known, self._probe_at, self._last = self.size, math.inf, None
            else:
                self._last = (self.size, rate, latency)
                self.size = min(self.size * 2, self.most)
        elif self._probing is not None:
            if last is None or rate > last[1] * _PROBE_GAIN:
                self._probing, self._probe_every, self._probe_at = None, _PROBE_FIRST, now
                self._last = (self.size, rate, latency)
            else:
                self._fall_back(now)
        elif now >= self._probe_at and self.size < self.most:
            self._last = (self.size, rate, latency)
            self._probing = self.size
            self.known = self.size = min(self.size + max(1.0, self.size * _PROBE), self.most)
        self._start_round()

    def _fall_back(self, now: float) -> None:
        self.known = self.size = self._probing or self.size
        self._probing = None
        self._probe_every = min(self._probe_every * 2, _PROBE_LAST)
        self._probe_at = now + self._probe_every

    def _start_round(self) -> None:
        self._taken.clear()
        self._skip = math.ceil(self.size)


@dataclass(slots=True)
class Bucket:
    """So many units a minute, at most five seconds' worth of them saved up."""

    per_minute: float
    level: float = field(init=False)
    at: float | None = None

    def __post_init__(self) -> None:
        self.level = self._most

    @property
    def _most(self) -> float:
        return max(self.per_minute / 12, 1.0)

    def wait(self, now: float, units: float) -> float:
        """Seconds until that many units are there. More than can be saved up wait for a full bucket."""
        self._fill(now)
        lacking = min(units, self._most) - self.level
        return max(0.0, lacking * 60 / self.per_minute)

    def take(self, now: float, units: float) -> None:
        self._fill(now)
        self.level -= units

    def give_back(self, units: float) -> None:
        self.level = min(self._most, self.level + units)

    def _fill(self, now: float) -> None:
        if self.at is not None:
            self.level = min(self._most, self.level + (now - self.at) * self.per_minute / 60)
        self.at = now
