"""Ratings by a model: what a candidate is asked of, how the reply is read, and what becomes of a low one.

Four scales of 1 to 5, by the names under which FineVision publishes its ratings, so that the same thresholds serve:
does the answer fit the question, does it fit the picture, does the question need the picture, is the form sound. Who
asks, and what it costs, is not known here: a rating is one more request, kept by its key like any other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from llavakit.synthesis.candidate import Candidate, Verdict
from llavakit.synthesis.context import symbols
from llavakit.synthesis.quality.settings import Acting
from llavakit.synthesis.teacher import Message, SentPicture, TeacherRequest

VERSION = 1

_ASKED = """\
You judge samples that a vision-language model is going to be trained on. A sample is a dialogue about one picture.
Give each of four marks, whole numbers from 1 (useless) to 5 (nothing to improve):

relevance: the answers answer what was asked, fully and without wandering off.
image_correspondence: what the sample says agrees with the picture; one thing made up is at most a 2.
visual_dependency: the questions cannot be answered without the picture; 1 when general knowledge is enough.
formatting: the text is well written and in the form that was asked for, whole, without leftovers of a prompt.

Judge strictly, and each mark for itself. Reply with one JSON object of these four names and their marks, nothing else.
"""
_BLIND = "\nYou cannot see the picture: it is given as sentences people wrote for it and as things with their boxes.\n"


@dataclass(frozen=True, slots=True)
class Ratings:
    """Four marks, each from 1 to 5."""

    relevance: int
    image_correspondence: int
    visual_dependency: int
    formatting: int


SCALES = tuple(one.name for one in fields(Ratings))
_SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "integer", "minimum": 1, "maximum": 5} for name in SCALES},
    "required": list(SCALES),
    "additionalProperties": False,
}
_MARK = re.compile(rf"\b({'|'.join(SCALES)})\b\W{{1,8}}([0-9]+(?:\.[0-9]+)?)", re.IGNORECASE)


def rating_request(
    candidate: Candidate, model: str = "", picture: SentPicture | None = None
) -> TeacherRequest:
    """What asks a model for its ratings of a candidate; without a picture it is told the annotations."""
    dialogue = "\n\n".join(
        f"Asked: {question}\nAnswered: {answer}" for question, answer in candidate.exchanges
    )
    told = "" if picture else f"The picture:\n{symbols(candidate.picture)}\n\n"
    messages = (
        Message("system", _ASKED + ("" if picture else _BLIND)),
        Message("user", f"{told}The sample:\n{dialogue}", (picture,) if picture else ()),
    )
    return TeacherRequest(messages, model, seed=0, temperature=0.0, max_tokens=200, schema=_SCHEMA)


def read_rating(text: str) -> Ratings | None:
    """The marks of a reply: a JSON object, or names with a number behind each; None where one is missing or unfit.

    A name that is given two different marks is unfit: which one holds is not guessed.
    """
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if isinstance(content, dict):
        given = {
            str(name).lower(): {value} for name, value in content.items() if isinstance(value, int | float)
        }
    else:
        given = {}
        for name, mark in _MARK.findall(text):
            given.setdefault(name.lower(), set()).add(float(mark))
    marks = {}
    for name in SCALES:
        values = given.get(name, set())
        value = next(iter(values), 0)
        if len(values) != 1 or isinstance(value, bool) or value != int(value) or not 1 <= value <= 5:
            return None
        marks[name] = int(value)
    return Ratings(**marks)


def rating_verdicts(
    ratings: Ratings | None, minimum: Mapping[str, int], action: Acting = "reject"
) -> tuple[Verdict, ...]:
    """A verdict for every mark below its minimum, and a note where the reply could not be read."""
    gate = f"ratings/{VERSION}"
    if ratings is None:
        return (Verdict(gate, "note", "the rating could not be read"),)
    marks = {name: getattr(ratings, name) for name in SCALES}
    return tuple(
        Verdict(gate, action, f"low {name}", f"{mark}, at least {minimum[name]}")
        for name, mark in marks.items()
        if mark < minimum.get(name, 1)
    )
