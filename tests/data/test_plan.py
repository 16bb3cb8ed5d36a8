"""The plan: every sample once, packs full, order random, and all of it a pure function of its arguments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.data.plan import mix64, plan_epoch, plan_stage, shuffled
from llavakit.errors import LlavakitError

lengths = st.lists(st.integers(1, 64), max_size=300)


def realistic(count: int, seed: int = 0, pictures: int = 576) -> list[int]:
    """Lengths like LLaVA's: log-normal text, and a picture in most conversations."""
    draw = np.random.default_rng(seed)
    text = np.clip(draw.lognormal(np.log(165), 0.8, count), 30, 900)
    return (text + np.where(draw.random(count) < 0.94, pictures, 0)).astype(int).tolist()


@settings(deadline=None)
@given(lengths, st.integers(64, 200), st.integers(0, 2**40), st.integers(0, 5), st.integers(1, 50))
def test_every_sample_stands_in_exactly_one_pack_and_fits(
    sizes: list[int], pack: int, seed: int, epoch: int, window: int
) -> None:
    packs = plan_epoch(sizes, pack, seed, epoch, window=window)
    assert sorted(itertools.chain.from_iterable(packs)) == list(range(len(sizes)))
    assert all(samples and sum(sizes[i] for i in samples) <= pack for samples in packs)


@settings(deadline=None)
@given(lengths, st.integers(0, 100))
def test_a_plan_is_a_pure_function(sizes: list[int], seed: int) -> None:
    assert plan_epoch(sizes, 64, seed, 3) == plan_epoch(np.array(sizes, np.int32), 64, seed, 3)  # type: ignore[arg-type]


def test_a_plan_never_changes() -> None:
    """A run that is resumed by a later version must draw what the earlier one would have drawn."""
    assert plan_epoch([3, 5, 2, 7, 4, 1], 8, seed=1, epoch=0) == [[4, 2], [3, 5], [1, 0]]
    assert mix64(1, 2, 3) == 8977394981690719418


@pytest.mark.parametrize(
    ("pack", "pictures", "least"),
    [(4096, 576, 0.994), (8192, 576, 0.997), (3072, 576, 0.983), (4096, 36, 0.996), (2048, 144, 0.998)],
)
def test_packs_are_full(pack: int, pictures: int, least: float) -> None:
    sizes = realistic(8000, pictures=pictures)
    packs = plan_epoch(sizes, pack, 0, 0)
    assert sum(sizes) / (len(packs) * pack) >= least


def test_who_meets_whom_changes_from_epoch_to_epoch() -> None:
    """With packs as large as a window, a pack is a run of the epoch's order."""
    runs = [{frozenset(p) for p in plan_epoch([1] * 400, 4, 0, epoch, window=4)} for epoch in (0, 1)]
    assert len(runs[0] & runs[1]) < 10


def test_packs_of_a_small_set_are_as_few_as_they_can_be() -> None:
    assert len(plan_epoch([50] * 40, 100, 0, 0)) == 20
    assert len(plan_epoch([60, 40] * 30, 100, 0, 0)) == 30


def test_epochs_and_seeds_draw_different_orders() -> None:
    sizes = realistic(500)
    plans = [plan_epoch(sizes, 4096, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(one != other for one, other in itertools.combinations(plans, 2))


def test_the_order_is_random() -> None:
    """Where a sample is drawn says nothing about its number nor about its length."""
    sizes = realistic(20000)
    packs = plan_epoch(sizes, 4096, 0, 0)
    place = np.zeros(len(sizes))
    for number, samples in enumerate(packs):
        place[samples] = number
    assert abs(np.corrcoef(place, np.arange(len(sizes)))[0, 1]) < 0.03
    assert abs(np.corrcoef(place, sizes)[0, 1]) < 0.03


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(0, 2**64 - 1))
def test_shuffled_is_a_permutation(count: int, key: int) -> None:
    assert sorted(shuffled(count, key).tolist()) == list(range(count))


def test_a_sample_that_no_pack_can_hold_is_named() -> None:
    with pytest.raises(LlavakitError, match="sample 1 takes 101 tokens and a pack holds 100"):
        plan_epoch([5, 101, 7], 100, 0, 0)


@settings(max_examples=50, deadline=None)
@given(lengths.filter(bool), st.floats(0.1, 3.5), st.integers(64, 400), st.none() | st.integers(1, 9))
def test_a_stage_draws_whole_epochs_then_a_share_of_one(
    sizes: list[int], epochs: float, batch: int, max_steps: int | None
) -> None:
    plan = plan_stage(sizes, pack=64, batch=batch, epochs=epochs, max_steps=max_steps, seed=5)
    at_most = -(-batch // 64)
    steps = [list(plan.packs_of(step)) for step in range(plan.steps)]
    assert list(itertools.chain.from_iterable(steps)) == list(range(len(plan.packs)))
    assert all(1 <= len(step) <= at_most for step in steps)
    assert max_steps is None or plan.steps <= max_steps
    for epoch in range(int(epochs)):
        drawn = [pack.samples for pack in plan.packs if pack.epoch == epoch]
        whole = [tuple(samples) for samples in plan_epoch(sizes, 64, 5, epoch)]
        assert drawn == whole[: len(drawn)]
        assert max_steps is not None or drawn == whole


def test_steps_are_equally_large_and_max_steps_cuts_the_stage_short() -> None:
    plan = plan_stage([64] * 10, pack=64, batch=256, epochs=1, seed=0)
    assert [len(plan.packs_of(step)) for step in range(plan.steps)] == [3, 3, 4]
    cut = plan_stage([64] * 10, pack=64, batch=256, epochs=5, max_steps=2, seed=0)
    assert cut.steps == 2 and len(cut.packs) == cut.bounds[-1]


def test_no_samples_no_steps() -> None:
    plan = plan_stage([], pack=64, batch=64, seed=0)
    assert plan.steps == 0 and plan.packs == ()
