"""How sure a score is: its 95 % interval by the bootstrap over units, and Wilson's for a share.

Units, not questions, are drawn, since questions of one picture or rotations of one question stand or fall together.
Where all answers are right, or all wrong, every draw is alike and the bootstrap has nothing to say: Wilson's interval
over units stands in its place.

Knows benchmarks' figures. Draws with a fixed seed, so that the same answers give the same interval.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llavakit.evaluation.benchmark import Benchmark, Verdict

SEED = 20240
MEAN_DRAWS = 20_000
WORK = 2_000_000
"""Verdicts summed over all draws of a figure that is no mean; draws are between 200 and 1,000."""


@dataclass(frozen=True, slots=True)
class Interval:
    """From low to high; nan where there is none. draws: that gave a figure; undefined: that gave none."""

    low: float
    high: float
    method: str
    units: int
    draws: int = 0
    undefined: int = 0


def wilson(right: float, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; sound near 0 and 1. (nan, nan) of nothing."""
    if not total:
        return math.nan, math.nan
    z, share = 1.959964, right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    # at the ends the interval reaches the share itself, which rounding must not take out of it
    return min(share, max(0.0, middle - reach)), max(share, min(1.0, middle + reach))


def units(verdicts: Sequence[Verdict]) -> list[list[Verdict]]:
    """Verdicts by unit; a question without one is a unit by itself."""
    grouped: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        question = verdict.question
        key = ("unit", question.unit) if question.unit else ("question", question.id)
        grouped.setdefault(key, []).append(verdict)
    return list(grouped.values())


def bootstrap(benchmark: Benchmark, verdicts: Sequence[Verdict], *, draws: int = 0) -> Interval:
    """The 95 % percentile interval of the headline over verdicts with a credit. draws: 0 for a number that fits."""
    known = [verdict for verdict in verdicts if math.isfinite(verdict.credit)]
    grouped = units(known)
    if not known and verdicts:
        return Interval(math.nan, math.nan, "none: no answer has a credit", 0)
    if len(grouped) < 2:
        return Interval(math.nan, math.nan, "none: fewer than two units", len(grouped))
    values = (
        _mean_draws(grouped, draws or MEAN_DRAWS)
        if benchmark.mean
        else figure_draws(benchmark, grouped, draws or min(1000, max(200, WORK // len(known))))
    )
    fine = values[np.isfinite(values)]
    if not len(fine):
        return Interval(math.nan, math.nan, "none: the figure is undefined", len(grouped), 0, len(values))
    low, high = map(float, np.percentile(fine, [2.5, 97.5]))
    method, undefined = "bootstrap over units", len(values) - len(fine)
    if low == high and benchmark.mean and low in (0.0, 100.0):
        low, high = (100 * share for share in wilson(len(grouped) * low / 100, len(grouped)))
        return Interval(low, high, "Wilson over units, as all are alike", len(grouped))
    if low == high:
        method += ", all draws alike, which tells nothing of chance"
    return Interval(low, high, method, len(grouped), len(fine), undefined)


def _mean_draws(grouped: Sequence[Sequence[Verdict]], draws: int) -> np.ndarray:
    """The percent mean credit of every draw.

    Units with the same credit and size are exchangeable, so it is enough to draw how many come of each kind.
    """
    kinds = Counter((math.fsum(verdict.credit for verdict in unit), len(unit)) for unit in grouped)
    credits_J = np.array([credit for credit, _ in kinds])
    sizes_J = np.array([size for _, size in kinds], dtype=float)
    share_J = np.array(list(kinds.values())) / len(grouped)
    if len(kinds) * draws > 50_000_000:
        draws = max(1000, 50_000_000 // len(kinds))
    drawn_DJ = np.random.default_rng(SEED).multinomial(len(grouped), share_J, size=draws)
    result: np.ndarray = 100 * (drawn_DJ @ credits_J) / (drawn_DJ @ sizes_J)
    return result


def figure_draws(benchmark: Benchmark, grouped: Sequence[Sequence[Verdict]], draws: int) -> np.ndarray:
    """The headline of every draw; a unit drawn again comes under another name, so that it stays a unit by itself.

    As many units give the same draws, so that two runs with their units in one order are drawn together.
    """
    copies: dict[tuple[int, int], list[Verdict]] = {}
    generator = np.random.default_rng(SEED)
    values = np.empty(draws)
    for draw in range(draws):
        drawn: list[Verdict] = []
        for place, times in enumerate(np.bincount(generator.integers(0, len(grouped), len(grouped)))):
            for again in range(times):
                if (place, again) not in copies:
                    copies[place, again] = [_renamed(verdict, again) for verdict in grouped[place]]
                drawn += copies[place, again]
        values[draw] = benchmark.summarise(drawn).get(benchmark.headline, math.nan)
    return values


def _renamed(verdict: Verdict, again: int) -> Verdict:
    if not again:
        return verdict
    question = verdict.question
    unit = f"{question.unit}~{again}" if question.unit else ""
    return replace(verdict, question=replace(question, id=f"{question.id}~{again}", unit=unit))
