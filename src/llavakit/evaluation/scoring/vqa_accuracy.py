"""Soft accuracy against ten people's answers, by VQA's official tool and by the m4c tool that LLaVA and TextVQA use.

Each answer of the ten is compared with by leaving it out: three of the other nine that agree are full credit. k of
ten that agree give 0, 0.3, 0.6, 0.9, and 1 from four on.

The two tools differ in how they write answers before they compare, known faults included, as scores depend on them:

    official  GT-Vision-Lab/VQA, vqaEval.py: answers are normalised only where the ten are not all the same text, so
              "Yes" against ten times "yes" is wrong
    m4c       facebookresearch/mmf, m4c_evaluators.py: always, and commas, question marks and 's are taken apart

Both delete a full stop wherever no digit follows, the first 32 of them; both drop a, an and the, and write numbers to
ten as digits. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA = re.compile(r"\d,\d")
_COMMAS = re.compile(r"(?<=\d),+(?=\d)")
_STOP = re.compile(r"\.(?!\d)")
_STOPS = 32  # a flag that stands where a count belongs in both tools
_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES = {"a", "an", "the"}
_SHORT = 64  # characters; longer texts are not remembered

# Each is written so when it comes without its apostrophe; "im" and "ive" stay, as both tools spell them with a capital
_WHOLE = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's "
    "isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've "
    "shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd "
    "there're there's they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've "
    "when's where'd where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all "
    "you'd you'll you're you've"
)
_TWICE = (
    "couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've "
    "something'd've there'd've they'd've we'd've who'd've wouldn't've you'd've y'all'll"
)
_SPECIAL = {
    **dict.fromkeys(("ow's'at", "'ows'at", "'ow'sat"), "'ow's'at"),
    **dict.fromkeys(("yall'd've", "y'alld've", "y'all'dve"), "y'all'd've"),
    "somebody'd": "somebodyd",
}


def _contractions() -> dict[str, str]:
    """Contractions by how they are misspelt: without an apostrophe, or without one of two."""
    table = {word.replace("'", ""): word for word in _WHOLE.split()}
    for word in _TWICE.split():
        first, last = word.index("'"), word.rindex("'")
        table[word[:first] + word[first + 1 :]] = word
        table[word[:last] + word[last + 1 :]] = word
    return table | _SPECIAL


CONTRACTIONS = _contractions()


def _punctuation(text: str) -> str:
    """Marks are deleted where one stands beside a space, or everywhere in a text with a comma between digits, and give
    way to a space elsewhere."""
    comma, out = _COMMA.search(text) is not None, text
    for mark in _MARKS:
        beside = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if beside or comma else " ")
    return _STOP.sub("", out, count=_STOPS)


def _words(text: str) -> str:
    written = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in written if word not in _ARTICLES)


def _normal(text: str) -> str:
    # people's answers are short and few differ: two million of them are written anew in seconds
    return _normal_short(text) if len(text) <= _SHORT else _words(_punctuation(text))


@lru_cache(maxsize=1 << 16)
def _normal_short(text: str) -> str:
    return _words(_punctuation(text))


def bare(text: str) -> str:
    """Line ends and tabs as spaces, and none at the ends: what the official tool does to every answer."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def official(text: str) -> str:
    """An answer as the official tool compares it where people disagree."""
    return _normal(bare(text))


def lmms_vqav2(text: str) -> str:
    """An answer as lmms-eval compares it for VQAv2: the official steps, several commas between digits being one."""
    return official(_COMMAS.sub(",", text))


def m4c(text: str) -> str:
    """An answer as the m4c tool compares it, and as LLaVA writes it into a submission."""
    taken = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _normal(bare(taken))


def official_accuracy(answer: str, people: Sequence[str]) -> float:
    """Credit by the official tool, 0 to 1."""
    given, told = bare(answer), [bare(one) for one in people]
    if len(set(told)) > 1:
        return soft_accuracy(official(given), [official(one) for one in told])
    return soft_accuracy(given, told)


def m4c_accuracy(answer: str, people: Sequence[str]) -> float:
    """Credit by the m4c tool, 0 to 1."""
    return soft_accuracy(m4c(answer), [m4c(one) for one in people])


def soft_accuracy(answer: str, people: Sequence[str]) -> float:
    """The mean, over leaving out each person, of a third of those of the others who agree, at most 1."""
    if not people:
        return 0.0
    agree = sum(one == answer for one in people)
    return sum(min(1.0, (agree - (one == answer)) / 3) for one in people) / len(people)


Rule = Callable[[str, Sequence[str]], float]
"""Credit for an answer by people's answers."""
