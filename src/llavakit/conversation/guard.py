"""A tokenizer under guard: special tokens come from the template alone, in one pass over the text.

A fast tokenizer finds the names of its special tokens anywhere, also in what a user wrote. Here a copy of it is told to
read those names as text like any other, and is given a secret name for each, made of characters that the conversation
does not hold. The template's own words are written with the secret names, so that the copy finds the template's marks
and no others, and everything between them is tokenised exactly as the tokenizer itself does.

Guarded are the special tokens, and of the added tokens that are not called special those that the template writes
(Yi's `<|im_start|>`) and `<image>`. Other added tokens (runs of spaces, `<think>`) are words of the vocabulary.

Knows a tokenizer and written pieces. Knows nothing of conversations, labels or where pictures stand.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from tokenizers import AddedToken

from llavakit.conversation.templates import Written
from llavakit.errors import LlavakitError

PICTURE_MARK = "<image>"
_PRIVATE = range(0xE000, 0xF8FF)  # Unicode's private use area: no character of any script


@dataclass(frozen=True, slots=True)
class Tokens:
    """ids, and for each the characters [start, end) that it covers of a text in which marks have secret names.

    lengths: of each piece in that text."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    lengths: list[int]


@dataclass
class _Copy:
    """The tokenizer's copy for one set of guarded tokens and one pair of private characters."""

    backend: Any
    secret: dict[str, str]  # a guarded token's name -> its secret name
    real: dict[int, int]  # the id of a secret name -> the id that it stands for
    forged: frozenset[int]  # ids that no text may have
    breaker: int  # the id of a token that is put where a word of the vocabulary must be broken, and taken out again
    greedy: bool  # whether a mark takes spaces beside it
    written: dict[str, str] = field(default_factory=dict)  # trusted text -> the same with secret names


