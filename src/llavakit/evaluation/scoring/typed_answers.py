"""Answers of a form that is known beforehand, by MathVista's rule: a choice, a whole number, a decimal, a list.

Two steps. `extracted` finds the short answer in a reply without a model's help, and gives None where it takes one.
`normalised` brings a short answer into its form; the result is compared with the truth as text. A text that names no
choice becomes the nearest one, so that anything counts as some choice, even an empty reply: as the shortest.

Oddities that belong to the rule: any single letter in parentheses is taken for a choice, even that of `f(x)`; a bare
letter has to be a capital; `12.9` is the whole number 12; a list has to be equal character by character. Source:
MathVista, evaluation/extract_answer.py and calculate_score.py. Knows no benchmark.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from llavakit.evaluation.scoring.choices import lettered
from llavakit.evaluation.scoring.nearest import nearest

_IN_PARENTHESES = re.compile(r"\(([a-zA-Z])\)")
_NAMED = re.compile(r"\(([A-Z])\)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer has to be. kind: `integer`, `float`, `list` or `text`. digits: of a float, after the point."""

    kind: str
    choices: tuple[str, ...] = ()
    digits: int = 0


@dataclass(frozen=True, slots=True)
class Normalised:
    """A short answer in its form. text: None for what is none. nearest: taken for want of a choice that is named."""

    text: str | None
    nearest: bool = False


def extracted(reply: str, form: Form) -> str | None:
    """The short answer of a reply that is nothing else, or says `The answer is "..".`; None where neither is so.

    A reply that is a choice's letter, or a letter in parentheses and its choice, counts as well. MathVista's tool asks
    its model about those, from which nothing but the same letter can be expected.
    """
    text = reply.strip()
    if not text:
        return ""
    if form.choices and _names_a_choice(text, form.choices):
        return text
    if form.kind in ("integer", "float"):
        try:
            return str(int(text) if form.kind == "integer" else float(text))
        except ValueError:
            pass  # more than a number: the phrase may still be there
    return _quoted(reply)


def _names_a_choice(text: str, choices: tuple[str, ...]) -> bool:
    letters = lettered(choices)
    if text in choices or text in letters:
        return True
    named = _NAMED.fullmatch(text)
    return named is not None and named[1] in letters and named[2].strip() in ("", letters[named[1]].strip())


def _quoted(reply: str) -> str | None:
    """What stands between the quotes of `The answer is "..".` in the first line that has it, the longest there is."""
    for line in reply.split("\n"):
        _, there, rest = line.partition('The answer is "')
        if there and (end := rest.rfind('".')) >= 0:
            return rest[:end]
    return None


def normalised(short: str, form: Form) -> Normalised:
    """A short answer in its form."""
    if form.choices:
        text = short.strip()
        inside = _IN_PARENTHESES.search(text)
        letter = inside[1].upper() if inside else text
        if letter in lettered(form.choices):
            return Normalised(lettered(form.choices)[letter])
        # a letter beyond the choices is compared in the place of the whole text
        return Normalised(nearest(letter, form.choices), letter not in form.choices)
    if form.kind not in ("integer", "float"):
        return Normalised(short)
    try:
        value = float(short)
        return Normalised(str(int(value) if form.kind == "integer" else round(value, form.digits)))
    except (ValueError, OverflowError):  # no number, or no finite one
        return Normalised(None)
