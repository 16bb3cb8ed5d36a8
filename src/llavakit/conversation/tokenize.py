"""From written pieces to token ids, labels and the spans of pictures.

Text between two pictures is one chunk and is tokenised once, as LLaVA does: each chunk as if it stood alone, with the
beginning-of-sequence token only before the first. Labels follow from the characters a token covers: a token that
touches supervised text is supervised. A picture takes exactly its number of positions.

Special tokens stand only where the template wrote them. Where content looks like one, its chunk is tokenised in runs:
the template's special tokens by their ids, everything else as plain text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from llavakit.conversation.record import Conversation, ConversationError, Text
from llavakit.conversation.templates import Piece, Template, Written
from llavakit.errors import LlavakitError

IGNORE_INDEX = -100
IMAGE_TOKEN_ID = -200


class TooLong(ConversationError):
    """Not even the first exchange of a conversation fits."""


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """Picture `index` takes `length` positions from `start`."""

    index: int
    start: int
    length: int


@dataclass(slots=True)
class Encoded:
    """ids: with IMAGE_TOKEN_ID at every position of a picture. labels: not shifted, IGNORE_INDEX where nothing is
    learnt. turns_dropped: exchanges cut from the end to fit."""

    ids: list[int]
    labels: list[int]
    images: list[ImageSpan]
    turns_dropped: int


def encode(
    conversation: Conversation,
    template: Template,
    tokenizer: Any,
    image_lengths: Sequence[int],
    *,
    max_length: int | None = None,
    prompt: bool = False,
) -> Encoded:
    """Tokenise a conversation.

    image_lengths: positions of each of the conversation's pictures. max_length: whole exchanges are dropped from the
    end until the rest fits. prompt: the conversation ends with the user's turn, and earlier answers may be empty, as a
    model may have given none; nothing is supervised.

    Raises:
        ConversationError: the conversation breaks the record's rules, the template cannot write it, or there is not
            one length a picture.
        TooLong: its first exchange alone exceeds `max_length`.
    """
    if prompt:
        _answered(conversation).check()
    else:
        conversation.check()
    if len(image_lengths) != len(conversation.images):
        raise ConversationError(
            f"conversation {conversation.id!r} has {len(conversation.images)} pictures and {len(image_lengths)} "
            "lengths were given for them; give one a picture"
        )
    kept, dropped = conversation, 0
    while True:
        encoded = _encode_pieces(template.write(kept, prompt=prompt), tokenizer, image_lengths)
        encoded.turns_dropped = dropped
        if max_length is None or len(encoded.ids) <= max_length:
            break
        first = 3 if kept.turns[0].role == "system" else 2
        if prompt or len(kept.turns) <= first:
            raise TooLong(
                f"conversation {conversation.id!r} takes {len(encoded.ids)} positions with its first exchange alone "
                f"and the limit is {max_length}; raise max_length, or shorten it"
            )
        kept, dropped = replace(kept, turns=kept.turns[:-2]), dropped + 1
    if prompt:
        encoded.labels = [IGNORE_INDEX] * len(encoded.ids)
    elif all(label == IGNORE_INDEX for label in encoded.labels):
        raise ConversationError(
            f"conversation {conversation.id!r}: nothing of it is supervised under {template.name}"
        )
    return encoded


def _answered(conversation: Conversation) -> Conversation:
    """A prompt with words in every empty answer, so that the record's other rules can be checked."""
    words = (Text("-"),)
    return replace(
        conversation,
        turns=tuple(
            replace(turn, parts=words) if turn.role == "assistant" and not turn.text.strip() else turn
            for turn in conversation.turns
        ),
    )


def _encode_pieces(pieces: Sequence[Piece], tokenizer: Any, image_lengths: Sequence[int]) -> Encoded:
    ids = [] if _writes_beginning(pieces, tokenizer) else list(_prefix(tokenizer))
    encoded = Encoded(ids, [IGNORE_INDEX] * len(ids), [], 0)
    chunk: list[Written] = []
    for piece in pieces:
        if isinstance(piece, Written):
            chunk.append(piece)
            continue
        _append_chunk(encoded, chunk, tokenizer)
        chunk = []
        length = image_lengths[piece.index]
        encoded.images.append(ImageSpan(piece.index, len(encoded.ids), length))
        encoded.ids += [IMAGE_TOKEN_ID] * length
        encoded.labels += [IGNORE_INDEX] * length
    _append_chunk(encoded, chunk, tokenizer)
    return encoded