class Guard:
    """The guarded form of one tokenizer. Make it with `guard_of`."""

    def __init__(self, tokenizer: Any) -> None:
        added = tokenizer.added_tokens_decoder
        self._ids = {token.content: number for number, token in added.items()}
        self._added: dict[str, AddedToken] = {token.content: token for token in added.values()}
        self._special = frozenset(token.content for token in added.values() if token.special)
        self._backend = tokenizer.backend_tokenizer
        names = sorted(self._ids, key=len, reverse=True)
        self._names = re.compile("|".join(re.escape(name) for name in names)) if names else None
        self._unknown = _unknown_id(self._backend)
        self._copies: dict[tuple[frozenset[str], int], _Copy] = {}
        self._marks: dict[str, frozenset[str]] = {}
        alone = list(tokenizer("", add_special_tokens=True)["input_ids"])
        begins = bool(alone) and tokenizer.bos_token_id is not None and alone[0] == tokenizer.bos_token_id
        self.prefix: tuple[int, ...] = tuple(alone[:1]) if begins else ()
        """The beginning-of-sequence token where the tokenizer adds one."""

    def encode(self, pieces: Sequence[Written]) -> Tokens:
        """Tokenises pieces as one text, with special tokens in the template's own words alone.

        Raises LlavakitError when a word of the vocabulary is a special token's name and cannot be broken up.
        """
        guarded = self._special
        for piece in pieces:
            if piece.control and (more := self._marks_in(piece.text)):
                guarded |= more
        made = self._copy(guarded, "".join(piece.text for piece in pieces if not piece.control))
        texts = [self._written(made, piece.text) if piece.control else piece.text for piece in pieces]
        out = made.backend.encode("".join(texts), add_special_tokens=False)
        ids, offsets = out.ids, out.offsets
        if not made.forged.isdisjoint(ids):
            ids, offsets = self._broken_up(made, texts, pieces)
        if made.greedy:
            offsets = self._own_places(made, "".join(texts), ids, offsets)
        real = made.real
        return Tokens([real.get(i, i) for i in ids], offsets, [len(text) for text in texts])

    def _own_places(
        self, made: _Copy, text: str, ids: list[int], offsets: list[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        """The offsets with every mark covering its own name alone, not the spaces that it takes beside it."""
        places = []
        for i, (start, end) in zip(ids, offsets, strict=True):
            if i in made.real:
                name = made.backend.id_to_token(i)
                start = text.index(name, start)
                end = start + len(name)
            places.append((start, end))
        return places

    def _marks_in(self, text: str) -> frozenset[str]:
        """The tokens that must be guarded beside the special ones when the template writes `text`."""
        found = self._marks.get(text)
        if found is None:
            names = set(self._names.findall(text)) if self._names is not None else set()
            names |= {PICTURE_MARK} & self._ids.keys()
            found = self._marks[text] = frozenset(name for name in names - self._special if name.strip())
        return found

    def _written(self, made: _Copy, text: str) -> str:
        found = made.written.get(text)
        if found is None:
            names = self._names
            found = text if names is None else names.sub(lambda m: made.secret.get(m[0], m[0]), text)
            made.written[text] = found
        return found

    def _copy(self, guarded: frozenset[str], foreign: str) -> _Copy:
        family = next((code for code in _PRIVATE if chr(code) not in foreign), None)
        if family is None:
            raise LlavakitError(
                "a text holds every private character of Unicode, so nothing is left to mark with"
            )
        made = self._copies.get((guarded, family))
        if made is None:
            made = self._copies[guarded, family] = self._make(guarded, chr(family))
        return made

    def _make(self, guarded: frozenset[str], edge: str) -> _Copy:
        backend = copy.deepcopy(self._backend)
        backend.no_truncation()
        backend.no_padding()
        backend.add_special_tokens([_like(self._added[name], name, special=True) for name in sorted(guarded)])
        backend.encode_special_tokens = True  # their names are text now
        secret = {name: f"{edge}{number}{edge}" for number, name in enumerate(sorted(guarded), 1)}
        backend.add_tokens(
            [_like(self._added[name], hidden, special=False) for name, hidden in secret.items()]
        )
        backend.add_tokens([AddedToken(f"{edge}{edge}", normalized=False)])
        real = {backend.token_to_id(hidden): self._ids[name] for name, hidden in secret.items()}
        forged = frozenset(real.values()) - {self._unknown}
        greedy = any(self._added[name].lstrip or self._added[name].rstrip for name in guarded)
        return _Copy(backend, secret, real, forged, backend.token_to_id(f"{edge}{edge}"), greedy)

    def _broken_up(
        self, made: _Copy, texts: Sequence[str], pieces: Sequence[Written]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """The same for vocabularies that hold a special token's name as a word: the name is broken after its first
        character wherever content holds it."""
        break_up = made.backend.id_to_token(made.breaker)
        names = [re.escape(name) for name in made.secret if len(name) > 1]
        pattern = re.compile("|".join(sorted(names, key=len, reverse=True)))
        edited = []
        places: list[int] = []  # of every character of the edited text, the place it had before
        at = 0
        for text, piece in zip(texts, pieces, strict=True):
            cuts = set() if piece.control else {match.start() + 1 for match in pattern.finditer(text)}
            for number, sign in enumerate(text):
                if number in cuts:
                    edited.append(break_up)
                    places += [at + number] * len(break_up)
                edited.append(sign)
                places.append(at + number)
            at += len(text)
        places.append(at)
        out = made.backend.encode("".join(edited), add_special_tokens=False)
        if not made.forged.isdisjoint(out.ids):
            raise LlavakitError(
                "the tokenizer gives a special token for ordinary text even when its name is broken up; "
                "a model trained with it could be misled, so choose another"
            )
        kept = [
            (i, (places[a], places[b]))
            for i, (a, b) in zip(out.ids, out.offsets, strict=True)
            if i != made.breaker
        ]
        return [i for i, _ in kept], [place for _, place in kept]


def guard_of(tokenizer: Any) -> Guard:
    """The guard of a tokenizer, made once as long as its added tokens stay the same.

    Raises LlavakitError for a tokenizer that cannot say which characters a token covers.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise LlavakitError(
            f"{type(tokenizer).__name__} cannot say which characters a token covers; llavakit needs a fast tokenizer "
            "(a tokenizer.json beside the model)"
        )
    state = len(tokenizer), tokenizer.bos_token_id, getattr(tokenizer, "add_bos_token", None)
    kept = _GUARDS.get(tokenizer)
    if kept is None or kept[0] != state:
        kept = _GUARDS[tokenizer] = (state, Guard(tokenizer))
    return kept[1]


_GUARDS: WeakKeyDictionary[Any, tuple[tuple[object, ...], Guard]] = WeakKeyDictionary()


def _like(token: AddedToken, name: str, special: bool) -> AddedToken:
    """An added token of this name that takes spaces beside it, and meets the normaliser, as `token` does."""
    return AddedToken(
        name,
        special=special,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        single_word=token.single_word,
        normalized=token.normalized,
    )


def _unknown_id(backend: Any) -> int | None:
    """The id that the vocabulary gives to what it cannot write; it says nothing, so text may have it."""
    if hasattr(backend.model, "unk_token"):
        name = backend.model.unk_token
        return None if name is None else backend.token_to_id(name)
    return json.loads(backend.to_str())["model"].get("unk_id")
