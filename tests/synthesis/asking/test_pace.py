"""The window finds an endpoint's capacity, whether that queues in silence or says no, and gives way when told to."""

from __future__ import annotations

import heapq

import pytest

from llavakit.synthesis.asking.pace import Bucket, Window


def drive(
    slots: int, seconds: float, *, rejects: bool, calls: int = 2000, most: int = 256
) -> tuple[float, Window, int]:
    """A simulated endpoint: (share of its capacity that was used, the window, rejections)."""
    window = Window(most)
    now, done, rejected = 0.0, 0, 0
    free = [0.0] * slots  # when each slot is free
    ends: list[tuple[float, float]] = []  # (end, start)
    while done < calls:
        while len(ends) < window.calls and done + len(ends) < calls:
            heapq.heapify(free)
            if rejects and free[0] > now:
                rejected += 1
                window.on_overload(now, len(ends) + 1)
                break
            start = max(now, heapq.heappop(free))
            heapq.heappush(free, start + seconds)
            heapq.heappush(ends, (start + seconds, now))
        now, began = heapq.heappop(ends)
        done += 1
        window.on_reply(now, now - began)
    return calls * seconds / slots / now, window, rejected


@pytest.mark.parametrize("slots", [1, 4, 32, 100])
@pytest.mark.parametrize("rejects", [False, True])
def test_the_capacity_of_an_endpoint_is_used(slots: int, rejects: bool) -> None:
    used, window, rejected = drive(slots, 0.5, rejects=rejects, calls=125 * slots)
    assert used >= (0.95 if slots <= 32 and not rejects else 0.9)
    assert window.calls <= max(1.6 * slots, 9)
    assert rejected < 0.1 * 125 * slots


def test_the_window_stays_within_what_was_allowed() -> None:
    assert drive(100, 0.1, rejects=False, most=7)[1].calls == 7


def test_an_overload_shrinks_the_window_once_a_round_trip_and_never_below_one() -> None:
    window = Window(256)
    for number in range(50):
        window.on_reply(number * 0.1, 1.0)
    window.on_overload(10.0, window.calls)
    assert window.size == pytest.approx(0.7 * 32)
    window.on_overload(10.5, 32)
    assert window.size == pytest.approx(0.7 * 32)
    for number in range(100):
        window.on_overload(20.0 + 5 * number, 1)
    assert window.calls == 1


def test_a_rare_overload_does_not_wear_the_window_down() -> None:
    """Errors that are not the number's fault come at random."""
    window = Window(256)
    now = 0.0
    for number in range(4000):
        now += 0.5 / window.calls
        window.on_reply(now, 0.5)
        if number % 50 == 49:
            window.on_overload(now, window.calls)
    assert window.size >= 8


def test_a_bucket_gives_its_limit_a_minute() -> None:
    bucket, now, taken = Bucket(600), 0.0, 0
    while now < 60:
        pause = bucket.wait(now, 1)
        now += pause
        bucket.take(now, 1)
        taken += 1
    assert 600 <= taken <= 651
