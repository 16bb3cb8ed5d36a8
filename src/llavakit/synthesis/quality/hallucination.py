"""The gates of hallucination: things named, counted and placed that a picture's captions and boxes do not bear out.

In the manner of CHAIR (Rohrbach et al. 2018), which compares the objects of a text with those of captions and boxes;
counts and places are compared with boxes alone. Annotations miss things too, so every comparison leaves what it cannot
decide: guesses, denials, general remarks, crowds, numbers of a part.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.context import Annotated, Box
from llavakit.synthesis.quality.settings import Settings
from llavakit.synthesis.quality.text import Finding, has_any, sentences, words
from llavakit.synthesis.quality.things import Mention, Vocabulary, is_asserted

VERSION = 2

_DOUBTFUL = frozenset(
    {"table", "desk", "ball", "phone", "tie", "ties", "ram", "cab", "teddy", "book", "train", "ship"}
)
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
_BESIDE = re.compile(
    r"\b(?:to the|on the|at the|just|directly|immediately)?\s*(left|right)(?:[ -](?:hand )?side)? of\b"
    r"|\b(above|below|beneath|underneath)\b",
    re.IGNORECASE,
)
_SIDES = ("left", "right", "above", "below", "beneath", "underneath", "top", "bottom", "upper", "lower")
_WHERE = re.compile(
    r"\b(?:on|at|in|to|towards?) the (?:far )?(left|right|top|bottom|upper|lower)"
    r"(?:[ -]?(?:hand )?(?:side|part|edge|half))?"
    r" of the (?:image|picture|photo|scene|frame)\b",
    re.IGNORECASE,
)


def find_things(candidate: Candidate, settings: Settings, vocabulary: Vocabulary) -> Iterator[Finding]:
    """Things that no annotation has, one finding when there are `settings.unsupported` and more of them."""
    picture = candidate.picture
    if not (picture.captions or picture.boxes or picture.regions):
        return  # nothing to compare with
    has = vocabulary.supported(picture)
    invented: dict[str, str] = {}
    for question, answer in candidate.exchanges:
        for mention in vocabulary.mentions(answer):
            if not mention.categories & has and _is_claim(mention, candidate.kind):
                invented.setdefault(min(mention.categories), mention.name)
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


def find_places(candidate: Candidate, settings: Settings, vocabulary: Vocabulary) -> Iterator[Finding]:
    """Left and right, above and below, of two things or in the picture, against the centres of their only boxes."""
    single = _single(candidate.picture)
    for _, answer in candidate.exchanges:
        if not has_any(answer.lower(), _SIDES):
            continue
        for sentence in filter(is_asserted, sentences(answer)):
            for pattern, judge in ((_BESIDE, _beside), (_WHERE, _within)):
                for match in pattern.finditer(sentence):
                    ahead = vocabulary.mentions(
                        re.split(r"[,;]| and | while ", sentence[: match.start()])[-1]
                    )
                    behind = vocabulary.mentions(sentence[match.end() :])[:1]
                    near = [one for one in behind if one.start <= 4]
                    if judge is _within and not sentence[: match.start()].strip():
                        ahead = tuple(near)  # `On the left of the picture there is a dog`
                    if len(ahead) == 1 and judge(match, ahead[0], near, single, settings.margin):
                        yield Finding("placed otherwise than boxes", sentence[:120])


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


def _single(picture: Annotated) -> dict[str, Box]:
    counted = Counter(box.category.lower() for box in picture.boxes)
    return {
        box.category.lower(): box
        for box in picture.boxes
        if counted[box.category.lower()] == 1 and not box.crowd
    }


def _centre(box: Box) -> tuple[float, float]:
    left, top, right, bottom = box.corners
    return (left + right) / 2, (top + bottom) / 2


def _box(mention: Mention, single: dict[str, Box]) -> Box | None:
    boxes = [single[category] for category in mention.categories if category in single]
    return boxes[0] if len(boxes) == 1 else None


def _beside(
    match: re.Match[str], ahead: Mention, behind: list[Mention], single: dict[str, Box], margin: float
) -> bool:
    """Whether boxes contradict that the one is left of, right of, above or below the other."""
    one = _box(ahead, single)
    other = _box(behind[0], single) if behind else None
    if one is None or other is None or one is other:
        return False
    (x, y), (other_x, other_y) = _centre(one), _centre(other)
    side = (match.group(1) or match.group(2)).lower()
    apart = {"left": x - other_x, "right": other_x - x, "above": y - other_y}.get(side, other_y - y)
    return apart > margin


def _within(
    match: re.Match[str], ahead: Mention, behind: list[Mention], single: dict[str, Box], margin: float
) -> bool:
    """Whether the box contradicts that the thing is on this side of the picture."""
    box = _box(ahead, single)
    if box is None:
        return False
    x, y = _centre(box)
    side = match.group(1).lower()
    beyond = {"left": x - 0.5, "right": 0.5 - x, "top": y - 0.5, "upper": y - 0.5}.get(side, 0.5 - y)
    return beyond > margin
