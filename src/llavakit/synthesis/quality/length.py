"""The gate of length: answers too short or too long for their kind, and answers that go round in a loop.

Counts words; what is said with them is other gates' business.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from operator import eq

from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.quality.settings import Settings
from llavakit.synthesis.quality.text import Finding, normalised, sentences, words

VERSION = 1

_RUN = re.compile(r"(\S)\1{11,}")
_PERIOD = 8  # words of the longest phrase that is looked for four times in a row
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
    if len(candidate.exchanges) < 2:
        return
    asked = Counter(normalised(question) for question, _ in candidate.exchanges)
    if again := [question for question, times in asked.items() if times > 1]:
        yield Finding("asks the same twice", again[0][:80])
    answered = Counter(
        one for _, answer in candidate.exchanges if len((one := normalised(answer)).split()) > 5
    )
    if again := [answer for answer, times in answered.items() if times > 2]:
        yield Finding("answers several questions alike", again[0][:80])


def _loop(answer: str, spoken: tuple[str, ...]) -> str:
    for word in answer.split():
        if len(word) > 11 and (match := _RUN.search(word)):
            return match.group()
    threes = list(zip(spoken, spoken[1:], spoken[2:], strict=False))
    if len(set(threes)) == len(threes):
        return ""  # no three words come twice, so nothing below can
    for period in range(1, _PERIOD + 1):
        if not any(map(eq, threes, threes[period:])):
            continue  # four times in a row is three words again at this distance
        alike = "".join(map("01".__getitem__, map(eq, spoken, spoken[period:])))
        if (place := alike.find("1" * 3 * period)) >= 0:
            return " ".join(spoken[place : place + period])
    if len(spoken) < _LONG_ENOUGH:
        return ""
    counted = Counter(one.lower() for one in sentences(answer))
    for sentence, times in counted.items():
        if times > 2 or (times == 2 and len(sentence.split()) >= 8):
            return sentence
    runs = Counter(zip(spoken, spoken[1:], spoken[2:], spoken[3:], strict=False))
    return " ".join(runs.most_common(1)[0][0]) if len(runs) < 0.7 * (len(spoken) - 3) else ""
