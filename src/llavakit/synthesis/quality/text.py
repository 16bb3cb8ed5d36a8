"""Words and sentences as the gates count them, and what a gate hands back: a reason with the words that show it.

Knows no gate and no settings.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

SHORT_KINDS = frozenset({"short_answer", "multiple_choice", "region"})
"""Kinds whose answer may be one word, one letter or one box."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_QUOTED = re.compile(r"[\"“][^\"”\n]{1,80}[\"”]|(?<!\w)['‘][^'’\n]{1,80}['’](?!\w)")

_QUOTES = ('"', "“", "‘", " '", "('", "\n'")


class Finding(NamedTuple):
    """A reason, counted as it is, and the words at which it was seen."""

    reason: str
    evidence: str = ""


def word_set(text: str) -> frozenset[str]:
    """The words of a list that is written as running text."""
    return frozenset(text.split())


@lru_cache(256)
def words(text: str) -> tuple[str, ...]:
    """The words in lower case, without punctuation; a contraction is one word. Gates ask for the same text in turn."""
    return tuple(_WORD.findall(text.lower().replace("’", "'")))


def sentences(text: str) -> list[str]:
    """The sentences, of which each has a letter or a digit."""
    return [one.strip() for one in _SENTENCE.findall(text) if _WORD.search(one)]


def normalised(text: str) -> str:
    """The words alone, parted by one space, in one form of Unicode: equal for texts that read the same."""
    return " ".join(words(unicodedata.normalize("NFKC", text)))


def without_quotes(text: str) -> str:
    """The text with `…` for what stands in quotation marks: what a sign says is not what the answer says."""
    if not has_any(text, _QUOTES) and not text.startswith("'"):
        return text
    emptied = _QUOTED.sub("…", text)
    return emptied if words(emptied) else text


def has_any(lowered: str, signs: tuple[str, ...]) -> bool:
    """Whether one of the signs stands in the text: a quick look that spares most texts a slow pattern."""
    return any(map(lowered.__contains__, signs))


def around(text: str, start: int, end: int, reach: int = 30) -> str:
    """The place of a match with what stands around it, on one line."""
    return " ".join(text[max(0, start - reach) : end + reach].split())
