"""How a teacher's reply is read: blocks of `Question:` and `Answer:`, one text, or JSON under a schema.

A reader gives the exchanges of a whole reply or says why there are none. What it lets pass although it is not quite in
form is noted by a phrase, so that it can be counted; nothing is put into a reply that is not in it. That a reply was
cut is for the caller to see before: half a reply is never read.

Knows no picture file, no prompt's words and no teacher.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.synthesis.context import Annotated, Corners

Exchange = tuple[str, str]

LETTER_LINE = "Answer with the option's letter from the given choices directly."
PHRASE_LINE = "Answer the question using a single word or phrase."
DESCRIBE_REGION = "Provide a short description for this region: {box}"
FIND_REGION = "Provide the bounding box coordinate of the region this sentence describes: {phrase}"

_SEPARATOR = re.compile(r"^[ \t]*={3,}[ \t]*$", re.MULTILINE)
_LABEL = re.compile(r"^[ \t]*(?:#+ *)?(?:\*\*)?(Question|Answer)(?: ?\d+)?(?:\*\*)?:(?:\*\*)?", re.MULTILINE)
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)
_FENCE = re.compile(r"\A\s*```\w*\n(.*?)\n?```\s*\Z", re.DOTALL)


class Unreadable(LlavakitError):
    """A reply that is not in the form its prompt asked for."""


@dataclass(slots=True)
class Read:
    """The exchanges of a reply, and what was let pass."""

    exchanges: list[Exchange] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def without_thought(reply: str, read: Read) -> str:
    """The reply behind a thought that a reasoning model wrote ahead of it.

    Raises:
        Unreadable: the thought does not end, so there is no reply behind it.
    """
    answer, found = _THOUGHT.subn("", reply)
    if found:
        read.notes.append("a thought ahead of the reply was left out")
    elif reply.lstrip().startswith("<think>"):
        raise Unreadable("a thought that does not end")
    return answer


def read_blocks(reply: str) -> Read:
    """Blocks `Question:`, text, `===`, `Answer:`, text, `===`, in strict alternation, the last `===` left out or not.

    Raises:
        Unreadable: anything ahead of the first question, a label twice or in the wrong place, an empty text.
    """
    read = Read()
    body = without_thought(reply, read)
    if _SEPARATOR.search(body):
        blocks = [block.strip() for block in _SEPARATOR.split(body) if block.strip()]
        if any(mark != "===" for mark in _SEPARATOR.findall(body)):
            read.notes.append("a line that parts blocks is not exactly ===")
    else:
        starts = [found.start() for found in _LABEL.finditer(body)]
        ends = [*starts[1:], len(body)] if starts else []
        ahead = [body[: starts[0]].strip()] if starts else [body.strip()]
        blocks = [
            block
            for block in [*ahead, *(body[a:b].strip() for a, b in zip(starts, ends, strict=True))]
            if block
        ]
        if len(blocks) > 1:
            read.notes.append("no === between blocks")
    spoken = [_block(number, block, read) for number, block in enumerate(blocks)]
    if not spoken or len(spoken) % 2:
        raise Unreadable(f"{len(spoken)} blocks do not pair up as questions and answers")
    read.exchanges = list(zip(spoken[::2], spoken[1::2], strict=True))
    read.notes = sorted(set(read.notes))
    return read


def _block(number: int, block: str, read: Read) -> str:
    expected = ("Question", "Answer")[number % 2]
    labels = list(_LABEL.finditer(block))
    if not labels or labels[0].start() or labels[0][1] != expected or not block[labels[0].end() :].strip():
        begins = block.partition("\n")[0][:40]
        raise Unreadable(
            f"block {number + 1} begins with {begins!r}; expected '{expected}:' and a text below it"
        )
    if len(labels) > 1:
        raise Unreadable(f"block {number + 1} holds a second label {labels[1][0].strip()!r}")
    if labels[0][0] != f"{expected}:":
        read.notes.append("a label is not exactly Question: or Answer:")
    text = block[labels[0].end() :]
    if not text.startswith("\n") and text.partition("\n")[0].strip():
        read.notes.append("a text stands beside its label")
    return text.strip()


def read_dialogue(reply: str) -> list[Exchange]:
    """The exchanges of `read_blocks` alone."""
    return read_blocks(reply).exchanges


def read_text(reply: str, questions: Sequence[str], rng: random.Random) -> Read:
    """One text, which is the answer to a question drawn from `questions`.

    Raises:
        Unreadable: the reply is empty.
    """
    read = Read()
    answer = without_thought(reply, read).strip()
    if not answer:
        raise Unreadable("the reply is empty")
    read.exchanges = [(rng.choice(questions), answer)]
    return read


def _list_of(name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    item = {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {name: {"type": "array", "items": item}},
        "required": [name],
        "additionalProperties": False,
    }


_TEXT = {"type": "string"}
SCHEMAS: dict[str, dict[str, Any]] = {
    "json": _list_of("exchanges", {"question": _TEXT, "answer": _TEXT}),
    "choices": _list_of(
        "items", {"question": _TEXT, "right": _TEXT, "wrong": {"type": "array", "items": _TEXT}}
    ),
    "regions": _list_of("regions", {"box": {"type": "array", "items": {"type": "number"}}, "phrase": _TEXT}),
}
"""By form, the JSON schema that is sent with the request."""


def _rows(reply: str, name: str, read: Read) -> list[dict[str, Any]]:
    body = without_thought(reply, read)
    if fenced := _FENCE.match(body):
        body = fenced[1]
        read.notes.append("JSON inside a fence")
    try:
        content = json.loads(body)
    except json.JSONDecodeError as error:
        raise Unreadable(f"no JSON: {error.msg}") from error
    rows = content.get(name) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise Unreadable(f"no list {name!r} of objects in the JSON")
    return rows


def _word(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Unreadable(f"{name!r} is not a text")
    return value.strip()


def read_json(reply: str) -> Read:
    """`{"exchanges": [{"question": ..., "answer": ...}]}`. Raises Unreadable when it is anything else."""
    read = Read()
    read.exchanges = [
        (_word(row, "question"), _word(row, "answer")) for row in _rows(reply, "exchanges", read)
    ]
    return read


def read_choices(reply: str, rng: random.Random) -> Read:
    """`{"items": [{"question", "right", "wrong": [...]}]}` as questions with lettered options, their order drawn.

    The teacher names the right option in words, so it cannot favour a letter and a wrong letter cannot slip in.
    LLaVA-1.5 writes options as `A. text` and its response-format line last.

    Raises:
        Unreadable: another form, fewer than two or more than six options, or two options that are alike.
    """
    read = Read()
    for row in _rows(reply, "items", read):
        question, right, wrong = _word(row, "question"), _word(row, "right"), row.get("wrong")
        if not isinstance(wrong, list) or not all(isinstance(one, str) and one.strip() for one in wrong):
            raise Unreadable("'wrong' is not a list of texts")
        options = [right, *(one.strip() for one in wrong)]
        if not 2 <= len(options) <= 6:
            raise Unreadable(f"{len(options)} options; expected 2 to 6")
        if len({option.casefold().rstrip(".") for option in options}) < len(options):
            raise Unreadable("two options are alike")
        rng.shuffle(options)
        letters = "ABCDEF"[: len(options)]
        lines = [f"{letter}. {option}" for letter, option in zip(letters, options, strict=True)]
        read.exchanges.append(("\n".join([question, *lines, LETTER_LINE]), letters[options.index(right)]))
    return read


def read_regions(reply: str, picture: Annotated, rng: random.Random) -> Read:
    """`{"regions": [{"box", "phrase"}]}` as questions for a box's description and for a description's box, in turn.

    A box that the teacher was not given is left out with a note: it can only be made up.

    Raises:
        Unreadable: another form, or no box is one that was given.
    """
    read = Read()
    given: list[Corners] = [
        *(box.corners for box in picture.boxes),
        *(region.corners for region in picture.regions),
    ]
    backwards = rng.random() < 0.5
    for row in _rows(reply, "regions", read):
        phrase, box = _word(row, "phrase"), row.get("box")
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
            raise Unreadable("'box' is not four numbers")
        if not any(max(abs(a - b) for a, b in zip(box, one, strict=True)) <= 0.006 for one in given):
            read.notes.append("a box that was not given")
            continue
        written = "[" + ", ".join(f"{value:.2f}" for value in box) + "]"
        pair = (DESCRIBE_REGION.format(box=written), phrase)
        read.exchanges.append((FIND_REGION.format(phrase=phrase), written) if backwards else pair)
        backwards = not backwards
    if not read.exchanges:
        raise Unreadable("no box is one that was given")
    return read
