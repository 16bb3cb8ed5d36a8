"""ANLS, DocVQA's average normalised Levenshtein similarity: how near an answer comes to the nearest truth."""

from __future__ import annotations

import math
from collections.abc import Sequence


def distance(one: str, other: str) -> int:
    """The Levenshtein distance."""
    if len(one) < len(other):
        one, other = other, one
    row = list(range(len(other) + 1))
    for place, letter in enumerate(one, 1):
        left, row[0] = row[0], place
        for column, there in enumerate(other, 1):
            left, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, left + (letter != there)),
            )
    return row[-1]


def anls(answer: str, truths: Sequence[str], threshold: float = 0.5) -> float:
    """One minus the smallest distance over the longer length, and 0 where that is below the threshold.

    Case and runs of blanks do not count towards the distance; the lengths are those of the texts as they stand, in
    capitals, as in the code of the challenge, of lmms-eval and of VLMEvalKit. A truth that an answer is too much longer
    or shorter than is not compared with it.
    """
    best = 0.0
    for truth in truths:
        longer = max(len(answer.upper()), len(truth.upper()))
        if not longer:
            best = 1.0
            continue
        mine, true = " ".join(answer.strip().lower().split()), " ".join(truth.strip().lower().split())
        if 1 - abs(len(mine) - len(true)) / longer < threshold:
            continue
        best = max(best, 1 - distance(mine, true) / longer)
    return best if best >= threshold else 0.0


def llava_anls(answer: str, truths: Sequence[str]) -> float:
    """ANLS as the class in LLaVA's `m4c_evaluator.py` has it, which keeps runs of blanks and counts none at the ends.

    nan where that class divides by zero: an answer and a truth without a letter.
    """
    mine, best = answer.lower().strip(), 0.0
    for truth in truths:
        true = truth.lower().strip()
        longer = max(len(mine), len(true))
        if not longer:
            return math.nan
        if 2 * abs(len(mine) - len(true)) <= longer:
            best = max(best, 1 - distance(mine, true) / longer)
    return best if best >= 0.5 else 0.0
