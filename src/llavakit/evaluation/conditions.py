"""What a question is asked with: its own picture, none, or another question's, to see what looking is worth.

Pure: turns questions into questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Question

Condition = Literal["shown", "blind", "shuffled"]


def under(condition: str, questions: Sequence[Question]) -> list[Question]:
    """The questions as they are put: `shown`, `blind` without pictures, `shuffled` with another question's.

    A shuffled question gets the pictures of the question half its category further on, or of the next one from there
    whose pictures are others; of the whole benchmark where its category has none. Raises LlavakitError for another
    condition, and when no question has other pictures.
    """
    if condition not in get_args(Condition):
        raise LlavakitError(
            f"there is no condition {condition!r}: choose among {', '.join(get_args(Condition))}"
        )
    if condition == "shown":
        return list(questions)
    if condition == "blind":
        return [replace(question, pictures=()) for question in questions]
    pictured = [question for question in questions if question.pictures]
    groups: dict[str, list[Question]] = {}
    for question in pictured:
        groups.setdefault(question.category, []).append(question)
    place = {id(question): number for group in groups.values() for number, question in enumerate(group)}
    overall = {id(question): number for number, question in enumerate(pictured)}
    result = []
    for question in questions:
        if not question.pictures:
            result.append(question)
            continue
        other = _other(groups[question.category], place[id(question)], question) or _other(
            pictured, overall[id(question)], question
        )
        if other is None:
            raise LlavakitError("all questions are about the same picture, so none can be shown another's")
        result.append(replace(question, pictures=other.pictures))
    return result


def _other(group: Sequence[Question], place: int, question: Question) -> Question | None:
    count = len(group)
    for step in range(count):
        other = group[(place + count // 2 + step) % count]
        if other.pictures != question.pictures:
            return other
    return None
