"""ANLS, DocVQA's average normalised Levenshtein similarity: how near an answer comes to the nearest truth."""

from __future__ import annotations

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

    Case and runs of blanks do not count towards the distance; the lengths are those of the texts as they stand, as in
    the code that most tools share. An answer more than twice as long as a truth is 0 for it without being compared.
    """
    best = 0.0
    for truth in truths:
        longer = max(len(answer), len(truth))
        if not longer:
            best = 1.0
            continue
        mine, true = " ".join(answer.strip().lower().split()), " ".join(truth.strip().lower().split())
        if abs(len(mine) - len(true)) > threshold * longer:
            continue
        best = max(best, 1 - distance(mine, true) / longer)
    return best if best >= threshold else 0.0
