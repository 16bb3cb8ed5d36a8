"""The gate of form: was the reply whole, could it be read, and does each text look like what its role says.

Judges by finish reason, punctuation and characters alone; what a text is about is other gates' business.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.quality.settings import Settings
from llavakit.synthesis.quality.text import SHORT_KINDS, Finding, around, has_any, word_set, words

VERSION = 1

_WHOLE = frozenset({"stop", "", "end_turn", "eos", "eos_token", "stop_sequence"})
_FINISH = {"length": "cut at the token limit", "content_filter": "withheld by a content filter"}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffd\ud800-\udfff]")
_MARKUP = re.compile(
    r"^[#*\s]*(?:question|answer|human|user|assistant|gpt|system|q|a)(?:\s*\d+)?[*\s]*:"
    r"|\b(?:Question|Answer|Human|Assistant|USER|ASSISTANT)\s*\d*:"
    r"|^\s*={3,}\s*$|<image>|<\|[a-z_]+\|>|</?s>|\[/?INST\]|<</?SYS>>|<start of [^>]*>|<end of [^>]*>"
    r"|</?(?:div|span|p|br|b|i|ul|li|answer|think|question|html)\s*/?>|```|^\s*[{\[]\s*\"[^\"]+\"\s*:",
    re.IGNORECASE | re.MULTILINE,
)
_MARKS = (":", "<", "===", "```", "[INST", "[/INST", "[inst", "[/inst")  # one of which all markup has
_ASKS = word_set(
    """
    what what's which who who's whom whose where where's when why how how's is are was were am does do did has have had
    can could will would should shall may might must isn't aren't doesn't don't describe tell give explain write say
    name list count set take show provide let please imagine summarize summarise sum caption paint analyze analyse
    point find locate identify read walk elaborate compare consider look go in can't if suppose help
    """
)
_DECLARES = re.compile(
    r"(?:yes|no|the|there|it|this|these|they|he|she|a|an|in the|on the|at the|two|three|several|some|both)\b",
    re.IGNORECASE,
)
_CLOSED = re.compile(r"[.!?…。！？][\"'”’)\]*_]*$|[\"”)\]]$")
_ENDS = frozenset(".!?…。！？")  # behind which nothing need be looked for
_DANGLING = word_set(
    """
    a an the and or but of with to in on at by for from into near as is are was were that which who while because
    their his her its this these
    """
)
_LIST = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)


def find(candidate: Candidate, settings: Settings) -> Iterator[Finding]:
    """Everything in which the candidate is not a whole reply of texts in their places."""
    if candidate.finish not in _WHOLE:
        yield Finding(_FINISH.get(candidate.finish, "unknown finish reason"), candidate.finish)
    if candidate.unreadable:
        yield Finding("unreadable", candidate.unreadable)
    elif not candidate.exchanges:
        yield Finding("nothing was read")
    known = " ".join((*candidate.picture.captions, *(word.text for word in candidate.picture.words)))
    for question, answer in candidate.exchanges:
        if not question.strip() or not answer.strip():
            yield Finding("empty question" if answer.strip() else "empty answer")
            continue
        for text in (question, answer):
            if not _is_plain(text) and (match := _CONTROL.search(text)):
                yield Finding("control characters", f"U+{ord(match.group()):04X}")
            if strange := _strange(text, known, settings.scripts):
                yield Finding("unexpected script", strange)
        if has_any(answer, _MARKS) and (match := _MARKUP.search(answer)):
            yield Finding("markup in the answer", around(answer, *match.span()))
        if _answers(question) and _asks(answer):
            yield Finding("roles swapped", answer.strip()[:80])
        elif candidate.kind not in SHORT_KINDS and _breaks_off(answer, brief=candidate.kind == "brief"):
            yield Finding("ends mid-sentence", answer.strip()[-60:])


def _is_plain(text: str) -> bool:
    """Whether all is ASCII that prints, line breaks apart: a quick look that spares most texts the pattern."""
    return text.isascii() and text.replace("\n", "").isprintable()


def _asks(text: str) -> bool:
    """A question, or a request to describe: it asks more than it tells."""
    spoken = words(text)
    asked = text.rstrip(" \"'”’)").endswith("?")
    if asked:
        return len(re.findall(r"[.!]\s", text)) <= 1
    return (
        bool(spoken)
        and spoken[0] in {"describe", "explain", "tell", "what", "how", "which"}
        and len(spoken) < 15
    )


def _answers(text: str) -> bool:
    """A statement: no question mark, no word that begins a question or a request."""
    spoken = words(text)
    return (
        "?" not in text
        and len(spoken) >= 3
        and (spoken[0] not in _ASKS or text.lower().startswith("in the"))
        and (bool(_DECLARES.match(text.strip())) or len(spoken) >= 8)
    )


def _breaks_off(answer: str, *, brief: bool) -> bool:
    told = answer.rstrip()
    spoken = words(told)
    if told[-1:] in _ENDS or len(spoken) < 4 or _CLOSED.search(told):
        return False
    if told[-1] in ",;-–—(" or spoken[-1] in _DANGLING:
        return True
    last = told.splitlines()[-1]
    return len(spoken) >= 12 and not brief and not _LIST.match(last)


def _strange(text: str, known: str, scripts: tuple[str, ...]) -> str:
    """Letters of scripts that are not expected, where there are three and more that the picture does not have."""
    if text.isascii():
        return ""
    strange = [
        letter
        for letter in text
        if not letter.isascii() and letter.isalpha() and _script(letter) not in scripts
    ]
    strange = [letter for letter in strange if letter not in known]
    return "".join(strange[:20]) if len(strange) >= 3 else ""


@lru_cache(4096)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split()[0]
