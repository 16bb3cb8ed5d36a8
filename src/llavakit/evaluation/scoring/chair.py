"""CHAIR (Rohrbach et al. 2018): which objects a description names, and which of them the picture has not.

The objects are COCO's 80, by the words of `synthesis.quality.names`, not by the word list of the paper's tool, so that
figures are comparable among themselves and not with ones counted by that list. As there, an object is in a picture when
it has a box there or when one of the reference captions names it. A name may be of several objects (`bike`); it is
invented when the picture has none of them.

A naming under a negation or a guess says nothing of the picture and is set apart; the paper's tool counts it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from llavakit.synthesis.quality.things import Vocabulary


@dataclass(frozen=True, slots=True)
class There:
    """The objects of a picture: those that are sure to be there, and those that a caption's word may have meant."""

    sure: tuple[str, ...]
    perhaps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Named:
    """The objects that a description names.

    said: every naming, in order. invented: those of objects that are not there. found: objects of the picture that are
    named. set_apart: namings under a negation or a guess, which are in none of the others.
    """

    said: tuple[str, ...]
    invented: tuple[str, ...]
    found: tuple[str, ...]
    set_apart: int


@cache
def vocabulary() -> Vocabulary:
    """COCO's objects by their names."""
    return Vocabulary()


def objects_there(boxed: Iterable[str], captions: Sequence[str]) -> There:
    """The objects of a picture by the categories of its boxes and by its reference captions, sorted."""
    sure = {category.lower() for category in boxed}
    perhaps: set[str] = set()
    for caption in captions:
        for mention in vocabulary().mentions(caption):
            if len(mention.categories) == 1:
                sure |= mention.categories
            else:
                perhaps |= mention.categories
    return There(tuple(sorted(sure)), tuple(sorted(perhaps - sure)))


def objects_named(description: str, there: There, *, every: bool = False) -> Named:
    """What a description names of the picture and beside it. every: also under a negation or a guess."""
    allowed = {*there.sure, *there.perhaps}
    mentions = vocabulary().mentions(description)
    told = [mention for mention in mentions if mention.told or every]
    named = {category for mention in told for category in mention.categories}
    return Named(
        said=tuple(mention.name for mention in told),
        invented=tuple(mention.name for mention in told if not mention.categories & allowed),
        found=tuple(category for category in there.sure if category in named),
        set_apart=len(mentions) - len(told),
    )
