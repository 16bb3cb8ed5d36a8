"""The gate of places: left and right, above and below, as answers tell them, against the centres of boxes.

A text is read into claims: a thing is on some sides of another thing or of the picture, or a `no` denies it. They are
read from statements, from answers to `where` and `which side`, from yes and no, and from names that answer `what is to
the left of` or `which is higher`. What could be meant otherwise is left alone: sides of a thing itself, several things
where one would be meant, centres that are close, what is guessed.

Knows mentions and boxes. Whether a thing is there at all is `hallucination`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.context import Annotated, Box
from llavakit.synthesis.quality.settings import Settings
from llavakit.synthesis.quality.text import Finding, has_any, sentences, word_set
from llavakit.synthesis.quality.things import Mention, Vocabulary, is_asserted

VERSION = 3

_SIDES = {
    "left": "left", "right": "right", "top": "up", "upper": "up", "above": "up", "higher": "up",
    "bottom": "down", "lower": "down", "below": "down", "beneath": "down", "underneath": "down",
}  # fmt: skip
_SIGNS = tuple(_SIDES)
_PICTURE = r"(?:the|this) (?:image|picture|photo|photograph|scene|frame|shot)\b"
_HAND = r"(?:[- ]hand(?= |-))?"
_PART = r"(?:[ -]?(?:side|part|edge|half|corner|portion|area|section|end)\b)?"
_HEIGHT = r"(?:above|below|beneath|underneath)"
_WITHIN = re.compile(
    rf"\b(?P<ahead>on|at|in|to|towards?|near) (?P<the>the )?(?:far |very |middle |cent(?:er|re) )?"
    rf"(?P<one>top|upper|bottom|lower|left|right)\b(?:[- ](?P<two>left|right)\b)?{_HAND}(?P<part>{_PART})"
    rf"(?P<of> of {_PICTURE})?",
    re.IGNORECASE,
)
_BESIDE = re.compile(
    rf"\b(?P<one>{_HEIGHT}),? and (?:slightly )?(?:(?:to|on) the )?(?P<two>left|right) of\b"
    rf"|\b(?P<three>left|right)(?: of)?,? and (?:slightly )?(?P<four>{_HEIGHT})\b"
    rf"|(?<!top[- ])(?<!upper[- ])(?<!bottom[- ])(?<!lower[- ])"
    rf"\b(?P<five>left|right)(?:[ -](?:hand )?side)? of\b(?! {_PICTURE})"
    rf"|\b(?P<six>{_HEIGHT})\b"
    r"|\b(?:further|farther|more)(?: (?:to|on) the)? (?P<seven>left|right) than\b"
    r"|\b(?P<eight>higher|lower)(?: up| down)? than\b",
    re.IGNORECASE,
)
_FRAGMENT = re.compile(
    r"\W*(?:it|they|he|she)?(?:'s|'re| is| are| can be)? ?"
    r"(?:(?:located|positioned|placed|found|seen|situated|sitting|standing|lying|hanging|lies|lie|sits|sit|stands|stand"
    r"|hangs|flies|visible|parked|directly|just|slightly|up|down) )*"
    r"(?:(?:on|at|in|to|towards?) )?(?:the )?(?:far |very |middle |cent(?:er|re) )?"
    r"(?P<one>top|upper|bottom|lower|left|right|above|below)\b"
    r"(?:(?:[- ]|,? and )(?:slightly )?(?:to |on )?(?:the )?(?P<two>left|right|above|below|top|bottom)\b)?"
    rf"{_HAND}{_PART}(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_WHERE = re.compile(
    r"where(?:'s| is| are| can (?:you|we|i|one) (?:see|find)| do you see| (?:does|do)\b)"
    r"|(?:on|in|at|to|towards) (?:which|what) (?:side|part|half|corner|edge|end)"
    r"|(?:which|what) (?:side|part|half|corner|edge|end)",
    re.IGNORECASE,
)
_SEEN_FROM = re.compile(
    r"(?:seen |viewed )?(?:from|relative to|in relation to|with respect to|compared (?:to|with))(?: \w+){0,3}"
)
_PLACED = word_set(
    "located positioned placed standing sitting lying hanging flying parked situated shown seen visible found be stand"
    " sit lie hang fly appear is are to the on at in slightly directly just far further farther more up down somewhere"
)
_NOWHERE_ELSE = (
    word_set("in on the this image picture photo photograph scene frame shot here . ? ! ,") | _PLACED
)
_BETWEEN = word_set(
    "the a an this that its his her their is are there stands sits lies hangs we you i see can one"
)
_PARTS = word_set(
    ", ; : . ! ? ( ) and while with of in on at to by near next behind beside under over from for or above below"
    " beneath underneath against across along around between among inside outside into onto past toward towards"
    " left right top bottom upper lower it them him"
)
_TURNS = word_set(", there is are stands sits lies hangs flies we you one")
_HEADING = word_set(
    "point points pointing face faces facing turn turns turning look looks looking gaze gazes gazing head heads heading"
    " headed move moves moving go goes going walk walks walking run runs running fly flies flying lean leans leaning"
    " drive drives driving ride rides riding swim swims swimming travel travels traveling travelling"
)
_IT = _PLACED | word_set("it also and which that they he she it's because")
_OWNED = re.compile(
    r"\b(?:with|has|have|having|had|its|his|her|their|wears?|wearing|holds?|holding)\b", re.IGNORECASE
)
_HAS = re.compile(r"\b(?:has|have|having|its|their)\b", re.IGNORECASE)
_ENDS = re.compile(r"\W*$|\s*[,.;:!?)]|\s(?:and|while|but|there|is|are|stands?|sits?|lies|hangs|we|you|i)\b")
_YES = re.compile(r"\W*(?:yes|yeah|yep|correct|true)\b", re.IGNORECASE)
_NO = re.compile(r"\W*(?:no|nope)\b(?! one)", re.IGNORECASE)
_ASKS_WHETHER = re.compile(r"(?:is|are|was|were|does|do) ", re.IGNORECASE)
_ASKS_WHAT = re.compile(r"(?:what|which (?:\w+ )?|who)\b", re.IGNORECASE)
_COMPARES = re.compile(
    r"\b(?:(?:further|farther|more|closer|nearer)(?: (?:to|on))?(?: the)?|(?:on|to|at) the) (left|right|top|bottom)\b"
    r"|\b(higher|lower)\b",
    re.IGNORECASE,
)
_JOINTS = re.compile(r"[,;]| and | while ", re.IGNORECASE)
_REACH = 200  # characters on either side of a place in which its things are looked for
_LONGEST_NAME = 8  # words of an answer that names a thing and tells little else


@dataclass(frozen=True, slots=True)
class Claim:
    """A thing is on all these sides of another, or of the picture where there is no other.

    sides: of `left`, `right`, `up`, `down`. holds: False where just this is denied. margin: how many times further
    than usual the boxes must be from it before they contradict.
    """

    thing: Mention
    sides: tuple[str, ...]
    other: Mention | None = None
    holds: bool = True
    margin: int = 1


def find(candidate: Candidate, settings: Settings, vocabulary: Vocabulary) -> Iterator[Finding]:
    """Claims about places that boxes contradict, each with the words that make it."""
    boxes = _boxes(candidate.picture)
    for question, answer in candidate.exchanges:
        asked = question.strip().partition("\n")[0]
        if boxes and has_any(f"{asked}\n{answer}".lower(), _SIGNS):
            for claim, told in _claims(asked, answer, vocabulary):
                if _contradicted(claim, boxes, settings):
                    yield Finding("placed otherwise than boxes", told[:120])


def _claims(asked: str, answer: str, vocabulary: Vocabulary) -> Iterator[tuple[Claim, str]]:
    """What the answer claims, with its words."""
    if has_any(asked.lower(), _SIGNS) or _WHERE.match(asked):
        told = f"{asked} {answer.strip()}"
        for claim in _answered(asked, answer, vocabulary):
            yield claim, told
    if has_any(answer.lower(), _SIGNS):
        for sentence in sentences(answer):
            if has_any(sentence.lower(), _SIGNS) and is_asserted(sentence):
                for claim in _stated(sentence, vocabulary):
                    yield claim, sentence


def _stated(sentence: str, vocabulary: Vocabulary) -> Iterator[Claim]:
    """The claims of a sentence that neither denies nor guesses."""
    last: tuple[Mention, ...] = ()  # the thing that was told of last, and where that ended
    since = 0
    for match in sorted([*_BESIDE.finditer(sentence), *_WITHIN.finditer(sentence)], key=re.Match.start):
        ahead = _JOINTS.split(sentence[max(0, match.start() - _REACH) : match.start()])[-1]
        leads = sentence[: match.start()].rstrip()[-1:] in {"", ";"}
        after = sentence[match.end() :]
        things, near = vocabulary.mentions(ahead), _next(after, vocabulary)
        if match.re is _BESIDE:
            if not things and _IT.issuperset(vocabulary.tokens(ahead)):
                between = vocabulary.mentions(sentence[since : match.start()][-_REACH:])
                things = (last if len(between) < 2 else ()) or _behind(after, near, vocabulary)
            if len(things) == 1 and near:
                yield Claim(things[0], _sides(match), near)
        elif margin := _is_of_picture(match, after, ahead):
            if leads and near:
                things = (near,)  # `On the left of the picture there is a dog`
            if len(things) == 1:
                yield Claim(things[0], _sides(match), margin=margin)
        if things:
            last, since = things if len(things) == 1 else (), match.end()


def _behind(after: str, near: Mention | None, vocabulary: Vocabulary) -> tuple[Mention, ...]:
    """The thing that a turned sentence tells last: `To the left of the dog there is a boat`."""
    told = vocabulary.tokens(after[:_REACH])[near.end :] if near else []
    thing = _next(" ".join(told), vocabulary) if told and told[0] in _TURNS else None
    return (thing,) if thing else ()


def _is_of_picture(match: re.Match[str], after: str, ahead: str) -> int:
    """By how much the boxes must be off to contradict this side of the picture; 0 where it may be another thing's."""
    if match["ahead"].lower().startswith("to") and not _HEADING.isdisjoint(ahead.lower().split()):
        return 0
    if match["of"]:
        return 1 if match["the"] and not _HAS.search(ahead) else 0
    corner = match["two"] or match["part"]
    if match["ahead"].lower() not in {"on", "at", "in"} or not match["the"] or not _ENDS.match(after):
        return 0
    if _OWNED.search(ahead) or (not corner and match["one"].lower() not in {"left", "right"}):
        return 0
    return 1 if match["two"] else 2


