"""Intervals: the fast way for means agrees with the plain one, units stay together, nothing gives no number."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from llavakit.evaluation.benchmark import Benchmark, Figures, Question, Variant, Verdict
from llavakit.evaluation.intervals import bootstrap, wilson


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    count = len(verdicts)
    return {"accuracy": 100 * sum(verdict.credit for verdict in verdicts) / count if count else math.nan}


def whole_units(verdicts: Sequence[Verdict]) -> Figures:
    """Percent of units all of whose questions are right: circular evaluation."""
    grouped: dict[str, list[float]] = {}
    for verdict in verdicts:
        grouped.setdefault(verdict.question.unit, []).append(verdict.credit)
    assert all(len(credits) == 2 for credits in grouped.values()), "a unit that is drawn twice is two units"
    return {"accuracy": 100 * sum(all(credits) for credits in grouped.values()) / len(grouped)}


MEAN = Benchmark(
    name="toy",
    title="Toy",
    files=(),
    variants=(Variant("plain", "toy"),),
    read=lambda folder, variant: [],
    mark=lambda question, answer: Verdict(question, answer, 0.0),
    summarise=summarise,
    headline="accuracy",
)
PLAIN = replace(MEAN, mean=False)


def verdicts(right: int, total: int, unit: int = 1) -> list[Verdict]:
    return [
        Verdict(
            Question(str(place), (), "?", "", unit=f"u{place // unit}" if unit > 1 else ""),
            "",
            float(place < right),
        )
        for place in range(total)
    ]


def test_the_fast_interval_of_a_mean_is_that_of_drawing_verdicts() -> None:
    made = verdicts(140, 200)
    fast, plain = bootstrap(MEAN, made), bootstrap(PLAIN, made, draws=2000)
    assert (fast.low, fast.high) == pytest.approx((plain.low, plain.high), abs=0.6)
    low, high = wilson(140, 200)
    assert (fast.low, fast.high) == pytest.approx((100 * low, 100 * high), abs=0.6)


def test_questions_of_one_unit_count_as_one_draw() -> None:
    single, paired = bootstrap(MEAN, verdicts(140, 200)), bootstrap(MEAN, verdicts(140, 200, unit=2))
    assert paired.units == 100
    widening = (paired.high - paired.low) / (single.high - single.low)
    assert widening == pytest.approx(math.sqrt(2), rel=0.05)


def test_a_unit_that_is_drawn_again_stays_a_unit_by_itself() -> None:
    benchmark = replace(PLAIN, summarise=whole_units)
    found = bootstrap(benchmark, verdicts(140, 200, unit=2), draws=300)
    assert found.low < 70 < found.high


def test_draws_without_a_figure_are_counted_and_nothing_has_no_interval() -> None:
    def only_first(made: Sequence[Verdict]) -> Figures:
        there = any(verdict.question.id.split("~")[0] == "0" for verdict in made)
        return {"accuracy": 50.0 if there else math.nan}

    found = bootstrap(replace(PLAIN, summarise=only_first), verdicts(1, 10), draws=400)
    assert found.undefined == pytest.approx(400 * 0.9**10, rel=0.3)
    assert (found.low, found.high) == (50.0, 50.0)
    assert math.isnan(bootstrap(MEAN, []).low)
    assert math.isnan(wilson(0, 0)[0])


def test_a_hundred_thousand_answers_take_no_time() -> None:
    made = verdicts(70_000, 100_000)
    since = time.perf_counter()
    found = bootstrap(MEAN, made)
    assert time.perf_counter() - since < 2
    assert 69.6 < found.low < 70 < found.high < 70.4


@pytest.mark.parametrize("right", [0, 60])
def test_all_alike_is_no_certainty(right: int) -> None:
    found = bootstrap(MEAN, verdicts(right, 60))
    assert found.high - found.low == pytest.approx(100 * (wilson(right, 60)[1] - wilson(right, 60)[0]))
    assert 5 < found.high - found.low < 7
    paired = bootstrap(MEAN, verdicts(right, 60, unit=2))
    assert paired.high - paired.low > found.high - found.low, "30 units tell less than 60"
    assert "tells nothing of chance" in bootstrap(PLAIN, verdicts(right, 60)).method


def test_wilson_agrees_with_published_examples() -> None:
    """Newcombe 1998, table I."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    low, high = wilson(0, 20)
    assert low == pytest.approx(0, abs=1e-9) and 0.1 < high < 0.2


def test_wilsons_interval_of_all_and_of_none_reaches_them() -> None:
    assert {wilson(total, total)[1] for total in range(1, 3000)} == {1.0}
    assert {wilson(0, total)[0] for total in range(1, 3000)} == {0.0}
