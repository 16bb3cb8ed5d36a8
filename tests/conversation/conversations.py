"""Conversations for the tests: short ways to write one, and all that hypothesis can think of."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from llavakit.conversation.record import Conversation, Part, Picture, Text, Turn
from tests.conversation.tokenizers import MARKS, byte_level, llama

# Every template but `plain`, with a tokenizer that knows its marks.
CHATS = {
    "v0": llama,
    "vicuna_v1": llama,
    "llama_2": llama,
    "mistral": llama,
    "chatml_direct": byte_level,
    "llama_3": byte_level,
    "qwen": byte_level,
}
TOKENIZERS = {"plain": llama, **CHATS}
LIKENESSES = ("<s>", "</s>", "<unk>", "<image>", "<0x0A>", "[/INST]", "###", "\ue0000\ue001", *MARKS)


def turn(role: Any, *parts: str | int) -> Turn:
    """A turn of words and of the numbers of pictures."""
    return Turn(role, tuple(Picture(part) if isinstance(part, int) else Text(part) for part in parts))


def talk(
    *said: tuple[str | int, ...] | str, system: str | None = None, images: int | None = None
) -> Conversation:
    """A conversation in which users and assistant speak by turns."""
    turns = [] if system is None else [turn("system", system)]
    for number, parts in enumerate(said):
        spoken = (parts,) if isinstance(parts, str) else parts
        turns.append(turn(("user", "assistant")[number % 2], *spoken))
    made = Conversation("c", "", (), tuple(turns))
    count = len(list(made.placed())) if images is None else images
    return Conversation("c", "", tuple(f"{number}.png" for number in range(count)), tuple(turns))


anything = st.lists(st.text(max_size=8) | st.sampled_from(LIKENESSES), max_size=4).map("".join)
words = anything.filter(lambda text: bool(text.strip()))


@st.composite
def conversations(draw: st.DrawFn, exchanges: int = 3) -> Conversation:
    """Any conversation that keeps the record's rules; a picture may stand anywhere in a user's turn."""
    turns = []
    if draw(st.booleans()):
        turns.append(turn("system", draw(words)))
    shown = 0
    for _ in range(draw(st.integers(1, exchanges))):
        parts: list[Part] = []
        for piece in draw(st.lists(anything | st.none(), min_size=1, max_size=4)):
            if piece is None:
                parts.append(Picture(shown))
                shown += 1
            elif piece:
                parts.append(Text(piece))
        turns += [Turn("user", tuple(parts)), turn("assistant", draw(words))]
    return Conversation("h", "", tuple(f"{number}.png" for number in range(shown)), tuple(turns))


def as_prompt(conversation: Conversation) -> Conversation:
    """Up to the last user's turn."""
    return Conversation("p", "", conversation.images, conversation.turns[:-1])
