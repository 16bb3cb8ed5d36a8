"""The gate of leaks: words by which the answer shows that it was written from captions, boxes or a prompt.

The answer should be that of somebody who sees the picture. Numbers that are boxes are leaks too, except in the kind
whose answers are boxes. What comes back of the instructions is found by runs of words that both share.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.quality.settings import Settings
from llavakit.synthesis.quality.text import Finding, around, has_any, words

VERSION = 1

_SAY = (
    r"(?:say|mention|describe|state|indicate|note|suggest|tell|refer|specif|list|show|imply|implie|call|agree|include|provide|give"
    r"|do(?:es)? not|don't|doesn't)"
)
_SOURCE = (
    r"(?:captions?|annotations?|object list|bounding[ -]box(?:es)?|box(?:es)? coordinates|metadata"
    r"|(?:given|provided|supplied|accompanying|available|above|textual|image|picture|scene) (?:descriptions?"
    r"|captions?|information|details|text|data|context|annotations?|sentences?|boxes)"
    r"|descriptions?|information (?:provided|given|available)|(?:text|details|context|data) (?:provided|given))"
)
_IN_PRINT = (
    r"(?<!photo )(?<!newspaper )(?<!cartoon )(?<!magazine )(?<!comic )(?<!printed )(?<!poster )(?<!meme )"
)

PATTERNS = {
    "names its source": (
        rf"\b(?:the|these|those|all|each|one|some|several|both|most|\w+ of the|two|three|four|five)(?: \w+)?"
        rf" {_IN_PRINT}captions? (?:\w+ )?{_SAY}",
        rf"\b(?:the|these|this|given|provided) descriptions? (?:\w+ )?{_SAY}",
        rf"\b(?:according to|based on|judging (?:by|from)|going by|as per|per|from|given) (?:all |both )?"
        rf"(?:the|these|this|your) (?:\w+ )?{_SOURCE}\b",
        r"\b(?:mentioned|described|stated|specified|indicated|noted|listed|included|provided|given|said|reported)"
        rf" (?:\w+ )?(?:in|by) (?:\w+ ){{0,2}}(?:the|these|your|any|each) (?:\w+ )?{_SOURCE}\b",
        r"\b(?:is|are|was|were) (?!often |commonly |usually )(?:described|mentioned|annotated) as\b",
        r"\b(?:provided|given|available|supplied) (?:information|context|captions?|descriptions?|annotations?)\b",
        r"\binformation (?:provided|given)\b",
        r"\b(?:in|from) (?:the|these|one of the|all|some of the) captions\b",
        r"\b(?:one|some|all|most|any|none|each|several|both|two|three) of the (?:\w+ )?captions\b",
        rf"\b(?:the|these|those|all|one|some|several|both)(?: of the)? sentences? (?:\w+ )?{_SAY}",
        r"\baccording to (?:the|these|those|some) (?:sentences?|people who wrote|lists?|boxes|symbols)\b",
        r"\b(?:people|who|somebody|someone) wrote (?:of|about|for) (?:the|this) (?:picture|image|photo|scene)\b",
    ),
    "names boxes": (
        r"\bbounding[ -]?box(?:es)?\b",
        r"\b(?:the|their|its|these|box|normali[sz]ed|pixel|given|corner|[xy])"
        r" coordinates?\b(?! (?:on the|of the (?:map|gps)))",
        r"\bcoordinates? (?:\[|\(|\d|of the (?:box|object|person|\w+ (?:is|are))|provided|given)",
        r"\b[xy][12]?\s*=\s*\d",
    ),
    "says what it was not told": (
        r"\b(?:not|never|isn't|aren't|wasn't|without being) (?:\w+ )?(?:mentioned|specified|stated|described|provided"
        r"|indicated|detailed) (?:\w+ )?(?:in|by|within) (?:the|this|any|these|what)\b",
        r"\b(?:does not|do not|doesn't|don't|did not) (?:\w+ )?(?:mention|specify|state) (?:what|which|who|how|where"
        r"|when|why|if|whether|any|the|its|their)\b",
        r"\b(?:not|never|isn't|aren't) (?:explicitly|specifically) (?:mentioned|specified|stated|described|given)\b",
        r"\b(?:is|are) not (?:mentioned|specified|stated)\b",
    ),
    "answers a translation prompt": (
        r"\btranslate (?:the|this|these|following|above|it)?\s?(?:following|above|text|sentences?|dialogue"
        r"|conversation|questions?|content|paragraph|answers?)\b",
        r"\b(?:here is|here's|below is|this is|following is) (?:the|a|your|my) (?:\w+ )?translation\b",
        r"^\W*(?:translation|translated (?:text|version|answer))\W*:",
        r"翻译|譯",
    ),
    "speaks of its instructions": (
        r"\byou are an? (?:\w+ ){0,3}(?:assistant|annotator|expert|model)\b",
        r"\b(?:as (?:you )?(?:instructed|requested)|as per (?:your|the) (?:instructions?|request|guidelines)"
        r"|(?:system|user) (?:prompt|message)|few-shot|(?:the|your) instructions (?:say|state|ask|require|above)"
        r"|following (?:your|the) (?:instructions|format|guidelines)|in the (?:requested|required) format)\b",
    ),
}
_FRACTION = r"-?(?:0|1)?\.\d+"
_NUMBERS = re.compile(
    rf"[\[(]\s*{_FRACTION}\s*(?:,\s*-?\d*\.?\d+\s*){{1,3}}[\])]"
    rf"|(?<![\d$€£.])0?\.\d{{2,}}\s*,\s*0?\.\d{{2,}}\s*,\s*[01]?\.\d+"
    r"|(?<![\d$€£.])0?\.\d{3,}\s*,\s*[01]?\.\d{3,}"
    r"|\[\s*\d{1,4}\s*,\s*\d{1,4}\s*,\s*\d{1,4}\s*,\s*\d{1,4}\s*\]"
)
_FIGURES = ("[", "0.", "1.", " .", "(.")  # one of which all numbers of a box have
_ANY = {
    reason: re.compile("|".join(f"(?:{one})" for one in patterns), re.IGNORECASE | re.MULTILINE)
    for reason, patterns in PATTERNS.items()
}
# What a text must have, in lower case, for a pattern of the sort to fit.
_SIGNS = {
    "names its source": (
        *(
            "caption",
            "descri",
            "annotat",
            "provided",
            "given",
            "supplied",
            "available",
            "information",
            "metadata",
        ),
        *(
            "object list",
            "sentence",
            "according to",
            "wrote",
            "based on",
            "judging",
            "going by",
            "as per",
            "bounding",
        ),
        *(
            "box coord",
            "boxes coord",
            "mentioned",
            "stated",
            "specified",
            "indicated",
            "noted",
            "listed",
            "reported",
        ),
        *(" text", "details", "context", " data"),
    ),
    "names boxes": ("bounding", "coordinate", "="),
    "says what it was not told": (
        "mention",
        "specif",
        "state",
        "described",
        "provided",
        "indicated",
        "detailed",
        "given",
    ),
    "answers a translation prompt": ("translat", "翻译", "譯"),
    "speaks of its instructions": (
        *("you are a", "instruct", "request", "prompt", "message", "few-shot", "guidelines", "format"),
    ),
}
# The lines by which LLaVA-1.5 asks for a short form: part of a question, told to the teacher as well.
_FORMAT_LINE = re.compile(r"^answer (?:the question |with the option).*$", re.IGNORECASE | re.MULTILINE)


def find(candidate: Candidate, settings: Settings) -> Iterator[Finding]:
    """The first leak of each sort in each question and answer."""
    boxes_are_data = candidate.kind == "region"
    told = _runs(candidate.instructions, settings.echo_words) if candidate.instructions else frozenset()
    for exchange in candidate.exchanges:
        for text in exchange:
            lowered = text.lower()
            if not boxes_are_data and has_any(text, _FIGURES) and (match := _NUMBERS.search(text)):
                yield Finding("numbers of a box", around(text, *match.span(), 15))
            for reason, pattern in _ANY.items():
                if boxes_are_data and reason == "names boxes":
                    continue
                if has_any(lowered, _SIGNS[reason]) and (match := pattern.search(text)):
                    yield Finding(reason, around(text, *match.span()))
            if told and (echo := _echo(_FORMAT_LINE.sub("", text), told, settings.echo_words)):
                yield Finding("repeats its instructions", echo)


def _echo(text: str, told: frozenset[str], length: int) -> str:
    spoken = words(text)
    for start in range(len(spoken) - length + 1):
        run = " ".join(spoken[start : start + length])
        if run in told:
            return run
    return ""


@lru_cache(256)
def _runs(instructions: str, length: int) -> frozenset[str]:
    """All runs of so many words; prompts are few, so they are kept."""
    told = words(instructions)
    return frozenset(" ".join(told[start : start + length]) for start in range(len(told) - length + 1))
