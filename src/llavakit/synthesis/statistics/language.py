"""What a question asks for: its verb and the noun that the verb is about, how it begins, what kind of question it is.

The paper on Self-Instruct draws instructions by root verb and direct object; it has a parser for that. Here a rule over
textblob's tags does it. The verb is the first that is no auxiliary, or else a form of be. Its noun is the last word of
the noun phrase right behind it; where there is none, the noun asked of (`what colour`), the one that acts (`what is the
man doing`), or the one behind a preposition. For `be` the noun asked of comes first.

Knows sentences. Knows no data set.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_BE = frozenset((
    "am", "is", "are", "was", "were", "be", "been", "being", "'s", "'re",
))  # fmt: skip
_AUXILIARIES = _BE | frozenset((
    "do", "does", "did", "have", "has", "had", "can", "could", "will", "would", "shall", "should", "may",
    "might", "must", "'d", "'ll", "'ve",
))  # fmt: skip
_NOUNS = ("NN", "NNS", "NNP", "NNPS")
_INSIDE = (*_NOUNS, "DT", "JJ", "JJR", "JJS", "PRP$", "CD", "POS", "PDT", "WDT", "WP", "RB")
_IRREGULAR = {
    "done": "do", "doing": "do", "seen": "see", "saw": "see", "made": "make", "given": "give", "gave": "give",
    "taken": "take", "took": "take", "worn": "wear", "held": "hold", "sat": "sit", "stood": "stand", "told": "tell",
    "said": "say", "found": "find", "going": "go", "gone": "go", "went": "go", "thought": "think", "left": "leave",
    "lying": "lie", "caught": "catch", "kept": "keep", "written": "write", "eaten": "eat", "built": "build",
    "shown": "show", "drawn": "draw", "felt": "feel", "brought": "bring", "having": "have",
    "using": "use", "used": "use",
}  # fmt: skip
_COMMANDS = frozenset((
    "describe", "tell", "list", "name", "identify", "explain", "write", "give", "count", "provide",
    "discuss", "analyze", "analyse", "summarize", "summarise", "compare", "choose", "answer", "find",
    "point", "show", "suggest", "imagine", "create", "say", "estimate", "read", "translate", "elaborate",
))  # fmt: skip
_ASKING = ("what", "how many", "how much", "how", "where", "why", "which", "who", "whose", "when")
_LEADING = frozenset((
    "please", "now", "so", "and", "then", "can", "could", "would", "you", "kindly",
))  # fmt: skip
_PARTICIPLES = frozenset((
    "following", "given", "provided", "attached", "displayed", "shown", "depicted",
))  # fmt: skip
_PLURAL_ALONE = frozenset((
    "clothes", "glasses", "sunglasses", "pants", "jeans", "shorts", "scissors", "trousers", "series",
    "species", "headphones",
))  # fmt: skip
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
SPATIAL = (
    "left", "right", "above", "below", "behind", "in front of", "beside", "next to", "near", "between", "under",
    "beneath", "on top of", "over", "inside", "outside", "around", "across", "in the background", "in the foreground",
    "in the middle", "in the center", "in the centre", "in the corner", "at the top", "at the bottom", "close to",
    "surrounded by", "facing", "along",
)  # fmt: skip
_SPATIAL = re.compile(
    r"\b(" + "|".join(re.escape(one) for one in sorted(SPATIAL, key=len, reverse=True)) + r")\b"
)


def words(text: str) -> list[str]:
    """The words of a text, in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def spatial_words(text: str) -> set[str]:
    """Which words of place a text uses, each once."""
    return set(_SPATIAL.findall(text.lower()))


def question_type(said: Sequence[str]) -> str:
    """Of a question's words: `what`, `how many`, ..., `yes or no`, `command`, or `other`."""
    start = " ".join(said[:2])
    for one in _ASKING:
        if start == one or start.startswith(one + " "):
            return one
    if said and (said[0] in _AUXILIARIES or said[0] in ("isn't", "aren't", "doesn't", "don't")):
        return "yes or no" if len(said) < 3 or said[2] not in _COMMANDS or said[1] != "you" else "command"
    for word in said[:4]:
        if word in _COMMANDS:
            return "command"
        if word not in _LEADING:
            break
    for one in said[1:]:
        if one in ("what", "where", "why", "which", "who", "how", "whose", "when"):
            return one
    return "other"


def question_start(said: Sequence[str]) -> str:
    """Its first two words."""
    return " ".join(said[:2])


