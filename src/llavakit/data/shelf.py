"""Conversations in memory, reached by number.

What lives here: a compact store for the conversations that training uses. A list of a million small objects costs
gigabytes, and every worker process would copy them by touching their reference counts; here each conversation is a
short run of bytes in one block that processes share. It knows the conversation record. It does not know files,
tokens or which conversations are worth keeping.
"""

from __future__ import annotations

import json
from array import array

from llavakit.conversation.record import Conversation, Part, Picture, Text, Turn


class Shelf:
    """Conversations by number, in the order they were added. `meta` is not kept: training does not read it."""

    def __init__(self) -> None:
        self._block = bytearray()
        self._ends = array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, conversation: Conversation) -> None:
        """Puts one more conversation at the end."""
        turns = [
            [turn.role, [part.text if isinstance(part, Text) else part.index for part in turn.parts]]
            for turn in conversation.turns
        ]
        packed = [conversation.id, conversation.source, conversation.images, turns]
        self._block += json.dumps(packed, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "surrogatepass"
        )
        self._ends.append(len(self._block))

    def __getitem__(self, number: int) -> Conversation:
        start = self._ends[number - 1] if number else 0
        packed = json.loads(self._block[start : self._ends[number]].decode("utf-8", "surrogatepass"))
        name, source, images, turns = packed
        return Conversation(
            id=name,
            source=source,
            images=tuple(images),
            turns=tuple(Turn(role=role, parts=tuple(_part(part) for part in parts)) for role, parts in turns),
            meta={},
        )


def _part(packed: str | int) -> Part:
    return Text(packed) if isinstance(packed, str) else Picture(packed)
