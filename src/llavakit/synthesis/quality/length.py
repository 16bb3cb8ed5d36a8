"""The gate of length: answers too short or too long for their kind, and answers that go round in a loop.

Counts words; what is said with them is other gates' business.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.quality.settings import Settings
from llavakit.synthesis.quality.text import Finding, normalised, sentences, words

VERSION = 1

_RUN = re.compile(r"(\S)\1{11,}")
_LOOP = re.compile(r"\b(\w+(?:\W+\w+){0,7}?)(?:\W+\1\b){3,}", re.IGNORECASE)
_LONG_ENOUGH = 30  # words from which the share of repeated runs says something


def find(candidate: Candidate, settings: Settings) -> Iterator[Finding]:
    """Answers outside the kind's limits, and every sort of repetition."""
    shortest, longest = settings.words_of(candidate.kind)
    for question, answer in candidate.exchanges:
        spoken = words(answer)
        if len(spoken) < shortest:
            yield Finding("too short", f"{len(spoken)} words, at least {shortest}")
        if len(spoken) > longest:
            yield Finding("too long", f"{len(spoken)} words, at most {longest}")
        if len(words(question)) > settings.longest_question:
            yield Finding("question too long", f"{len(words(question))} words")
        if loop := _loop(answer, spoken):
            yield Finding("repeats itself", loop[:80])
    asked = Counter(normalised(question) for question, _ in candidate.exchanges)
    if again := [question for question, times in asked.items() if times > 1]:
        yield Finding("asks the same twice", again[0][:80])
    answered = Counter(
        one for _, answer in candidate.exchanges if len((one := normalised(answer)).split()) > 5
    )
    if again := [answer for answer, times in answered.items() if times > 2]:
        yield Finding("answers several questions alike", again[0][:80])


def _loop(answer: str, spoken: list[str]) -> str:
    if match := _RUN.search(answer):
        return match.group()
    if len(spoken) >= 4 and len(set(spoken)) < len(spoken) and (match := _LOOP.search(answer)):
        return match.group()
    if len(spoken) < _LONG_ENOUGH:
        return ""
    counted = Counter(normalised(one) for one in sentences(answer))
    for sentence, times in counted.items():
        if times > 2 or (times == 2 and len(sentence.split()) >= 8):
            return sentence
    runs = [tuple(spoken[start : start + 4]) for start in range(len(spoken) - 3)]
    return " ".join(Counter(runs).most_common(1)[0][0]) if len(set(runs)) < 0.7 * len(runs) else ""
