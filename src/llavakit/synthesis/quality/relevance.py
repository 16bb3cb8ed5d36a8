"""The gate of relevance: answers that do not answer what was asked.

Conservative: it knows a few forms of question whose answer must have a word of some sort (a number, a colour, yes or
no, one of the choices), and answers that share no word with their question nor with the picture's annotations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.quality.settings import Settings
from llavakit.synthesis.quality.text import Finding, normalised, word_set, words

VERSION = 1

_HOW_MANY = re.compile(r"^(?:\w+[ ,]+){0,3}?how many\b", re.IGNORECASE)
_COLOUR = re.compile(r"^(?:what|which)(?: \w+)?(?:'s| is| are)?(?: the)? colou?rs?\b", re.IGNORECASE)
_YES_NO = re.compile(
    r"^(?:is|are|was|were|does|do|did|has|have|isn't|aren't|doesn't|don't"
    r"|(?:can|could) (?:the|a|you see|we see|it|they))\b",
    re.IGNORECASE,
)
_CHOICE = re.compile(r"^\s*\(?([A-Z])[.):]\s+(.+?)\s*$", re.MULTILINE)
_LETTER = re.compile(r"^\W*([A-Z])\b[.):]?", re.IGNORECASE)
_NUMBERS = word_set(
    "no none zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen nineteen twenty thirty forty fifty hundred hundreds thousand dozen dozens several many few"
    " both single pair couple only a an numerous multiple various another half least all each every not any cannot"
    " uncountable countless nobody nothing some group quarter once twice"
)
_COLOURS = word_set(
    """
    red orange yellow green blue purple violet pink brown black white grey gray beige tan cream gold golden
    silver bronze teal cyan magenta maroon crimson scarlet navy indigo lavender lilac olive khaki ivory
    peach coral salmon rust copper amber burgundy mint lime aqua turquoise charcoal blond blonde brunette
    auburn ginger camouflage colorful colourful multicolored multicoloured multi transparent clear
    translucent dark light bright pale rainbow wooden wood metallic colorless colourless striped spotted
    checkered plaid floral calico tabby chestnut not no same different neither various none there tricolor
    mustard plum rose dun ash platinum neon pastel fair sandy
    """
)
_YES = word_set(
    "yes no yeah nope not isn't aren't doesn't don't neither unclear unknown maybe correct true false none"
)
_COMMON = word_set(
    """
    a an the and or but of with to in on at by for from into as is are was were be been being that this these those it
    its they them their there he she his her who whom whose which what where when why how do does did doing done has
    have had can could may might must shall should will would you your i me my we our us if so than then not no yes any
    some all both each more most other such only very just also about image picture photo photograph scene see seen
    show shows shown visible present look looks looking describe tell explain please give main one two thing things
    kind type people person happening going use using used like make makes
    """
)


def find(candidate: Candidate, settings: Settings) -> Iterator[Finding]:
    """Answers without the sort of word their question asks for, and answers about something else."""
    for asked, answer in candidate.exchanges:
        question = asked.strip().split("\n")[0]
        said = words(answer)
        spoken = set(said)
        if not said or not words(question):
            continue
        if said == words(question):
            yield Finding("repeats the question", question[:80])
        choices = _CHOICE.findall(asked)
        if len(choices) > 1:
            if not _chooses(answer, choices):
                yield Finding("takes none of the choices", answer[:40])
        elif _HOW_MANY.match(question):
            if not spoken & _NUMBERS and not any(word[0].isdigit() for word in said):
                yield Finding("tells no number", answer[:80])
        elif _COLOUR.match(question):
            if not any(spoken & _COLOURS or part in _COLOURS for part in _parts(answer)):
                yield Finding("tells no colour", answer[:80])
        elif (
            candidate.kind == "short_answer"
            and _YES_NO.match(question)
            and " or " not in question
            and not spoken & _YES
        ):
            yield Finding("tells neither yes nor no", answer[:80])
        elif candidate.kind != "region" and _is_elsewhere(candidate, question, said):
            yield Finding("speaks of something else", answer[:80])


def _parts(answer: str) -> list[str]:
    """Words, those with a hyphen or an ending in pieces: `blue-green`, `reddish`."""
    found = []
    for word in words(answer.replace("-", " ")):
        found += [word, word.removesuffix("ish"), word.removesuffix("dish"), word.removesuffix("s")]
    return found


def _chooses(answer: str, choices: list[tuple[str, str]]) -> bool:
    match = _LETTER.match(answer)
    if match and match.group(1).upper() in {letter for letter, _ in choices}:
        return True
    return any(normalised(text) and normalised(text) in normalised(answer) for _, text in choices)


def _is_elsewhere(candidate: Candidate, question: str, said: tuple[str, ...]) -> bool:
    """Whether a long answer shares no stem with its question, the dialogue's other questions or the annotations."""
    if len(said) < 8:
        return False
    picture = candidate.picture
    if not picture.captions and not picture.boxes:
        return False
    things = words(" ".join(box.category for box in picture.boxes))
    if not set(things).isdisjoint(said):
        return False  # a thing of the picture is no common word, though `person` is one elsewhere
    told = _stems(said)
    about = _stems(words(question))
    for text in (*picture.captions, *(region.phrase for region in picture.regions)):
        if about & told:
            return False
        about |= _stems(words(text))
    about |= _stems(things)
    about |= _stems(words(" ".join(word.text for word in picture.words)))
    return len(about) >= 4 and not about & told


def _stems(spoken: tuple[str, ...]) -> set[str]:
    """The first four letters of the words that carry meaning: enough to join `ride` and `riding`."""
    return {word[:4].removesuffix("e") for word in spoken if word not in _COMMON and len(word) > 2}
