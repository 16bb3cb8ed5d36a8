"""Two runs on the same questions, compared answer by answer: how much they differ, and whether by more than luck.

Where the headline is a mean of right and wrong answers to questions that stand by themselves, the test is McNemar's,
exact; else it is a bootstrap over units, both runs drawn together, of the mean or of whatever the headline is. The
interval is always the bootstrap's, so that near p = 0.05 it and an exact test may disagree. Runs on other questions,
other data or another judge are not compared; another protocol is told.

Pure but for reading the two runs' files. Knows of a benchmark how its headline comes of verdicts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llavakit.errors import LlavakitError
from llavakit.evaluation import benchmarks
from llavakit.evaluation.benchmark import Benchmark, Verdict
from llavakit.evaluation.intervals import MEAN_DRAWS, SEED, figure_draws, units
from llavakit.evaluation.results import read_marked, read_results, verdicts_of
from llavakit.evaluation.saved import OWN_ID

FIGURE_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Paired:
    """A figure of two runs over the same questions and their difference, second minus first; low, high: its interval.

    p: of a difference as large by luck alone. better, worse: units on which the second is above and below the first.
    """

    first: float
    second: float
    low: float
    high: float
    p: float
    better: int
    worse: int
    units: int
    method: str

    @property
    def difference(self) -> float:
        return self.second - self.first


@dataclass(frozen=True, slots=True)
class Compared:
    """One benchmark of two runs. scores: the headlines, nan when undefined. told: what a reader has to know."""

    name: str
    headline: str
    scores: tuple[float, float]
    paired: Paired
    told: tuple[str, ...]


def compare(first: Path, second: Path) -> list[Compared]:
    """Every benchmark that both runs have. Raises LlavakitError when there is none, or when one cannot be compared."""
    one, two = read_results(first), read_results(second)
    names = [name for name in one["benchmarks"] if name in two["benchmarks"]]
    if not names:
        raise LlavakitError(
            f"{first} and {second} have no benchmark in common ({', '.join(one['benchmarks']) or 'none'}; "
            f"{', '.join(two['benchmarks']) or 'none'})"
        )
    return [
        _compared(
            name,
            (one["benchmarks"][name], two["benchmarks"][name]),
            (read_marked(first, name), read_marked(second, name)),
        )
        for name in names
    ]


def _compared(
    name: str,
    results: tuple[Mapping[str, Any], Mapping[str, Any]],
    rows: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]],
) -> Compared:
    one, two = results
    if one["hashes"]["questions"] != two["hashes"]["questions"]:
        raise LlavakitError(
            f"{name}: the runs are about different questions ({one['questions']['scored']} of "
            f"{one['questions']['all']}, variant {one['variant']}; {two['questions']['scored']} of "
            f"{two['questions']['all']}, variant {two['variant']}); compare runs on the same ones"
        )
    files = {*one["hashes"]["data"], *two["hashes"]["data"]}
    other = sorted(
        file for file in files if one["hashes"]["data"].get(file) != two["hashes"]["data"].get(file)
    )
    if other:
        raise LlavakitError(
            f"{name}: the runs' data differ in {', '.join(other)}; score both on the same files"
        )
    judges = [_judge(result["judge"]) for result in results]
    if judges[0] != judges[1]:
        raise LlavakitError(
            f"{name}: the runs had different judges ({judges[0]}; {judges[1]}); judge both alike"
        )
    told = []
    if one["hashes"]["rules"] != two["hashes"]["rules"]:
        told.append("the rules that mark answers have changed between the runs; score both again")
    if one["protocol"] != two["protocol"]:
        told.append(f"protocols differ: {one['protocol']}; {two['protocol']}")
    asking = [
        f"{key}: {one['asking'].get(key, 'not told')}; {two['asking'].get(key, 'not told')}"
        for key in ("condition", "max_new_tokens", "decoding", "template", "image_policy", "dtype")
        if one["asking"].get(key) != two["asking"].get(key)
    ]
    told += [f"asked differently, {line}" for line in asking]
    if any(all(row["credit"] is None for row in some) for some in rows):
        raise LlavakitError(
            f"{name}: answers without a credit, whose truth is on a server or on which no word of a judge could be "
            "read, cannot be compared"
        )
    benchmark = benchmarks.load(name)
    without = {str(row[OWN_ID]) for some in rows for row in some if row["credit"] is None}
    if without and benchmark.needs_judge:
        told.append(f"{len(without)} questions on which a judge gave no marks are left out of the test")
        rows = tuple([row for row in some if str(row[OWN_ID]) not in without] for some in rows)  # type: ignore[assignment]
    found = paired(*rows) if benchmark.mean else paired_figures(benchmark, *map(verdicts_of, rows))
    scores = tuple(math.nan if result["score"] is None else float(result["score"]) for result in results)
    if not without and any(
        abs(score - tested) > 0.005 for score, tested in zip(scores, (found.first, found.second), strict=True)
    ):
        told.append(
            f"the marked answers give {one['headline']} {found.first:.2f} and {found.second:.2f}, which are tested "
            "and are not the scores: several judgings were averaged, or the rules have changed"
        )
    return Compared(name, str(one["headline"]), (scores[0], scores[1]), found, tuple(told))


def _judge(told: Mapping[str, Any] | None) -> str:
    """What has to be equal of a judge: who it was by its own word, and how often it was asked."""
    if told is None:
        return "none"
    return ", ".join(f"{name} {told.get(name)}" for name in ("asked_as", "answered_as", "runs"))


def paired(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> Paired:
    """The paired test on marked answers, in any order. Raises LlavakitError when their questions differ."""
    if any(row["credit"] is None for row in (*first, *second)):
        raise LlavakitError("answers without a credit, whose truth is on a server, cannot be compared")
    credits = [{str(row[OWN_ID]): float(row["credit"]) for row in rows} for rows in (first, second)]
    if credits[0].keys() != credits[1].keys() or not credits[0]:
        raise LlavakitError("the marked answers of the two runs are not to the same questions")
    grouped: dict[tuple[str, str], tuple[float, float, int]] = {}
    for row in first:
        name = str(row[OWN_ID])
        key = ("unit", str(row["unit"])) if row["unit"] else ("question", name)
        a, b, size = grouped.get(key, (0.0, 0.0, 0))
        grouped[key] = a + credits[0][name], b + credits[1][name], size + 1
    found = list(grouped.values())
    means = [100 * math.fsum(some.values()) / len(some) for some in credits]
    better, worse = sum(b > a for a, b, _ in found), sum(b < a for a, b, _ in found)
    differences = _draws(found)
    low, high = np.percentile(differences, [2.5, 97.5])
    binary = all(size == 1 and a in (0, 1) and b in (0, 1) for a, b, size in found)
    if binary:
        p, method = mcnemar(better, worse), "McNemar, exact; interval by bootstrap"
    else:
        p, method = _chance(differences, better + worse), "paired bootstrap over units"
    return Paired(means[0], means[1], float(low), float(high), p, better, worse, len(found), method)


def paired_figures(benchmark: Benchmark, first: Sequence[Verdict], second: Sequence[Verdict]) -> Paired:
    """The paired test of a headline that is no mean, on verdicts in any order: both runs under the same draws.

    Raises LlavakitError when the questions differ, or when an answer has no credit.
    """
    if any(math.isnan(verdict.credit) for verdict in (*first, *second)):
        raise LlavakitError("answers without a credit, whose truth is on a server, cannot be compared")
    ordered = [sorted(some, key=lambda verdict: verdict.question.id) for some in (first, second)]
    names = [[verdict.question.id for verdict in some] for some in ordered]
    if names[0] != names[1] or not names[0]:
        raise LlavakitError("the marked answers of the two runs are not to the same questions")
    one, two = map(units, ordered)
    totals = [
        tuple(math.fsum(verdict.credit for verdict in unit) for unit in pair)
        for pair in zip(one, two, strict=True)
    ]
    better, worse = sum(b > a for a, b in totals), sum(b < a for a, b in totals)
    values = [benchmark.summarise(some)[benchmark.headline] for some in ordered]
    drawn = figure_draws(benchmark, two, FIGURE_DRAWS) - figure_draws(benchmark, one, FIGURE_DRAWS)
    differences = drawn[np.isfinite(drawn)]
    method = f"paired bootstrap over units, {len(differences):,} draws"
    if not len(differences):
        return Paired(
            values[0], values[1], math.nan, math.nan, math.nan, better, worse, len(one), "none: undefined"
        )
    low, high = np.percentile(differences, [2.5, 97.5])
    p = _chance(differences, better + worse)
    return Paired(values[0], values[1], float(low), float(high), p, better, worse, len(one), method)


def _chance(differences: np.ndarray, differ: int) -> float:
    """Twice the smaller tail beyond 0, at least what one draw is worth.

    differ: units that differ. Were the runs alike, each would go either way as by a coin, and of so few coins no fall
    is rarer than 2 to the power of 1 - differ, whatever the draws say.
    """
    if not differ:
        return 1.0
    tail = float(min(np.mean(differences <= 0), np.mean(differences >= 0)))
    return max(min(1.0, 2 * tail), 1 / len(differences), 2.0 ** (1 - differ))


def mcnemar(better: int, worse: int) -> float:
    """The exact two-sided p of McNemar's test: of as uneven a split of the questions that differ, by a fair coin."""
    count, fewer = better + worse, min(better, worse)
    if better == worse:
        return 1.0
    logs = [
        math.lgamma(count + 1)
        - math.lgamma(number + 1)
        - math.lgamma(count - number + 1)
        - count * math.log(2)
        for number in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def _draws(found: Sequence[tuple[float, float, int]]) -> np.ndarray:
    """The difference in percent of every draw; units of the same credits and size are exchangeable."""
    kinds = Counter(found)
    a_J, b_J, sizes_J = (np.array(column, dtype=float) for column in zip(*kinds, strict=True))
    shares_J = np.array(list(kinds.values())) / len(found)
    draws = max(1000, min(MEAN_DRAWS, 50_000_000 // len(kinds)))
    drawn_DJ = np.random.default_rng(SEED).multinomial(len(found), shares_J, size=draws)
    result: np.ndarray = 100 * (drawn_DJ @ (b_J - a_J)) / (drawn_DJ @ sizes_J)
    return result
