"""What holds for the filter, whatever the captions, and that it equals the rule written down plainly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.errors import LlavakitError
from llavakit.synthesis.balance.choice import Rule, Told, choose, mixed

MASK = 2**64 - 1
Captions = list[tuple[str, frozenset[str]]]


def hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def told(captions: Captions) -> tuple[Told, list[str]]:
    names: dict[str, int] = {}
    ids = [names.setdefault(phrase, len(names)) for _, held in captions for phrase in held]
    starts = np.cumsum([0, *(len(held) for _, held in captions)])
    hashes = np.array([hashed(name) for name, _ in captions], dtype=np.uint64)
    phrases = np.array([hashed(name) for name in names], dtype=np.uint64)
    return Told(starts, np.array(ids, dtype=np.int32), hashes, phrases), list(names)


def key(caption: str, phrase: str, seed: int) -> int:
    z = hashed(caption) ^ ((hashed(phrase) + seed * 0x9E3779B97F4A7C15) & MASK)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def plainly(captions: Captions, rule: Rule) -> set[str]:
    """The filter as one would say it, with sets of names."""
    holders: dict[str, set[str]] = {}
    for name, held in captions:
        for phrase in held:
            holders.setdefault(phrase, set()).add(name)
    waiting = {phrase for phrase, names in holders.items() if len(names) >= rule.minimum}
    pool: set[str] = set()
    while waiting:
        free = {one: holders[one] - pool if rule.remaining == "recount" else holders[one] for one in waiting}
        phrase = min(free, key=lambda one: (len(free[one]), hashed(one)))
        waiting.remove(phrase)
        names = holders[phrase]
        room = rule.cap - len(names & pool) if rule.count_pooled else rule.cap
        if rule.count_pooled or rule.remaining == "recount":
            names = names - pool
        pool |= set(sorted(names, key=lambda name: key(name, phrase, rule.seed))[: max(0, room)])
    return pool


SETS = st.lists(st.frozensets(st.sampled_from("abcdefgh"), max_size=4), max_size=40).map(
    lambda held: [(f"caption {place}", phrases) for place, phrases in enumerate(held)]
)
RULES = st.builds(
    Rule,
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(0, 3),
    st.sampled_from(["once", "recount"]),
    st.booleans(),
)


def kept_names(captions: Captions, rule: Rule) -> set[str]:
    chosen = choose(told(captions)[0], rule)
    return {name for (name, _), stays in zip(captions, chosen.kept, strict=True) if stays}


@settings(max_examples=300, deadline=None)
@given(SETS, RULES)
def test_the_choice_is_the_rule_said_plainly(captions: Captions, rule: Rule) -> None:
    assert kept_names(captions, rule) == plainly(captions, rule)


@settings(max_examples=150, deadline=None)
@given(SETS, RULES)
def test_every_frequent_phrase_is_covered_and_draws_no_more_than_the_cap(
    captions: Captions, rule: Rule
) -> None:
    numbers, _ = told(captions)
    chosen = choose(numbers, rule)
    frequent = numbers.frequency() >= rule.minimum
    assert (numbers.frequency(chosen.kept)[frequent] > 0).all()
    assert (chosen.drawn <= rule.cap).all() and (chosen.drawn[~frequent] == 0).all()
    for (_, held), stays in zip(captions, chosen.kept, strict=True):
        assert held or not stays


@settings(max_examples=100, deadline=None)
@given(SETS, RULES, st.randoms())
def test_the_order_of_the_file_does_not_matter(captions: Captions, rule: Rule, rng: object) -> None:
    shuffled = list(captions)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert kept_names(shuffled, rule) == kept_names(captions, rule)


def test_a_caption_that_names_only_rare_things_is_left_out_and_common_ones_are_capped() -> None:
    captions = [(f"dog {n}", frozenset({"dog"})) for n in range(50)] + [("one okapi", frozenset({"okapi"}))]
    assert len(kept_names(captions, Rule(cap=10))) == 10
    assert kept_names(captions, Rule(cap=10)) != kept_names(captions, Rule(cap=10, seed=1))


def test_a_common_phrase_draws_from_all_unless_pooled_ones_count() -> None:
    rare = [(f"rare {n}", frozenset({"dog", "okapi"})) for n in range(5)]
    captions = [*rare, *((f"dog {n}", frozenset({"dog"})) for n in range(50))]
    assert len(kept_names(captions, Rule(cap=8, count_pooled=True))) == 8
    assert len(kept_names(captions, Rule(cap=8, remaining="recount"))) == 13
    assert 8 < len(kept_names(captions, Rule(cap=8))) <= 13


def test_draws_of_many_captions_are_even() -> None:
    keys = mixed(np.arange(20000, dtype=np.uint64), hashed("dog"), 0)
    assert abs(float(keys.astype(np.float64).mean()) / 2**64 - 0.5) < 0.01


@pytest.mark.parametrize("wrong", [{"minimum": 0}, {"cap": 0}, {"remaining": "twice"}])
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, Sequence[object]]) -> None:
    with pytest.raises(LlavakitError):
        Rule(**wrong)  # type: ignore[arg-type]
