"""Which samples are drawn, in which order, in which pack: a pure function of lengths, seed and epoch.

What lives here: the order of an epoch, the packing of windows of it, and the division of a stage's packs into
optimizer steps. It may touch integers. It does not know files, pictures, tokens or models, and it reads no
random generator that others share: every choice follows from a hash of (seed, epoch, number), so that a plan
can be made again anywhere, at any time, by any number of processes, and is the same.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llavakit.errors import LlavakitError

WINDOW = 1024
"""Samples looked at together when packs are filled: large enough for 99 % fill, small enough to keep an order
random.
"""

FULL = 0.99
"""A pack filled to this fraction leaves its window; the others give their samples back to the next window."""

_MASK = (1 << 64) - 1


def mix64(*numbers: int) -> int:
    """A 64-bit hash of integers: the source of every random choice that data makes.

    The finaliser is SplitMix64's (Steele, Lea, Flood 2014), chosen because it is the same on every machine
    and in every version of every library.
    """
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state + (number & _MASK) * 0xD1342543DE82EF95 + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def shuffled(count: int, *key: int) -> np.ndarray:
    """A permutation of `range(count)`, int64, that depends on `count` and `key` alone."""
    with np.errstate(over="ignore"):
        state = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(mix64(*key))
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return np.argsort(state, kind="stable")


def plan_epoch(
    lengths: Sequence[int], pack: int, seed: int, epoch: int, *, window: int = WINDOW
) -> list[list[int]]:
    """Every sample exactly once, in packs of at most `pack` tokens, packs in random order.

    `lengths[i]` is the number of positions sample `i` takes. The samples are shuffled, then packed window by
    window: the longest that is left opens a pack, others are drawn at random while there is much room, and
    the last one or two are searched for the tightest fit. Packs that are not full when their window ends are
    opened again with the next one. This fills 99 % and more wherever a pack holds a handful of samples; a
    pack that holds two or three can only be as full as sums of two or three lengths allow.

    Raises LlavakitError when a sample is longer than a pack.
    """
    order = shuffled(len(lengths), seed, epoch, 0)
    sizes = np.asarray(lengths, dtype=np.int64)
    if len(sizes) and int(sizes.max()) > pack:
        worst = int(sizes.argmax())
        raise LlavakitError(
            f"sample {worst} takes {int(sizes[worst])} tokens and a pack holds {pack}: "
            "raise batch.pack or lower max_length"
        )
    keys = (sizes << _SIZE) | np.arange(len(sizes))
    packs: list[list[int]] = []
    waiting: list[int] = []
    for start in range(0, len(order), window):
        draw = random.Random(mix64(seed, epoch, start, 2)).random
        filled = _fill_packs(waiting + keys[order[start : start + window]].tolist(), pack, draw)
        if start + window >= len(order):
            packs += [samples for _, samples in filled]
            break
        waiting = []
        for room, samples in sorted(filled, key=lambda entry: -entry[0]):
            if room <= pack * (1 - FULL) or len(waiting) + len(samples) > window:
                packs.append(samples)
            else:
                waiting += samples
    return [[key & _SAMPLE for key in packs[i]] for i in shuffled(len(packs), seed, epoch, 1)]


# A sample travels through the packer as one integer, its size above its number, so that a sorted list of
# samples is a sorted list of sizes.
_SIZE = 32
_SAMPLE = (1 << _SIZE) - 1


def _fill_packs(keys: list[int], pack: int, draw: Callable[[], float]) -> list[tuple[int, list[int]]]:
    """All of `keys` in packs, each with the room left in it. `draw` gives numbers in [0, 1)."""
    left = sorted(keys)
    filled = []
    tries = _TRIES
    while left:
        longest = left.pop()
        room = pack - (longest >> _SIZE)
        best_room, best = room, list[int]()
        for _ in range(tries):
            slack, taken = _complete(left, room, pack * _TIGHT, draw)
            if slack < best_room:
                best_room, best = slack, taken
            if best_room <= pack * _TIGHT or not left:
                break
        tries = _TRIES if best_room <= pack * _TIGHT else max(1, tries // 2)
        for key in best:
            del left[bisect_left(left, key)]
        filled.append((best_room, [longest, *best]))
    return filled


_TIGHT = 0.004  # a pack with less than this share of it empty is not tried again
_TRIES = 6
_PROBES = 24


def _complete(left: list[int], room: int, tight: float, draw: Callable[[], float]) -> tuple[int, list[int]]:
    """A choice among the sorted `left` that fills `room`, and the room that stays."""
    left = left[:]
    taken: list[int] = []
    while left and room >= left[0] >> _SIZE:
        fitting = bisect_left(left, (room + 1) << _SIZE)
        chosen: tuple[int, ...] = (fitting - 1,)
        slack = room - (left[fitting - 1] >> _SIZE)
        if slack > tight and room <= 2 * (left[-1] >> _SIZE):
            for _ in range(_PROBES):
                first = int(draw() * fitting)
                rest = room - (left[first] >> _SIZE)
                second = bisect_left(left, (rest + 1) << _SIZE) - 1
                second -= second == first
                if second >= 0 and rest - (left[second] >> _SIZE) < slack:
                    slack, chosen = rest - (left[second] >> _SIZE), (first, second)
                    if slack <= tight:
                        break
        if slack > tight and room >= 3 * (left[0] >> _SIZE):
            chosen = (int(draw() * fitting),)
        for where in sorted(chosen, reverse=True):
            key = left.pop(where)
            room -= key >> _SIZE
            taken.append(key)
    return room, taken


@dataclass(frozen=True, slots=True)
class PlannedPack:
    """The samples of one packed forward, and the epoch that drew them (it decides the random order of
    pictures).
    """

    epoch: int
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StagePlan:
    """All packs of a stage in the order they are drawn, and where each optimizer step begins among them."""

    packs: tuple[PlannedPack, ...]
    bounds: tuple[int, ...]

    @property
    def steps(self) -> int:
        """How many optimizer steps the stage takes."""
        return len(self.bounds) - 1

    def packs_of(self, step: int) -> range:
        """The numbers of the packs that step `step` (from 0) adds up."""
        return range(self.bounds[step], self.bounds[step + 1])


def plan_stage(
    lengths: Sequence[int],
    *,
    pack: int,
    batch: int,
    epochs: float = 1.0,
    max_steps: int | None = None,
    seed: int = 0,
) -> StagePlan:
    """The plan of a whole stage.

    A step adds up at most `ceil(batch / pack)` packs; the packs are dealt out evenly, so that no step is much
    smaller than the others. A fractional epoch draws that fraction of its packs. The stage ends after
    `epochs` or after `max_steps`, whichever comes first.
    """
    packs: list[PlannedPack] = []
    for epoch in range(math.ceil(epochs)):
        drawn = plan_epoch(lengths, pack, seed, epoch)
        share = min(1.0, epochs - epoch)
        drawn = drawn[: math.ceil(len(drawn) * share)]
        packs += [PlannedPack(epoch, tuple(samples)) for samples in drawn]
    steps = math.ceil(len(packs) / math.ceil(batch / pack))
    bounds = [step * len(packs) // steps for step in range(steps + 1)] if steps else [0]
    if max_steps is not None:
        bounds = bounds[: max_steps + 1]
    return StagePlan(tuple(packs[: bounds[-1]]), tuple(bounds))
