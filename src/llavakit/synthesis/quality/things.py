"""Things as a text mentions them: which categories a name may be, how many are said, whether they are said to be there.

Works on words in order. A mention under a negation or a guess says nothing of the picture, and a name that only
qualifies another noun (`dog bed`, `bicycle helmet`, `an orange shirt`) is no mention.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from llavakit.synthesis.context import Annotated
from llavakit.synthesis.quality.names import KIN, LOOSE, NAMES, NOTHING
from llavakit.synthesis.quality.text import word_set

_TOKEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[.!?;:,()\n]")
_TRAFFIC_LIGHT = re.compile(r"\btraffic (?=lights?\b|signals?\b|signs?\b)")  # no traffic
_ENDS = frozenset(".!?\n;")
_ORANGES = frozenset({"orange", "oranges"})
_PARTS = frozenset({",", "but", "(", ")", ":", "and", "while"})
_IRREGULAR = {
    "person": "persons",
    "man": "men",
    "woman": "women",
    "child": "children",
    "knife": "knives",
    "mouse": "mice",
    "calf": "calves",
    "ox": "oxen",
    "gentleman": "gentlemen",
    "goose": "geese",
    "loaf": "loaves",
}
_NEGATION = word_set(
    "no not never without none neither nor isn't aren't wasn't weren't don't doesn't didn't hasn't haven't can't cannot"
    " couldn't absent absence lack lacks lacking instead rather unlike nobody nothing missing excluding"
)
_GUESS = word_set(
    "might may could would if perhaps possibly probably maybe likely potentially potential presumably imagine imagining"
    " suppose resembling resembles resemble reminiscent similar like as such suggest suggests suggesting typically"
    " usually often generally sometimes should can or appears seems seem appear likened mimics mimicking named called"
    " reads shaped pretend pretending toy imaginary example unless whether ideal perfect"
)
_MODAL = word_set("might may could would should can")
_DEFINITE = word_set("the this that these those his her their its both")
_NUMBERS = {
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
}
_NOT_ALONE = word_set(
    """
    owner owners house houses station stations track tracks stop stops lot seat seats helmet helmets hat hats cap caps
    cover covers ride rides riding route routes box boxes shop shops store food collar leash park parks driver drivers
    rider riders show race races racing lover lovers market lane lanes rack racks stand stands cutter juice tree trees
    leaf leaves game games player players court field shaped style print prints pattern patterns rental parts trail path
    crossing club team breed breeds walker dealer service cabin dock ramp bath feeder holder case cases theme themed
    lamp lamps cloth tablecloth sheet sheets frame frames stance position time traffic wash shirt shirts toppings
    topping crust slope slopes resort boots poles suit lessons pad bag bags skin fur tail head heads mustache
    moustache sculpture sculptures statue statues art artwork toy toys painting paintings costume costumes mask masks
    sign signs tower garage door doors racer trolley trolleys
    """
)
_COLOURS = word_set(
    "white black brown grey gray red yellow green blue purple pink silver gold tan beige cream"
)
_LOOSE_WORDS = frozenset(name for name in LOOSE if " " not in name)
_LOOSE_FIRST = frozenset(name.split()[0] for name in LOOSE if " " in name)
_HEADS_OF_A_THING = word_set(
    "head heads tail fur skin door doors bag bags sheet sheets frame crust topping toppings"
)


@dataclass(frozen=True, slots=True)
class Mention:
    """A name in a text.

    categories: what it may be. sentence, clause: their numbers. start, end: places among the text's words. told: it is
    said to be there, neither denied nor guessed. article: `a`, `the` for whatever points at it, `number`, `of` for a
    number that is one of more, or "". number: how many are said, 0 where that is not said.
    """

    name: str
    categories: frozenset[str]
    sentence: int
    clause: int
    start: int
    end: int
    told: bool
    article: str
    number: int


class Vocabulary:
    """Names with their categories: COCO's, and those of a set's own boxes by their bare names."""

    def __init__(self, own: Iterable[str] = ()) -> None:
        found: dict[tuple[str, ...], set[str]] = {}
        for category in own:
            for form in name_forms(category.lower()):
                found.setdefault(tuple(form.split()), set()).add(category.lower())
        for category, names in NAMES.items():
            for name in names:
                for form in name_forms(name):
                    found.setdefault(tuple(form.split()), set()).add(category)
        self._names = {name: frozenset(categories) for name, categories in found.items()}
        for phrase in NOTHING:
            self._names[tuple(phrase.split())] = frozenset()
        lengths: dict[str, set[int]] = {}  # of the names that begin with a word
        for spelt in self._names:
            lengths.setdefault(spelt[0], set()).add(len(spelt))
        self._first = {word: sorted(them, reverse=True) for word, them in lengths.items()}
        self._telling = frozenset(self._first) | _ENDS | _PARTS | _NEGATION | _GUESS | _ORANGES
        self.tokens = lru_cache(64)(_tokens)
        self.mentions = lru_cache(64)(self._mentions)
        self.supported = lru_cache(64)(self._supported)

    def _mentions(self, text: str) -> tuple[Mention, ...]:
        """All mentions in order; of names within one another the longest."""
        return tuple(self._walk(self.tokens(text)))

    def _walk(self, tokens: list[str]) -> Iterator[Mention]:
        sentence = clause = place = began = 0
        denied = guessed = False
        for at in [at for at, token in enumerate(tokens) if token in self._telling]:
            if at < place:
                continue  # within the name that was read last
            place, token = at, tokens[at]
            if token in _ENDS:
                sentence, clause, denied, guessed, began = sentence + 1, clause + 1, False, False, place + 1
            elif token in _PARTS:
                clause, denied = clause + (token != "and"), denied and token == "and"
            elif token in _NEGATION:
                denied = True
            elif _is_guess(tokens, place):
                guessed = True
            if token not in self._first and token not in _ORANGES:
                continue
            length, categories = self._at(tokens, place)
            if categories:
                article, number = _ahead(tokens, place, began)
                name = " ".join(tokens[place : place + length])
                end = place + length
                told = not (denied or guessed or _guesses_behind(tokens, end))
                yield Mention(name, categories, sentence, clause, place, end, told, article, number)
            place += max(1, length)

    def _at(self, tokens: list[str], place: int) -> tuple[int, frozenset[str]]:
        """Length and categories of the name that stands here; (0, nothing) where none does."""
        if tokens[place] in _ORANGES:
            return (1, frozenset({"orange"})) if _is_fruit(tokens, place) else (0, frozenset())
        for length in self._first.get(tokens[place], ()):
            name = tuple(tokens[place : place + length])
            if len(name) == length and name in self._names:
                after = tokens[place + length] if place + length < len(tokens) else ""
                single = not tokens[place + length - 1].endswith("s")
                if single and after in _NOT_ALONE and not _names_still(tokens, place, after):
                    return length, frozenset()
                if single and after and self._first.get(after) and (after,) in self._names:
                    return length, frozenset()  # `pizza table`, `cat toy bird`: the last noun is the thing
                return length, self._names[name]
        return 0, frozenset()

    def _supported(self, picture: Annotated) -> frozenset[str]:
        """The categories that a picture's annotations have, and those that they make no invention."""
        has = {box.category.lower() for box in picture.boxes}
        texts = (
            *picture.captions,
            *(region.phrase for region in picture.regions),
            *(word.text for word in picture.words),
        )
        loose: set[str] = set()
        for text in texts:
            for mention in self.mentions(text):
                has |= mention.categories
            spoken = self.tokens(text)
            if "traffic" in spoken:
                spoken = _tokens(_TRAFFIC_LIGHT.sub("", text.lower()))
            for word in _LOOSE_WORDS.intersection(spoken):
                loose |= LOOSE[word]
            for first, second in pairwise(spoken):
                if first in _LOOSE_FIRST:
                    loose |= LOOSE.get(f"{first} {second}", frozenset())
        near = [group for group in KIN if group & has]
        if has & {
            "bowl",
            "cup",
            "fork",
            "knife",
            "spoon",
            "wine glass",
            "laptop",
            "keyboard",
            "pizza",
            "cake",
        }:
            has.add("dining table")
        return frozenset(has).union(loose, *near)


