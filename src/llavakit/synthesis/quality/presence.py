"""Yes and no about what is there: `Is there a cat?` is a claim once it is answered, and so is `There are no cats.`

A `yes` to something that neither captions nor boxes have is an invention; a `no` to something that has a box denies
what is there. A `no` is compared only where the bare thing is asked for: of `a white dog` or `a dog on the bench` boxes
know too little. Finds mentions; what becomes of them is the business of `hallucination`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llavakit.synthesis.context import Annotated
from llavakit.synthesis.quality.text import has_any, sentences, word_set, words
from llavakit.synthesis.quality.things import Mention, Vocabulary, name_forms

_PICTURE = r"(?:the|this) (?:image|picture|photo|photograph|scene|frame|shot)"
_ASKS = re.compile(
    r"(?:(?:is|are) there|(?:do|can|could) (?:you|we|i|one) (?:see|spot|find|notice)"
    rf"|does {_PICTURE} (?:show|contain|have|include|depict|feature)|(?:is|are)(?= (?:an?|any)\b.*"
    rf"\b(?:visible|present|shown|here|in {_PICTURE})\b))\s+",
    re.IGNORECASE,
)
_DENIES = re.compile(
    r"\W*(?:no,? )?(?:there(?:'s| is| are) (?:no|not an?|not any)"
    r"|(?:i|we) (?:do not|don't|cannot|can't) see (?:an?|any))\s+(?P<rest>[^,;:]+)",
    re.IGNORECASE,
)
_SIGNS = (
    " is no",
    " are no",
    "'s no",
    "’s no",
    "not see",
    "cannot see",
    "n't see",
    "n’t see",
)  # one of which denials have
_YES = re.compile(r"\W*(?:yes|yeah|yep)\b", re.IGNORECASE)
_NO = re.compile(r"\W*(?:no|nope)\b(?! one)", re.IGNORECASE)
_ARTICLES = word_set("a an any some")
_OF = word_set("of for to in on at with from by that which near behind beside under like , ( ) :")
_REST = word_set(
    "in on the this image picture photo photograph scene frame shot here visible present shown seen at all"
)
_ENDS = frozenset(".!?\n")
_PEOPLE = word_set(
    """
    someone somebody crowd family couple group team audience spectators passengers they he she his her him hand hands
    arm arms face player players surfer surfers skier skiers rider riders driver skater skaters snowboarder snowboarders
    skateboarder skateboarders batter pitcher catcher umpire tourist tourists worker workers chef chefs waiter student
    students soldier soldiers police officer officers policeman cowboy bride groom friend friends teen teenager
    teenagers cyclist cyclists biker bikers athlete athletes shoppers customer customers owner
    """
)
_LEAST_AREA = 0.001  # of the picture; who overlooks something smaller denies nothing


def affirmed(question: str, answer: str, picture: Annotated, vocabulary: Vocabulary) -> Iterator[Mention]:
    """What a `yes` says is there though no annotation has it. Of alternatives none may be there."""
    asked = _ASKS.match(question) if _YES.match(answer) else None
    if not asked:
        return
    rest = question[asked.end() :]
    named = vocabulary.mentions(rest)
    if not named or not named[0].told or _OF.intersection(vocabulary.tokens(rest)[: named[0].start]):
        return
    either = named if " or " in rest else named[:1]
    if not any(_may_be(mention, picture, vocabulary) for mention in either):
        yield named[0]


def denied(question: str, answer: str, picture: Annotated, vocabulary: Vocabulary) -> Iterator[Mention]:
    """What a `no`, or a sentence that nothing of the kind is there, denies though it has a box."""
    said = []
    if has_any(answer.lower(), _SIGNS):
        told = sentences(answer.replace("’", "'"))
        said = [match["rest"] for sentence in told if (match := _DENIES.match(sentence))]
    if _NO.match(answer) and (asked := _ASKS.match(question)):
        said.append(question[asked.end() :])
    for text in said:
        if (mention := _bare(text, vocabulary)) and any(
            box.category.lower() in mention.categories and _area(box.corners) >= _LEAST_AREA
            for box in picture.boxes
        ):
            yield mention


def _may_be(mention: Mention, picture: Annotated, vocabulary: Vocabulary) -> bool:
    if mention.categories & vocabulary.supported(picture):
        return True
    if "person" not in mention.categories:
        return False
    return not picture.boxes or any(not _PEOPLE.isdisjoint(words(text)) for text in picture.captions)


def _bare(text: str, vocabulary: Vocabulary) -> Mention | None:
    """The only thing of a text that says no more of it than that it is in the picture, by its category's own name."""
    named = vocabulary.mentions(text)
    if len(named) != 1 or len(named[0].categories) != 1:
        return None
    (mention,), (category,) = named, named[0].categories
    tokens = [token for token in vocabulary.tokens(text) if token not in _ENDS]
    around = [*tokens[: mention.start], *tokens[mention.end :]]
    own = {*name_forms(category), *(("people",) if category == "person" else ())}
    return mention if mention.name in own and (_ARTICLES | _REST).issuperset(around) else None


def _area(corners: tuple[float, float, float, float]) -> float:
    left, top, right, bottom = corners
    return (right - left) * (bottom - top)
