"""What a run will ask, take and cost, told before the first call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llavakit.synthesis.asking.budget import Budget, Purse
from llavakit.synthesis.asking.journal import Journal
from llavakit.synthesis.asking.prices import Prices
from llavakit.synthesis.asking.stored import is_settled
from llavakit.synthesis.teacher import TeacherRequest

_CHARACTERS_A_TOKEN = 4
_FILLED = 0.5  # of the room that a reply has, until replies tell


@dataclass(frozen=True, slots=True)
class Estimate:
    """requests: all of them; kept: those with an answer in the journal. prompt, completion: tokens of the missing ones,
    about. usd: what they will cost, about, and `most_usd` what they can at most; None where a model has no price.
    measured: whether replies in the journal taught the sizes."""

    requests: int
    kept: int
    prompt: int
    completion: int
    usd: float | None
    most_usd: float | None
    measured: bool

    @property
    def missing(self) -> int:
        return self.requests - self.kept


def estimate(
    requests: Iterable[TeacherRequest],
    journal: Journal,
    prices: Prices | None,
    *,
    more_room: float = 2.0,
    in_batch: bool = False,
) -> Estimate:
    """Go through the requests once. Equal requests count once, as they are asked once."""
    purse = Purse(Budget(), prices)
    usual = journal.mean_usage()
    seen: set[bytes] = set()
    total = kept = prompt = completion = 0
    usd: float | None = 0.0
    most: float | None = 0.0
    for request in requests:
        key = bytes.fromhex(request.key)
        if key in seen:
            continue
        seen.add(key)
        total += 1
        if is_settled(journal.stored(request.key), request, more_room):
            kept += 1
            continue
        characters = sum(len(message.content) for message in request.messages)
        asked = round(usual[0]) if usual else characters // _CHARACTERS_A_TOKEN
        written = round(usual[1]) if usual else round(_FILLED * request.max_tokens)
        prompt += asked
        completion += written
        price = purse.price(request.model)
        if price is None or usd is None or most is None:
            usd = most = None
            continue
        usd += price.most(asked, written, in_batch=in_batch)
        most += purse.most(request, request.max_tokens, in_batch=in_batch)[0]
    return Estimate(total, kept, prompt, completion, usd, most, usual is not None)