def _tokens(text: str) -> list[str]:
    """Words and the marks that part clauses and sentences, in lower case."""
    return _TOKEN.findall(text.lower().replace("’", "'"))


def _is_guess(tokens: list[str], place: int, guesses: frozenset[str] = _GUESS) -> bool:
    """Whether the word guesses; `can be seen` does not."""
    return tokens[place] in guesses and not (
        tokens[place] == "can" and tokens[place + 1 : place + 2] == ["be"]
    )


def _guesses_behind(tokens: list[str], end: int) -> bool:
    """Whether one of the two words from `end` on is `may` or its like: `a car might be parked`."""
    after = tokens[end : end + 2]
    return not _MODAL.isdisjoint(after) and any(
        _is_guess(tokens, place, _MODAL) for place in range(end, end + len(after))
    )


def is_asserted(text: str) -> bool:
    """Whether no word of the text denies or guesses."""
    tokens = _tokens(text)
    return not any(token in _NEGATION or _is_guess(tokens, place) for place, token in enumerate(tokens))


def _names_still(tokens: list[str], place: int, after: str) -> bool:
    """Whether a name in the singular names its thing though a noun may follow: a part of it, or a verb behind `a`."""
    if after in _HEADS_OF_A_THING:
        return True
    ahead = tokens[
        max(0, place - 2) : place
    ]  # `a bench stands`, `a wooden bench stands`, not `a few bicycle racks`
    return after.endswith("s") and not {"a", "an"}.isdisjoint(ahead) and "few" not in ahead


