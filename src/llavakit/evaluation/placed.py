"""Answers that name a question by its place in the official file, as LLaVA numbers those to VizWiz.

A place is weak evidence: numbers from 0 on fit any file. So every prompt that is saved beside an answer has to begin
with its question, and answers without one are taken only as a whole set. Whatever speaks against it is refused.

Pure. Knows rows and questions, and no benchmark in particular.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Question

PLACE = "place"
"""The name in a question's `meta` of its place in the file, from 0 on, where answers may go by it."""


def by_place(
    name: str, questions: Sequence[Question], rows: Sequence[Mapping[str, Any]], ids: Sequence[str]
) -> list[str] | None:
    """The ids of the questions that the rows are for by place; None where no row goes by one.

    name: the benchmark's. ids: what the rows call their questions, in the rows' order. Raises LlavakitError when some
    go by place and others do not, or when a place, a prompt or a gap says that they are not to these questions.
    """
    places = {str(question.meta[PLACE]): question for question in questions if PLACE in question.meta}
    known = {question.id for question in questions}
    numbered = [one for one in ids if one not in known and one.isdecimal()]
    if not places or not numbered:
        return None
    if named := [one for one in ids if one in known]:
        raise LlavakitError(
            f"{name}: some answers name a question by its id ({named[0]}) and others by a number ({numbered[0]}); "
            "name all in one way"
        )
    if foreign := [one for one in ids if one not in places]:
        raise LlavakitError(
            f"{name}: answers go by their question's place in the file, 0 to {len(places) - 1}, and {foreign[0]} is no "
            "such place; they are to another set of questions"
        )
    bare = 0
    for place, row in zip(ids, rows, strict=True):
        prompt = row.get("prompt")
        bare += not isinstance(prompt, str)
        if isinstance(prompt, str) and not _plain(prompt).startswith(_asked(places[place])):
            raise LlavakitError(
                f"{name}: answer {place} was asked {prompt[:60]!r}, and the question at that place is "
                f"{places[place].prompt[:60]!r}; they are to another set of questions, or in another order"
            )
    if bare and len(set(ids)) < len(places):
        raise LlavakitError(
            f"{name}: {len(set(ids))} of {len(places)} answers that go by place, {bare} of them without their prompt, "
            "could be to other questions; name them by id, or keep `prompt` in every row"
        )
    return [places[one].id for one in ids]


def _plain(prompt: str) -> str:
    return " ".join(prompt.replace("<image>", " ").split()).casefold()


def _asked(question: Question) -> str:
    """The question without the lines that say how to answer."""
    return _plain(question.prompt.partition("\n")[0])
