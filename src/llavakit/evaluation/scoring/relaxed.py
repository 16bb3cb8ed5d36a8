"""ChartQA's relaxed accuracy: numbers may be off by a twentieth, everything else has to be the same."""

from __future__ import annotations


def number(text: str) -> float | None:
    """A number as Python reads one, a percent sign at its end dividing by a hundred; no comma, no currency."""
    try:
        if text.endswith("%"):
            return float(text.rstrip("%")) / 100.0
        return float(text)
    except ValueError:
        return None


def relaxed(answer: str, target: str, most: float = 0.05) -> bool:
    """Whether an answer is right: numbers by relative distance to a target that is not 0, texts whatever their case.

    Years are numbers too, so 1999 is right for 2001. Source: the rule of ChartQA's paper as lmms-eval and others
    compute it, which takes the answer with its blanks.
    """
    mine, true = number(answer), number(target)
    if mine is not None and true:
        return abs(mine - true) / abs(true) <= most
    return answer.lower() == target.lower()
