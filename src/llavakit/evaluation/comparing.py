"""Two runs on the same questions, compared answer by answer: how much they differ, and whether by more than luck.

Where every question stands by itself and is right or wrong, the test is McNemar's, exact; else it is a bootstrap over
units, both runs drawn together. Runs on other questions, other data or another judge are not compared; another
protocol is told.

Pure but for reading the two runs' files. Knows no benchmark: what is tested is the mean credit, which for most
benchmarks is the headline; where it is not, that is told.
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
from llavakit.evaluation.intervals import MEAN_DRAWS, SEED
from llavakit.evaluation.results import read_marked, read_results
from llavakit.evaluation.saved import OWN_ID


@dataclass(frozen=True, slots=True)
class Paired:
    """The mean credit of two runs over the same questions, in percent, and their difference, second minus first.

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
    found = paired(*rows)
    scores = tuple(math.nan if result["score"] is None else float(result["score"]) for result in results)
    if any(
        abs(score - mean) > 0.005 for score, mean in zip(scores, (found.first, found.second), strict=True)
    ):
        told.append(f"the test is of the mean credit, which is not {one['headline']}")
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
        p, method = mcnemar(better, worse), "McNemar, exact"
    else:
        p = min(1.0, 2 * float(min(np.mean(differences <= 0), np.mean(differences >= 0))))
        p, method = max(p, 1 / len(differences)) if better or worse else 1.0, "paired bootstrap over units"
    return Paired(means[0], means[1], float(low), float(high), p, better, worse, len(found), method)


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
