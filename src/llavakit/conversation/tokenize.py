"""From written pieces to token ids, labels and the spans of pictures.

Text between two pictures is one chunk and is tokenised once, as LLaVA does: each chunk as if it stood alone, with the
beginning-of-sequence token only before the first. Labels follow from the characters a token covers: a token that
touches supervised text is supervised. A picture takes exactly its number of positions.

Special tokens stand only where the template wrote them: every chunk is tokenised under guard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from llavakit.conversation.guard import Guard, Tokens, guard_of
from llavakit.conversation.record import Conversation, ConversationError, Text
from llavakit.conversation.templates import Piece, Template, Written

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
    encoded = _encode_pieces(template.write(conversation, prompt=prompt), tokenizer, image_lengths)
    if max_length is not None and len(encoded.ids) > max_length:
        encoded = _cut(conversation, template, tokenizer, image_lengths, max_length, prompt, len(encoded.ids))
    if prompt:
        encoded.labels = [IGNORE_INDEX] * len(encoded.ids)
    elif all(label == IGNORE_INDEX for label in encoded.labels):
        raise ConversationError(
            f"conversation {conversation.id!r}: nothing of it is supervised under {template.name}"
        )
    return encoded


def _cut(
    conversation: Conversation,
    template: Template,
    tokenizer: Any,
    image_lengths: Sequence[int],
    max_length: int,
    prompt: bool,
    length: int,
) -> Encoded:
    """The conversation with as many of its first exchanges as fit. Raises TooLong when the first alone does not."""
    before = conversation.turns[0].role == "system"
    exchanges = (len(conversation.turns) - before) // 2
    best: Encoded | None = None
    few, many = (1, exchanges - 1) if not prompt else (1, 0)
    while few <= many:  # more exchanges are never shorter, so halving finds the most that fit
        count = (few + many) // 2
        kept = replace(conversation, turns=conversation.turns[: before + 2 * count])
        encoded = _encode_pieces(template.write(kept), tokenizer, image_lengths)
        length = len(encoded.ids)
        if length <= max_length:
            encoded.turns_dropped = exchanges - count
            best, few = encoded, count + 1
        else:
            many = count - 1
    if best is None:
        what = "as a prompt" if prompt else "with its first exchange alone"
        raise TooLong(
            f"conversation {conversation.id!r} takes {length} positions {what} and the limit is {max_length}; raise "
            "max_length, or shorten it"
        )
    return best


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
    guard = guard_of(tokenizer)
    ids = [] if _writes_beginning(pieces, tokenizer) else list(guard.prefix)
    encoded = Encoded(ids, [IGNORE_INDEX] * len(ids), [], 0)
    chunk: list[Written] = []
    for piece in pieces:
        if isinstance(piece, Written):
            chunk.append(piece)
            continue
        _append_chunk(encoded, chunk, guard)
        chunk = []
        length = image_lengths[piece.index]
        encoded.images.append(ImageSpan(piece.index, len(encoded.ids), length))
        encoded.ids += [IMAGE_TOKEN_ID] * length
        encoded.labels += [IGNORE_INDEX] * length
    _append_chunk(encoded, chunk, guard)
    return encoded


def _writes_beginning(pieces: Sequence[Piece], tokenizer: Any) -> bool:
    """Whether the template itself writes the beginning-of-sequence token; content that looks like it does not count."""
    first = pieces[0] if pieces else None
    return (
        isinstance(first, Written)
        and first.control
        and bool(tokenizer.bos_token)
        and first.text.startswith(tokenizer.bos_token)
    )


def _append_chunk(encoded: Encoded, chunk: Sequence[Written], guard: Guard) -> None:
    if chunk:
        tokens = guard.encode(chunk)
        encoded.ids += tokens.ids
        encoded.labels += _labels(tokens, chunk)


def _labels(tokens: Tokens, chunk: Sequence[Written]) -> list[int]:
    """A token is learnt when it touches supervised text; one that covers nothing goes with the character after it."""
    learnt = b"".join(
        (b"\1" if piece.supervised else b"\0") * length
        for piece, length in zip(chunk, tokens.lengths, strict=True)
    )
    return [
        token if learnt.find(1, start, max(end, start + 1)) >= 0 else IGNORE_INDEX
        for token, (start, end) in zip(tokens.ids, tokens.offsets, strict=True)
    ]
