"""The noun phrases of a caption, found offline: textblob's chunk tags, cut where one phrase ends and the next begins.

What lives here: from one caption to its phrases, twice. `plain_phrases` asks textblob's parser each time. `Phraser`
gives the same answer many times faster, because the tags that the parser gives depend on each word alone (and on
whether it stands first), and the chunks on the tags alone, so both are remembered. A caption that is anything but plain
words goes to the parser's own tokeniser.

A phrase is a run of words inside a noun chunk that holds a noun; a conjunction ends it, and so does a determiner or a
possessive. Knows no file and no count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from llavakit.errors import LlavakitError

Normalise = Literal["determiners", "lower", "none"]
"""`determiners`: lower case, and articles, possessives and pronouns in front are dropped; `lower`: lower case alone;
`none`: as it is written."""

VERSION = 1
"""Goes up when the phrases of a caption change, so that caches are not read for what they are not."""

_NOUNS = ("NN", "NNS", "NNP", "NNPS")
_JOINS = ("CC", "CJ")
_BEGINS = ("DT", "PRP$", "PRP", "PR")
_WORDS = re.compile(r"[A-Za-z][a-z]*(?:-[a-z]+)*(?: (?:[a-z]+(?:-[a-z]+)*|\d+|,))+( ?\.)?")
_MOST_REMEMBERED = 1 << 19

Tagged = Sequence[Sequence[str]]
"""A sentence as textblob's parser gives it: word, part of speech, chunk for each token."""
Span = tuple[int, int]


def check_normalise(name: str) -> None:
    """Raises LlavakitError when there is no such way to write a phrase."""
    if name not in get_args(Normalise):
        raise LlavakitError(
            f"Phrases cannot be written as {name!r}; choose from {', '.join(get_args(Normalise))}."
        )


def plain_phrases(caption: str, normalise: Normalise = "determiners") -> list[str]:
    """The phrases of a caption in their order, each once, with textblob's parser and nothing remembered."""
    from textblob.en import parser

    found: dict[str, None] = {}
    for sentence in parser.parse(caption, collapse=False):
        words, tags, chunks = ([token[column] for token in sentence] for column in range(3))
        found.update(dict.fromkeys(_written(words, spans(tags, chunks, normalise), normalise)))
    return list(found)


def spans(tags: Sequence[str], chunks: Sequence[str], normalise: Normalise) -> list[Span]:
    """Where the phrases of a sentence stand, by part of speech and chunk of each of its words."""
    runs: list[list[int]] = []
    open_run = False
    for place, (tag, chunk) in enumerate(zip(tags, chunks, strict=True)):
        if not chunk.endswith("-NP") or tag in _JOINS:
            open_run = False
            continue
        if not open_run or chunk == "B-NP" or tag in _BEGINS:
            runs.append([])
        runs[-1].append(place)
        open_run = True
    found = []
    for run in runs:
        if normalise == "determiners":
            while run and tags[run[0]] in _BEGINS:
                run = run[1:]
        if any(tags[place].startswith("NNP-") or tags[place] in _NOUNS for place in run):
            found.append((run[0], run[-1] + 1))
    return found


def _written(words: Sequence[str], where: Sequence[Span], normalise: Normalise) -> list[str]:
    phrases = [" ".join(words[begin:end]) for begin, end in where]
    return phrases if normalise == "none" else [phrase.lower() for phrase in phrases]


class Phraser:
    """`plain_phrases`, many times faster: what is known of words and of runs of tags is kept, in bounded memory."""

    def __init__(self, normalise: Normalise = "determiners") -> None:
        from textblob import _text
        from textblob.en import parser

        self.normalise: Normalise = normalise
        self._parser: Any = parser
        self._chunk: Any = _text.find_chunks
        self._abbreviations: set[str] = set(_text.ABBREVIATIONS)
        self._first: dict[str, str] = {}
        self._later: dict[str, str] = {}
        self._spans: dict[str, list[Span]] = {}

    def __call__(self, caption: str) -> list[str]:
        """The phrases of a caption in their order, each once."""
        found: list[str] = []
        for words in self._sentences(caption):
            tags = [self._tag(self._first, words[0], ())]
            later = self._later
            for word in words[1:]:
                tags.append(later.get(word) or self._tag(later, word, ("x",)))
            key = "/".join(tags)
            where = self._spans.get(key)
            if where is None:
                where = self._find(tags)
                _remember(self._spans, key, where)
            found += _written(words, where, self.normalise)
        return found if len(found) < 2 else list(dict.fromkeys(found))

    def _sentences(self, caption: str) -> list[list[str]]:
        simple = _WORDS.fullmatch(caption)
        if simple is None:
            return [sentence.split(" ") for sentence in self._parser.find_tokens(caption)]
        if not simple[1]:
            return [caption.split(" ")]
        words = caption[: simple.start(1)].split(" ")
        if simple[1] == "." and (len(words[-1]) == 1 or words[-1] + "." in self._abbreviations):
            return [sentence.split(" ") for sentence in self._parser.find_tokens(caption)]
        return [[*words, "."]]

    def _tag(self, known: dict[str, str], word: str, ahead: tuple[str, ...]) -> str:
        """The part of speech of a word that stands first, or after others."""
        tag = known.get(word)
        if tag is None:
            tag = str(self._parser.find_tags([*ahead, word])[-1][1])
            _remember(known, word, tag)
        return tag

    def _find(self, tags: list[str]) -> list[Span]:
        chunked = self._chunk([["", tag] for tag in tags], language="en")
        return spans(tags, [chunk for _, _, chunk in chunked], self.normalise)


def _remember(known: dict[str, Any], key: str, value: Any) -> None:
    if len(known) >= _MOST_REMEMBERED:
        known.clear()
    known[key] = value


def spacy_phrases(model: str, normalise: Normalise = "determiners") -> Callable[[str], list[str]]:
    """The noun chunks that a spaCy model finds, for who has spaCy and a model installed (the paper used spaCy).

    model: a name or a folder that `spacy.load` takes. Raises LlavakitError when spaCy or the model is not there.
    """
    try:
        import spacy  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise LlavakitError(
            "Phrases by spaCy need the package spacy, which is not installed; install it, or leave `textblob`."
        ) from error
    try:
        pipeline = spacy.load(model)
    except OSError as error:
        raise LlavakitError(
            f"spaCy has no model {model!r} ({error}); name an installed model or a folder."
        ) from error

    def phrases(caption: str) -> list[str]:
        found: dict[str, None] = {}
        for chunk in pipeline(caption).noun_chunks:
            tokens = list(chunk)
            if normalise == "determiners":
                while tokens and tokens[0].pos_ in ("DET", "PRON"):
                    tokens = tokens[1:]
            if any(token.pos_ in ("NOUN", "PROPN") for token in tokens):
                found.update(
                    dict.fromkeys(
                        _written([token.text.strip() for token in tokens], [(0, len(tokens))], normalise)
                    )
                )
        return list(found)

    return phrases
