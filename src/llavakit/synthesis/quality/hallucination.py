"""The gates of hallucination: things named and counted that a picture's captions and boxes do not bear out.

In the manner of CHAIR (Rohrbach et al. 2018), which compares the objects of a text with those of captions and boxes;
counts are compared with boxes alone. Annotations miss things too, so every comparison leaves what it cannot decide:
guesses, denials, general remarks, crowds, numbers of a part. Where things are is the business of `places`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.context import Annotated
from llavakit.synthesis.quality import presence
from llavakit.synthesis.quality.settings import Settings
from llavakit.synthesis.quality.text import Finding, sentences, words
from llavakit.synthesis.quality.things import Mention, Vocabulary

VERSION = 3

_OF_QUESTIONS = frozenset({"conversation", "reasoning", "text_rich", "short_answer"})
_ASKS_OF = re.compile(r"^(?:what|where|why|which|who|how)\b", re.IGNORECASE)
_TOTAL = re.compile(
    r"\bthere (?:are|is) (?:a total of |exactly )?(?:\w+ ){1,4}?(?:visible |present |shown |seen )?(?:in|on)"
    r" (?:the|this) (?:image|picture|photo|scene)\b|^\W*\w+\W*$|^\W*there (?:are|is) (?:\w+ ){1,3}\w+\W*$",
    re.IGNORECASE,
)
_HOW_MANY = re.compile(
    r"^how many ((?:\w+[ -]?){1,3}?)(?: are| is| do| does| can| have|\?| in\b| on\b)", re.IGNORECASE
)
_PART = re.compile(
    r"\b(?:of the|foreground|background|front|left|right|behind|other|another|least|more|near)\b"
)


def find_things(candidate: Candidate, settings: Settings, vocabulary: Vocabulary) -> Iterator[Finding]:
    """Things that no annotation has, one finding from `settings.unsupported` on, and boxed things that are denied."""
    picture = candidate.picture
    if not (picture.captions or picture.boxes or picture.regions):
        return  # nothing to compare with
    has = vocabulary.supported(picture)
    invented: dict[str, str] = {}
    for question, answer in candidate.exchanges:
        for mention in vocabulary.mentions(answer):
            if not mention.categories & has and _is_claim(mention, candidate.kind):
                invented.setdefault(min(mention.categories), mention.name)
        for mention in presence.affirmed(question, answer, picture, vocabulary):
            invented.setdefault(min(mention.categories), mention.name)
        for mention in presence.denied(question, answer, picture, vocabulary):
            yield Finding("denies what is there", mention.name)
        if candidate.kind in _OF_QUESTIONS and _ASKS_OF.match(question):
            for mention in vocabulary.mentions(question):
                assumed = mention.told and mention.article == "the" and "person" not in mention.categories
                if assumed and not mention.categories & has and not _denies(answer):
                    invented.setdefault(min(mention.categories), mention.name)
    if len(invented) >= max(1, settings.unsupported):
        yield Finding("names what is not there", ", ".join(invented.values()))


def find_counts(candidate: Candidate, settings: Settings, vocabulary: Vocabulary) -> Iterator[Finding]:
    """Numbers of things that differ from their boxes. Fewer than boxed may be a part, unless all are counted."""
    boxed = Counter(box.category.lower() for box in candidate.picture.boxes)
    crowds = {box.category.lower() for box in candidate.picture.boxes if box.crowd}
    if not boxed:
        return
    for question, answer in candidate.exchanges:
        told = sentences(answer)
        asked = _HOW_MANY.match(question.strip())
        for mention in vocabulary.mentions(answer):
            if len(mention.categories) != 1 or not mention.told or mention.article != "number":
                continue
            (category,) = mention.categories
            there = boxed[category]
            if not 1 <= there <= settings.count_up_to or category in crowds or mention.number < 2:
                continue
            if mention.number == there or (category, mention.number) in _captioned(
                candidate.picture, vocabulary
            ):
                continue
            sentence = told[mention.sentence] if mention.sentence < len(told) else answer
            whole = _TOTAL.search(sentence) or (asked and _is_of(asked.group(1), category, vocabulary))
            if category == "person" and mention.name not in {"people", "persons"}:
                whole = None
            if mention.number > there or (whole and not _PART.search(sentence + " " + question)):
                yield Finding("another number than boxes", f"{mention.number} {mention.name}, boxed {there}")
        if asked and len(words(answer)) <= 2:
            yield from _short_count(
                asked.group(1),
                answer,
                boxed,
                crowds,
                _captioned(candidate.picture, vocabulary),
                settings,
                vocabulary,
            )


def _is_claim(mention: Mention, kind: str) -> bool:
    if not mention.told:
        return False
    if "person" in mention.categories:
        return (
            mention.article == "a" and mention.name not in {"person", "baby", "child"} and kind != "reasoning"
        )
    if kind == "reasoning":
        return mention.article == "the" or mention.number > 1
    return mention.name not in {
        "table",
        "desk",
        "ball",
        "phone",
        "tie",
        "sub",
        "ram",
        "clutch",
        "steer",
        "cab",
        "teddy",
    } or (mention.article in {"a", "the", "number"} and mention.name not in {"sub", "steer", "clutch"})


def _denies(answer: str) -> bool:
    return bool(
        re.match(r"\W*(?:no\b|there (?:is|are) no)|.*\b(?:not|n't|no)\b", answer[:80].lower(), re.DOTALL)
    )


def _captioned(picture: Annotated, vocabulary: Vocabulary) -> frozenset[tuple[str, int]]:
    """Categories with the numbers that captions and regions say of them."""
    texts = (*picture.captions, *(region.phrase for region in picture.regions))
    return frozenset(
        (category, mention.number)
        for text in texts
        for mention in vocabulary.mentions(text)
        for category in mention.categories
        if mention.number
    )


def _is_of(name: str, category: str, vocabulary: Vocabulary) -> bool:
    return any(mention.categories == {category} for mention in vocabulary.mentions(name))


def _short_count(
    name: str,
    answer: str,
    boxed: Counter[str],
    crowds: set[str],
    captioned: frozenset[tuple[str, int]],
    settings: Settings,
    vocabulary: Vocabulary,
) -> Iterator[Finding]:
    """An answer that is a number alone, to a question after all of a kind."""
    numbers = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
    said = [numbers.get(word) or (int(word) if word.isdigit() else 0) for word in words(answer)][:1]
    of = vocabulary.mentions(name)
    if len(of) != 1 or len(of[0].categories) != 1 or not said or not said[0]:
        return
    (category,) = of[0].categories
    there = boxed[category]
    if category in crowds or not 1 <= there <= settings.count_up_to or (category, said[0]) in captioned:
        return
    if said[0] != there and (category != "person" or of[0].name == "people"):
        yield Finding("another number than boxes", f"{said[0]} {name.strip()}, boxed {there}")