def _writes_beginning(pieces: Sequence[Piece], tokenizer: Any) -> bool:
    """Whether the template itself writes the beginning-of-sequence token; content that looks like it does not count."""
    first = pieces[0]
    return (
        isinstance(first, Written)
        and first.control
        and bool(tokenizer.bos_token)
        and first.text.startswith(tokenizer.bos_token)
    )


def _append_chunk(encoded: Encoded, chunk: Sequence[Written], tokenizer: Any) -> None:
    if not chunk:
        return
    text = "".join(piece.text for piece in chunk)
    ids, offsets = _tokens(text, tokenizer)
    special = _special(tokenizer)
    if any(token in special for token in ids) and _forged(ids, offsets, chunk, special):
        ids, offsets = _tokens_in_runs(chunk, tokenizer)
    encoded.ids += ids
    encoded.labels += _labels(ids, offsets, chunk)


def _tokens(text: str, tokenizer: Any, plain: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids and, for each, the characters it covers. plain: special tokens are text like any other."""
    if not getattr(tokenizer, "is_fast", False):
        raise LlavakitError(
            f"{type(tokenizer).__name__} cannot say which characters a token covers; llavakit needs a fast tokenizer "
            "(a tokenizer.json beside the model)"
        )
    out = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=plain)
    return list(out["input_ids"]), [(start, end) for start, end in out["offset_mapping"]]


def _labels(ids: Sequence[int], offsets: Sequence[tuple[int, int]], chunk: Sequence[Written]) -> list[int]:
    """A token is learnt when it touches supervised text; one that covers nothing goes with the character after it."""
    learnt = b"".join((b"\1" if piece.supervised else b"\0") * len(piece.text) for piece in chunk)
    return [
        token if learnt.find(1, start, max(end, start + 1)) >= 0 else IGNORE_INDEX
        for token, (start, end) in zip(ids, offsets, strict=True)
    ]


def _forged(
    ids: Sequence[int], offsets: Sequence[tuple[int, int]], chunk: Sequence[Written], special: frozenset[int]
) -> bool:
    """Whether a special token came of text that is not the template's alone."""
    mine: list[bool] = []
    for piece in chunk:
        mine += [piece.control] * len(piece.text)
    return any(
        token in special and not all(mine[start:end])
        for token, (start, end) in zip(ids, offsets, strict=True)
    )


def _tokens_in_runs(chunk: Sequence[Written], tokenizer: Any) -> tuple[list[int], list[tuple[int, int]]]:
    """Tokenise a chunk whose content holds the text of special tokens: the template's by id, the rest as text."""
    names = {
        token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    marks = re.compile("(" + "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) + ")")
    runs: list[tuple[str, bool]] = []
    for piece in chunk:
        for number, run in enumerate(marks.split(piece.text) if piece.control else [piece.text]):
            if piece.control and number % 2:
                runs.append((run, True))
            elif runs and not runs[-1][1]:
                runs[-1] = (runs[-1][0] + run, False)
            else:
                runs.append((run, False))
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    start = 0
    for run, is_mark in runs:
        if is_mark:
            ids.append(names[run])
            offsets.append((start, start + len(run)))
        elif run:
            more, places = _tokens(run, tokenizer, plain=True)
            ids += more
            offsets += [(start + a, start + b) for a, b in places]
        start += len(run)
    return ids, offsets


@lru_cache(maxsize=64)
def _cached_prefix(tokenizer: Any) -> tuple[int, ...]:
    alone = list(tokenizer("", add_special_tokens=True)["input_ids"])
    return (alone[0],) if alone and alone[0] == tokenizer.bos_token_id else ()


@lru_cache(maxsize=64)
def _cached_special(tokenizer: Any) -> frozenset[int]:
    return frozenset(number for number, token in tokenizer.added_tokens_decoder.items() if token.special)


def _prefix(tokenizer: Any) -> tuple[int, ...]:
    """The beginning-of-sequence token where the tokenizer adds one."""
    return _cached_prefix(tokenizer)


def _special(tokenizer: Any) -> frozenset[int]:
    return _cached_special(tokenizer)
