"""An examination: questions about pictures with one short true answer each, asked under several conditions.

The same questions are put with the picture shown, with it hidden, and with another question's picture in its place, so
that a score says how much of it comes from looking. Scoring is a pure function of answers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Condition = Literal["shown", "hidden", "shuffled"]
Ask = Callable[[Sequence[tuple[str, str | None]]], list[str]]


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a task about one picture; `held_out_pair`: its scene holds a pair that training never showed."""

    task: str
    image: str
    question: str
    answer: str
    held_out_pair: bool = False

    def row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Score:
    """Right answers of all answers, with the 95 % Wilson interval of their share."""

    right: int
    total: int

    @property
    def fraction(self) -> float:
        return self.right / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval: sound near 0 and 1, unlike the normal one."""
        if not self.total:
            return math.nan, math.nan
        z, n, p = 1.959964, self.total, self.fraction
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        reach = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return middle - reach, middle + reach


def put(exam: Sequence[Question], condition: Condition, ask: Ask) -> list[str]:
    """Ask every question under a condition.

    Args:
        ask: answers (question, picture file or None) pairs, in order.

    "shuffled" shows each question the picture of the question half a task further on, so never its own, and one that
    was drawn for the same task.
    """
    pictures: list[str | None] = [question.image for question in exam]
    if condition == "hidden":
        pictures = [None] * len(exam)
    elif condition == "shuffled":
        for task in dict.fromkeys(question.task for question in exam):
            places = [place for place, question in enumerate(exam) if question.task == task]
            for here, there in zip(
                places, places[len(places) // 2 :] + places[: len(places) // 2], strict=True
            ):
                pictures[here] = exam[there].image
    return ask([(question.question, picture) for question, picture in zip(exam, pictures, strict=True)])


def score(exam: Sequence[Question], answers: Sequence[str]) -> dict[str, Score]:
    """Exact match a task, letter case and closing punctuation aside."""
    tally: dict[str, list[bool]] = {}
    for question, answer in zip(exam, answers, strict=True):
        tally.setdefault(question.task, []).append(right(question.answer, answer))
    return {task: Score(sum(marks), len(marks)) for task, marks in tally.items()}


def fractions(scores: Mapping[str, Score]) -> dict[str, float]:
    return {task: round(score.fraction, 4) for task, score in scores.items()}


def right(truth: str, answer: str) -> bool:
    return bare(truth) == bare(answer)


def bare(answer: str) -> str:
    return re.sub(r"[\s.!]+$", "", answer.strip().lower())