class Asking:
    """Finds verb and noun of questions, and remembers each word; its memory grows with the vocabulary."""

    def __init__(self) -> None:
        from textblob.en import lexicon, parser
        from textblob.en.inflect import singularize

        self._parser: Any = parser
        self._lexicon: Any = lexicon
        self._singular: Any = singularize
        self._verbs: dict[str, str] = {}
        self._nouns: dict[str, str] = {}
        self._tags: dict[str, str] = {}

    def verb_and_noun(self, question: str) -> tuple[str, str] | None:
        """The verb, in its base form, and the noun it is about, in the singular; None where there is no such pair."""
        for sentence in self._parser.find_tokens(question):
            tokens = sentence.split(" ")
            lower = [token.lower() for token in tokens]
            tags = [self._tag(token) for token in lower]
            verb = next((at for at in range(len(lower)) if self._is_verb(lower, tags, at)), None)
            copula = next((at for at, token in enumerate(lower) if token in _BE), None)
            at = copula if verb is None else verb
            if at is None:
                continue
            ahead = next((place for place, token in enumerate(lower[:at]) if token in _AUXILIARIES), at)
            found = (
                (self._noun_behind(lower, tags, at + 1) if verb is not None else None)
                or self._last_noun(lower[:ahead], tags[:ahead])
                or self._last_noun(lower[ahead:at], tags[ahead:at])
                or self._noun_behind(lower, tags, at + 1, across=verb is not None)
            )
            if found is not None:
                return ("be" if verb is None else self.base(lower[at])), found
        return None

    def nouns(self, said: Sequence[str]) -> set[str]:
        """The nouns among a text's words, in the singular, each once, by what each word mostly is."""
        return {
            self.singular(word) for word in set(said) if len(word) > 2 and self._tag(word) in ("NN", "NNS")
        }

    def _is_verb(self, lower: list[str], tags: list[str], place: int) -> bool:
        token = lower[place]
        if place == 0 or all(one in _LEADING or one == "," for one in lower[:place]):
            return token in _COMMANDS or (tags[place].startswith("VB") and token not in _AUXILIARIES)
        if token in _AUXILIARIES:  # do is a verb of its own where nothing else in the question is
            return False
        before = tags[place - 1]
        if before in ("DT", "PRP$", "JJ", "IN") and token not in _COMMANDS:
            return False
        return tags[place] in ("VB", "VBG", "VBN", "VBD", "VBP", "VBZ")

    def _last_noun(self, lower: list[str], tags: list[str]) -> str | None:
        named = [token for token, tag in zip(lower, tags, strict=True) if tag in _NOUNS]
        return self.singular(named[-1]) if named else None

    def _noun_behind(
        self, lower: list[str], tags: list[str], start: int, *, across: bool = False
    ) -> str | None:
        """The last word of the noun phrase that begins here; `across`: a preposition may stand before it."""
        last, inside = None, False
        for token, tag in zip(lower[start:], tags[start:], strict=True):
            if tag in _NOUNS:
                last = token
            elif last is not None or not (
                tag in _INSIDE
                or token in _PARTICIPLES
                or (last is None and tag in ("VBN", "VBG") and inside)
                or (across and tag in ("IN", "TO", "PRP"))
            ):
                break
            inside = tag in _INSIDE
        return None if last is None else self.singular(last)

    def base(self, verb: str) -> str:
        """`wearing` to `wear`, `rides` to `ride`, `sitting` to `sit`: the form the lexicon knows as a verb."""
        known = self._verbs.get(verb)
        if known is None:
            known = self._verbs[verb] = self._base(verb)
        return known

    def _base(self, verb: str) -> str:
        if verb in _IRREGULAR:
            return _IRREGULAR[verb]
        tries: list[str] = []
        for ending in ("ing", "ed", "es", "s"):
            if verb.endswith(ending) and len(verb) > len(ending) + 1:
                stem = verb.removesuffix(ending)
                if ending == "ed" and stem.endswith("i"):
                    tries.append(stem[:-1] + "y")
                if ending == "es" and stem.endswith("i"):
                    tries.append(stem[:-1] + "y")
                doubled = [stem[:-1]] if len(stem) > 2 and stem[-1] == stem[-2] else []
                tries += [*doubled, stem, stem + "e"] if ending != "s" else [stem]
        usable = [one for one in tries if str(self._lexicon.get(one, "")).startswith("VB")]
        return (usable or [one for one in tries if one in self._lexicon] or [verb])[0]

    def singular(self, noun: str) -> str:
        """`people` to `person`, `dogs` to `dog`; what is no plural stays."""
        known = self._nouns.get(noun)
        if known is None:
            plural = noun not in _PLURAL_ALONE and (
                noun == "people" or self._tag(noun) in ("NNS", "NNPS") or noun in ("men", "women", "children")
            )
            known = self._nouns[noun] = str(self._singular(noun)) if plural else noun
        return known

    def _tag(self, word: str) -> str:
        """What a word mostly is; the parser gives each word one part of speech wherever it stands."""
        known = self._tags.get(word)
        if known is None:
            known = self._tags[word] = str(self._parser.find_tags(["x", word])[-1][1])
        return known