def _is_fruit(tokens: list[str], place: int) -> bool:
    """Whether `orange` is the fruit: in the plural, or at the end of its noun phrase behind `an`."""
    if tokens[place] == "oranges":
        return True
    after = tokens[place + 1] if place + 1 < len(tokens) else "."
    if after == "and" and tokens[place + 2 : place + 3] and tokens[place + 2] in _COLOURS:
        return False  # `an orange and white cat`
    ahead = tokens[place - 1] if place else ""
    closes = after in {
        ".",
        ",",
        "is",
        "on",
        "in",
        "and",
        "sits",
        "lies",
        "beside",
        "next",
        "rests",
        "slice",
        "slices",
    }
    return tokens[place] == "orange" and ahead in {"an", "one", "peeled", "whole", "ripe"} and closes


def _ahead(tokens: list[str], place: int, began: int) -> tuple[str, int]:
    """The article or pronoun and the number ahead of a name, over at most three words between."""
    for back in range(1, 5):
        if place - back < began:
            break
        token = tokens[place - back]
        if token in _NUMBERS or (token.isdigit() and len(token) < 3):
            ahead = tokens[place - back - 1] if place - back > began else ""
            number = _NUMBERS.get(token) or int(token)
            return (
                "of" if ahead in {"of", "least", "another", "other", "about", "around"} else "number",
                number,
            )
        if token in _DEFINITE:
            return ("the", 0)
        if token in {"a", "an"}:
            return ("a", 0)
        if token in {"of", "in", "on", "with", "and", ",", "by", "at", "to", "for", "or"}:
            break
    return "", 0


@lru_cache(2048)
def name_forms(name: str) -> tuple[str, ...]:
    """The name in singular and plural."""
    *ahead, last = name.split()
    if last in _IRREGULAR:
        plural = _IRREGULAR[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        plural = (
            last if last.endswith("ss") is False and last.endswith("s") and last != "bus" else last + "es"
        )
    elif last.endswith("y") and last[-2:-1] not in set("aeiou"):
        plural = last[:-1] + "ies"
    else:
        plural = last + "s"
    return name, " ".join((*ahead, plural))
