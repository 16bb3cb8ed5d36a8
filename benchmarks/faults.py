"""Faults planted into candidates about scenes, the way a teacher's accidents look, each through its whole reply.

One function a fault: it takes a candidate, the names of things that its picture lacks and random numbers, and gives the
exchanges with the fault in them, or None where the reply has no place for it (no number to get wrong, nothing to swap).
What was planted is known, so that what gates find can be counted.

Knows candidates and the scenes' words. Knows no gate: the phrases here were written without looking at theirs.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from llavakit.quickstart.scenes import NAMES, NUMBERS, PLURALS, article
from llavakit.synthesis.candidate import Candidate

Exchanges = tuple[tuple[str, str], ...]
Fault = Callable[[Candidate, random.Random], Exchanges | None]

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I am sorry, I cannot see any picture here.",
    "As a text-based assistant I am unable to look at images.",
    "Unfortunately, I don't have enough information to answer this question.",
    "I apologise, but I can't answer that.",
)
LEAKS = (
    "According to the captions, {}",
    "Based on the bounding boxes, {}",
    "The descriptions given say: {}",
    "From the coordinates provided, {}",
    "{} This is mentioned in the caption.",
)
BOILERPLATE = (
    "The image shows various elements that come together.",
    "There are many interesting things to see in this picture.",
    "It depends on the context of the image.",
    "This picture captures a moment in time.",
)
SIDES = {"left": "right", "right": "left"}
_NUMBER = re.compile(rf"\b({'|'.join(NUMBERS[1:])})\b", re.IGNORECASE)
_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_IS_THERE = re.compile(r"Is there an? (\w+)(?: in the picture| here)?\?")


def refusal(candidate: Candidate, rng: random.Random) -> Exchanges:
    """The teacher declines, in other words from question to question."""
    return tuple((question, rng.choice(REFUSALS)) for question, _ in candidate.exchanges)


def wrong_object(candidate: Candidate, rng: random.Random) -> Exchanges | None:
    """One kind of thing goes by another's name in all answers, and all that is asked for is said to be there."""
    shown = {box.category for box in candidate.picture.boxes}
    one, other = rng.choice(sorted(shown)), rng.choice([name for name in NAMES if name not in shown])
    named = {one: other, PLURALS[one]: PLURALS[other]}

    def answer(question: str, told: str) -> str:
        asked = _IS_THERE.fullmatch(question)
        if asked and told == "No":
            return "Yes"
        told = re.sub(
            rf"\b(an?) {one}\b",
            lambda m: _like(m[1], article(other)) + f" {other}",
            told,
            flags=re.IGNORECASE,
        )
        return re.sub(rf"\b({one}|{PLURALS[one]})\b", lambda m: named[m[1]], told)

    return _changed(candidate, answer)


def wrong_count(candidate: Candidate, rng: random.Random) -> Exchanges | None:
    """Every number in an answer is one too many or one too few; plurals stay plurals, so none becomes one."""
    step = rng.choice((-1, 1))
    words = (*NUMBERS, "five")

    def miscounted(found: re.Match[str]) -> str:
        said = words.index(found[1].lower())
        return _like(found[1], words[said + (step if said + step > 1 else 1)])

    return _changed(candidate, lambda _, told: _NUMBER.sub(miscounted, told))


def mirrored(candidate: Candidate, rng: random.Random) -> Exchanges | None:
    """Left is told as right and right as left; a question with a side in it gets the opposite yes or no."""

    def answer(question: str, told: str) -> str:
        if _SIDE.search(question) and told in {"Yes", "No"}:
            return "No" if told == "Yes" else "Yes"
        return _SIDE.sub(lambda m: _like(m[1], SIDES[m[1].lower()]), told)

    return _changed(candidate, answer)


def swapped_roles(candidate: Candidate, rng: random.Random) -> Exchanges:
    """What was asked stands as the answer and what was answered as the question."""
    return tuple((told, question) for question, told in candidate.exchanges)


def truncated(candidate: Candidate, rng: random.Random) -> Exchanges | None:
    """The reply breaks off inside an answer, although the endpoint says it is whole; what would follow is missing."""
    long = [place for place, (_, told) in enumerate(candidate.exchanges) if len(told.split()) >= 5]
    if not long:
        return None
    place = rng.choice(long)
    question, told = candidate.exchanges[place]
    words = told.split()
    cut = " ".join(words[: rng.randint(len(words) // 2, len(words) - 1)])
    return (*candidate.exchanges[:place], (question, cut))


def leaked(candidate: Candidate, rng: random.Random) -> Exchanges:
    """The answers speak of the captions and boxes that the teacher was told of."""

    def answer(told: str) -> str:
        form = rng.choice(LEAKS)
        if form.startswith("{}"):
            return form.format(told.rstrip(".") + ".")
        return form.format(told[0].lower() + told[1:])

    return tuple((question, answer(told)) for question, told in candidate.exchanges)


def boilerplate(candidate: Candidate, rng: random.Random) -> Exchanges:
    """Answers that would fit any picture."""
    return tuple((question, rng.choice(BOILERPLATE)) for question, _ in candidate.exchanges)


FAULTS: Mapping[str, Fault] = {
    "refusal": refusal,
    "wrong object": wrong_object,
    "wrong count": wrong_count,
    "left and right swapped": mirrored,
    "roles swapped": swapped_roles,
    "truncated": truncated,
    "leaked": leaked,
    "boilerplate": boilerplate,
}
DUPLICATE = "duplicate"
KINDS_OF_FAULT = (*FAULTS, DUPLICATE)


@dataclass(frozen=True, slots=True)
class Planted:
    """Candidates in their order, and for each the fault that was planted in it, "" for none."""

    candidates: tuple[Candidate, ...]
    faults: tuple[str, ...]


def plant(candidates: Sequence[Candidate], share: float, seed: int) -> Planted:
    """Plants faults into `share` of the candidates, every kind equally often; the same for the same seed.

    A duplicate stands in the place of a candidate: a sound one's text about its own picture once more.
    """
    rng = random.Random(f"faults/{seed}")
    order = list(range(len(candidates)))
    rng.shuffle(order)
    number = round(share * len(candidates))
    wanted = {
        kind: number // len(KINDS_OF_FAULT) + (place < number % len(KINDS_OF_FAULT))
        for place, kind in enumerate(KINDS_OF_FAULT)
    }
    changed, faults = list(candidates), [""] * len(candidates)
    left: list[int] = []
    copies = wanted.pop(DUPLICATE)
    for place in order:
        one = candidates[place]
        for kind in sorted(filter(wanted.get, wanted), key=lambda kind: -wanted[kind]):
            exchanges = FAULTS[kind](one, rng)
            if exchanges is not None:
                changed[place], faults[place] = replace(one, exchanges=exchanges), kind
                wanted[kind] -= 1
                break
        else:
            left.append(place)
    for place, source in zip(left[:copies], left[copies:], strict=False):
        changed[place] = replace(candidates[source], id=f"{candidates[source].id}-2")
        faults[place] = DUPLICATE
    return Planted(tuple(changed), tuple(faults))


def _changed(candidate: Candidate, answer: Callable[[str, str], str]) -> Exchanges | None:
    exchanges = tuple((question, answer(question, told)) for question, told in candidate.exchanges)
    return exchanges if exchanges != candidate.exchanges else None


def _like(told: str, word: str) -> str:
    """The word with a capital where the one in its place has one."""
    return word.capitalize() if told[0].isupper() else word