def _answered(asked: str, answer: str, vocabulary: Vocabulary) -> Iterator[Claim]:
    """The claims that an answer makes only together with its question."""
    if _WHERE.match(asked) or (_ASKS_WHETHER.match(asked) and " or " in asked):
        yield from _where(asked, answer, vocabulary)
    elif _ASKS_WHETHER.match(asked) and is_asserted(asked):
        if (yes := bool(_YES.match(answer))) or _NO.match(answer):
            for claim in _whether(asked, vocabulary):
                yield Claim(claim.thing, claim.sides, claim.other, holds=yes)
    elif _ASKS_WHAT.match(asked):
        yield from _what(asked, answer, vocabulary)


def _where(asked: str, answer: str, vocabulary: Vocabulary) -> Iterator[Claim]:
    """`Where is the cat (seen from the key)?` `To the left and above`"""
    things = vocabulary.mentions(asked)
    fragment = _FRAGMENT.match(answer)
    if not fragment or not 1 <= len(things) <= 2 or not is_asserted(answer.partition(".")[0]):
        return
    tokens = vocabulary.tokens(asked)
    other: Mention | None = None
    if len(things) == 2:
        between = " ".join(tokens[things[0].end : things[1].start])
        if not _SEEN_FROM.search(between) and not re.search(r"\bor\b.*\b(?:left|right) of\b", between):
            return
        other = things[1]
    if " or " not in asked and not _NOWHERE_ELSE.issuperset(
        tokens[things[-1].end :] if other else tokens[things[0].end :]
    ):
        return
    rest = fragment["rest"]
    if re.match(r" of\b", rest) and not re.match(rf" of (?:{_PICTURE}|it\b)", rest, re.IGNORECASE):
        if not other and (near := _next(rest.removeprefix(" of"), vocabulary)):
            yield Claim(things[0], _sides(fragment), near)  # `It lies to the left of the dog`
        return
    if rest[:1].isalnum() or (rest[:1] == " " and not re.match(r" of\b", rest) and len(rest.split()) > 6):
        return
    yield Claim(things[0], _sides(fragment), other, margin=1 if other or fragment["two"] else 2)


