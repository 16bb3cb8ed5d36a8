"""The filter itself: which captions stay, so that every phrase that is not too rare is still told of (LLaVA, appendix).

Phrases are taken from the rarest up, those below `minimum` not at all; each adds its captions to the pool, at most
`cap` of them, drawn at random. The paper leaves open what `Rule` names. Nothing depends on the order of the captions:
what is drawn, and which of equally frequent phrases comes first, follows from hashes and the seed.

Knows numbers alone: captions and phrases by place, and a hash of each.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llavakit.errors import LlavakitError

Hashes = NDArray[np.uint64]
Places = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Rule:
    """How captions are chosen.

    minimum: captions that have to hold a phrase for it to count. cap: captions that one phrase draws at most.
    remaining: `once` takes phrases in the order of their frequency in the whole set; `recount` takes the phrase that is
    in the fewest captions not yet pooled, and draws from those. count_pooled: whether captions that other phrases
    pooled count towards a phrase's cap.
    """

    minimum: int = 3
    cap: int = 100
    seed: int = 0
    remaining: Literal["once", "recount"] = "once"
    count_pooled: bool = False

    def __post_init__(self) -> None:
        if self.minimum < 1 or self.cap < 1:
            raise LlavakitError(
                f"The filter needs a minimum and a cap of 1 or more; found {self.minimum} and {self.cap}."
            )
        if self.remaining not in ("once", "recount"):
            raise LlavakitError(f"`remaining` is once or recount; found {self.remaining!r}.")


@dataclass(frozen=True, slots=True)
class Told:
    """Which phrases each caption holds, each once: caption `i` holds `ids[starts[i]:starts[i + 1]]`.

    captions, phrases: a hash of each, which must not depend on where it stands in the file.
    """

    starts: NDArray[np.int64]
    ids: Places
    captions: Hashes
    phrases: Hashes

    def frequency(self, kept: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """For each phrase, the captions that hold it: all, or those that are kept."""
        ids = self.ids if kept is None else self.ids[np.repeat(kept, np.diff(self.starts))]
        return np.bincount(ids, minlength=len(self.phrases)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Chosen:
    """kept: for each caption whether it stays. drawn: for each phrase, how many captions it drew (pooled ones too)."""

    kept: NDArray[np.bool_]
    drawn: NDArray[np.int64]


def choose(told: Told, rule: Rule) -> Chosen:
    """The captions that stay."""
    frequency = told.frequency()
    holders, starts = _holders(told)
    usable = np.flatnonzero(frequency >= rule.minimum)
    ordered = usable[np.lexsort((usable, told.phrases[usable], frequency[usable]))]
    kept = np.zeros(len(told.captions), dtype=bool)
    drawn = np.zeros(len(told.phrases), dtype=np.int64)
    if rule.remaining == "recount":
        _recount(told, rule, ordered, frequency, holders, starts, kept, drawn)
        return Chosen(kept, drawn)
    for phrase in ordered.tolist():
        theirs = holders[starts[phrase] : starts[phrase + 1]]
        if rule.count_pooled:
            pooled = kept[theirs]
            wanted, theirs = rule.cap - int(np.count_nonzero(pooled)), theirs[~pooled]
        else:
            wanted = rule.cap
        taken = _draw(told, theirs, max(0, wanted), int(told.phrases[phrase]), rule.seed)
        kept[taken] = True
        drawn[phrase] = len(taken)
    return Chosen(kept, drawn)


def _recount(
    told: Told,
    rule: Rule,
    ordered: NDArray[np.int64],
    frequency: NDArray[np.int64],
    holders: Places,
    starts: NDArray[np.int64],
    kept: NDArray[np.bool_],
    drawn: NDArray[np.int64],
) -> None:
    left = frequency.copy()
    waiting = np.zeros(len(left), dtype=bool)
    waiting[ordered] = True
    hashes = told.phrases
    queue = [(int(left[one]), int(hashes[one]), one) for one in ordered.tolist()]
    heapq.heapify(queue)
    while queue:
        remaining, _, phrase = heapq.heappop(queue)
        if not waiting[phrase] or remaining != left[phrase]:
            continue  # it was taken, or stands in the queue again with what is left now
        waiting[phrase] = False
        theirs = holders[starts[phrase] : starts[phrase + 1]]
        free = theirs[~kept[theirs]]
        wanted = rule.cap - (len(theirs) - len(free)) if rule.count_pooled else rule.cap
        taken = _draw(told, free, max(0, wanted), int(hashes[phrase]), rule.seed)
        drawn[phrase] = len(taken)
        kept[taken] = True
        touched: list[Places] = [told.ids[told.starts[one] : told.starts[one + 1]] for one in taken.tolist()]
        if not touched:
            continue
        phrases, times = np.unique(np.concatenate(touched), return_counts=True)
        left[phrases] -= times
        for other in phrases[waiting[phrases]].tolist():
            heapq.heappush(queue, (int(left[other]), int(hashes[other]), other))


def _holders(told: Told) -> tuple[Places, NDArray[np.int64]]:
    """The captions of each phrase: phrase `p` is in `holders[starts[p]:starts[p + 1]]`."""
    owner = np.repeat(np.arange(len(told.captions), dtype=np.int32), np.diff(told.starts))
    order = np.argsort(told.ids, kind="stable")
    starts = np.zeros(len(told.phrases) + 1, dtype=np.int64)
    np.cumsum(np.bincount(told.ids, minlength=len(told.phrases)), out=starts[1:])
    return owner[order], starts


def _draw(told: Told, theirs: Places, wanted: int, phrase: int, seed: int) -> Any:
    """As many captions as wanted: those whose hash, mixed with the phrase's and the seed, is smallest."""
    if len(theirs) <= wanted:
        return theirs
    if wanted == 0:
        return theirs[:0]
    hashes = told.captions[theirs]
    keys = mixed(hashes, phrase, seed)
    return theirs[np.lexsort((hashes, keys))[:wanted]]


def mixed(captions: Hashes, phrase: int, seed: int) -> Hashes:
    """A number for each caption that is as good as random and differs by phrase and seed (splitmix64)."""
    base = (phrase + seed * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = captions ^ np.uint64(base)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
