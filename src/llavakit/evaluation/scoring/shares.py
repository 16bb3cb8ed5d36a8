"""Percentages, of which most figures are made. Of nothing there is none: nan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from llavakit.evaluation.benchmark import Verdict


def share(part: float, whole: float) -> float:
    """So many percent is the part of the whole."""
    return 100 * part / whole if whole else math.nan


def percent(credits: Sequence[float]) -> float:
    """The mean of credits between 0 and 1."""
    return share(sum(credits), len(credits))


def mean_credit(verdicts: Iterable[Verdict]) -> float:
    """The mean credit of verdicts."""
    return percent([verdict.credit for verdict in verdicts])