def _whether(asked: str, vocabulary: Vocabulary) -> Iterator[Claim]:
    """`Is the cat to the left of the key?`"""
    for pattern in (_BESIDE, _WITHIN):
        match = pattern.search(asked)
        if match is None:
            continue
        ahead, after = asked[: match.start()], asked[match.end() :]
        things, tokens = vocabulary.mentions(ahead), vocabulary.tokens(ahead)
        if len(things) != 1 or "of" in tokens or not _PLACED.issuperset(tokens[things[0].end :]):
            continue
        near = _next(after, vocabulary) if pattern is _BESIDE else None
        rest = vocabulary.tokens(after)[near.end if near else 0 :]
        if (near or pattern is _WITHIN) and _NOWHERE_ELSE.issuperset(rest):
            yield Claim(things[0], _sides(match), near)
            return


def _what(asked: str, answer: str, vocabulary: Vocabulary) -> Iterator[Claim]:
    """`What is to the left of the key?` `Which is further left, the cat or the key?`"""
    named = vocabulary.mentions(answer)
    if not named or not named[0].told or named[0].start > 3:
        return
    asked_of = vocabulary.mentions(asked)
    if " or " in asked:
        match = _COMPARES.search(asked)
        others = [one for one in asked_of if not one.categories & named[0].categories]
        if match and len(asked_of) == 2 and len(others) == 1:
            yield Claim(named[0], _sides(match), others[0])
        return
    if len(vocabulary.tokens(answer)) > _LONGEST_NAME or len(named) != 1:
        return
    for pattern in (_BESIDE, _WITHIN):
        match = pattern.search(asked)
        if match is None or vocabulary.mentions(asked[: match.start()]):
            continue
        near = _next(asked[match.end() :], vocabulary) if pattern is _BESIDE else None
        rest = vocabulary.tokens(asked[match.end() :])[near.end if near else 0 :]
        if (near or pattern is _WITHIN) and _NOWHERE_ELSE.issuperset(rest):
            yield Claim(named[0], _sides(match), near)
            return


