"""Free answers by MMMU's rule: candidates are picked out of an answer, and one that fits a truth makes it right.

A line's candidate is the shortest end of it behind a clue such as `is ` or `answer `; where no line has one, it is the
whole answer. To these come the numbers in them. Numbers are compared as numbers, to two digits; texts by being held: a
true text inside a candidate is enough, so that an answer which names everything is right.

Oddities that belong to the rule: answers are never split at full stops; an equals sign is a clue in the last line only;
the 234 of `1,234` and the 3 of `1.5e3` are numbers too. Source: MMMU, mmmu/utils/eval_utils.py. Knows no benchmark.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Value = str | float

_CLUES = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NOTHING = frozenset(":,.!?;'")
# Digits are only looked at from the first of a run: a match that begins inside one exists only where one from its first
# digit does, and without this the time would grow with the square of the run.
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?(?<!\d)\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)


def candidates(answer: str) -> tuple[Value, ...]:
    """What an answer may mean, in the order in which it is found, each once."""
    texts = _ends(answer)
    for text in tuple(texts):
        texts += [number for form in _NUMBERS for number in form.findall(text)]
    return tuple(dict.fromkeys(value for text in texts for value in normalised(text)))


def _ends(answer: str) -> list[str]:
    """Every line's shortest end behind a clue, or the whole answer."""
    answer = answer.strip().strip(".").lower()
    lines = answer.split("\n")
    found = []
    for number, line in enumerate(lines, 1):
        shortest = ""
        for clue in (*_CLUES, "=") if number == len(lines) else _CLUES:
            _, clue_there, end = line.rpartition(clue)
            if clue_there and (not shortest or len(end.strip()) < len(shortest)):
                shortest = end.strip()
        if shortest and shortest not in _NOTHING:
            found.append(shortest)
    return found or [answer]


def normalised(text: str) -> tuple[Value, ...]:
    """A number to two digits, its commas taken out; else the text in lower case, a single letter with a blank."""
    text = text.strip()
    try:
        return (round(float(text.replace(",", "")), 2),)
    except ValueError:
        text = text.lower()
        return (f" {text}", f"{text} ") if len(text) == 1 else (text,)


def fits(found: Sequence[Value], truths: Sequence[str]) -> bool:
    """Whether a candidate number equals a true one, or a candidate text holds a true text."""
    true = [value for truth in truths for value in normalised(truth)]
    numbers = {value for value in true if isinstance(value, float)}
    texts = [value for value in true if isinstance(value, str)]
    return any(
        value in numbers if isinstance(value, float) else any(text in value for text in texts)
        for value in found
    )