def _next(text: str, vocabulary: Vocabulary) -> Mention | None:
    """The thing that the text begins with, over an article and at most three other words."""
    near = text[:_REACH]
    for mention in vocabulary.mentions(near)[:1]:
        between = vocabulary.tokens(near)[: mention.start]
        skipped = between[1:] if between[:1] == [","] else between
        if mention.start <= 5 and not _PARTS.intersection(skipped):
            return mention
    return None


def _sides(match: re.Match[str]) -> tuple[str, ...]:
    said = (group.lower() for group in match.groups() if group)
    return tuple(dict.fromkeys(_SIDES[word] for word in said if word in _SIDES))


def _boxes(picture: Annotated) -> dict[str, list[Box]]:
    """The boxes of every category of which none is a crowd."""
    found: dict[str, list[Box]] = {}
    for box in picture.boxes:
        found.setdefault(box.category.lower(), []).append(box)
    return {category: boxes for category, boxes in found.items() if not any(box.crowd for box in boxes)}


def _of(mention: Mention, boxes: dict[str, list[Box]]) -> Sequence[Box]:
    """The boxes of what is mentioned, where it is clear of which category it is."""
    known = [boxes[category] for category in mention.categories if category in boxes]
    return known[0] if len(known) == 1 else ()


def _contradicted(claim: Claim, boxes: dict[str, list[Box]], settings: Settings) -> bool:
    """Whether the only box of each thing contradicts the claim; of several in the picture, whether all do."""
    things = _of(claim.thing, boxes)
    others = _of(claim.other, boxes) if claim.other else (_WHOLE,)
    if not claim.sides or not things or len(others) != 1 or things == others:
        return False
    if len(things) > (1 if claim.other else settings.count_up_to):
        return False
    margin = claim.margin * settings.margin
    if claim.holds:
        return all(any(_beyond(side, box, others[0]) > margin for side in claim.sides) for box in things)
    if claim.other is None:  # a thing near the middle may be said to be on neither side
        return len(things) == 1 and all(
            _beyond(_OPPOSITE[side], things[0], _WHOLE) > max(2 * margin, 0.25) for side in claim.sides
        )
    return all(
        _beyond(_OPPOSITE[side], things[0], others[0]) > margin and _apart(side, things[0], others[0])
        for side in claim.sides
    )


_WHOLE = Box("", (0.0, 0.0, 1.0, 1.0))
_OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}


def _beyond(side: str, box: Box, other: Box) -> float:
    """How far the centre is from the other's on the opposite side, in fractions of the picture."""
    (left, top, right, bottom), (far_left, far_top, far_right, far_bottom) = box.corners, other.corners
    across, down = (left + right - far_left - far_right) / 2, (top + bottom - far_top - far_bottom) / 2
    return {"left": across, "right": -across, "up": down, "down": -down}[side]


def _apart(side: str, box: Box, other: Box) -> bool:
    """Whether the boxes do not overlap along the direction of this side."""
    low, high = (0, 2) if side in {"left", "right"} else (1, 3)
    return box.corners[high] <= other.corners[low] or other.corners[high] <= box.corners[low]
