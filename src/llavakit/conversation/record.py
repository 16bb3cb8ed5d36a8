"""The record of a conversation: who says what, and where pictures stand.

Every reader makes this record and every writer takes it. A picture is a part of a turn that points into the
conversation's list of pictures; text is data and stays data, whatever it looks like. A short video is shown as frames:
a reader names it whole (`clip.gif#video`), and before it is written it gives way to some of its frames
(`clip.gif#frame=3`, counted from 0), each a picture of its own. Nothing here opens a file or knows a tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llavakit.errors import LlavakitError

Role = Literal["system", "user", "assistant"]


_VIDEO = "#video"
_FRAME = re.compile(r"(?s)(.+)#frame=(\d+)")


class ConversationError(LlavakitError):
    """A conversation that cannot be used, with the reason."""


def video_name(file: str) -> str:
    """How a conversation names a whole video, a file or a folder of frames."""
    return file + _VIDEO


def frame_name(file: str, number: int) -> str:
    """How a conversation names one frame of a video, counted from 0."""
    return f"{file}#frame={number}"


def video_of(name: str) -> str | None:
    """The file of a whole video by its name in a conversation; None for a picture or a frame."""
    return name.removesuffix(_VIDEO) if name.endswith(_VIDEO) else None


def frame_of(name: str) -> tuple[str, int] | None:
    """(file, number) of a video's frame by its name in a conversation; None for a picture or a whole video."""
    found = _FRAME.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def file_of(name: str) -> str:
    """The file (or folder of frames) in which a picture, a frame or a video lies."""
    frame = frame_of(name)
    return frame[0] if frame else name.removesuffix(_VIDEO)


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """The picture `index` of the conversation stands here."""

    index: int


Part = Text | Picture


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The words of the turn alone."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns about zero or more pictures.

    id: as its file wrote it, a string or a number. source: the data set it is from, or "". images: where each picture
    is (a file, or as `frame_name` and `video_name` say). meta: whatever else its row held.
    """

    id: str | int
    source: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def placed(self) -> Iterator[int]:
        """The indices of pictures in the order in which they are met."""
        for turn in self.turns:
            yield from (part.index for part in turn.parts if isinstance(part, Picture))

    def check(self) -> None:
        """Raises ConversationError unless turns alternate from user to assistant (after an optional system turn),
        pictures stand in users' turns and every picture stands exactly once, no answer is empty, and all words are
        text that can be stored as UTF-8."""
        name = f"conversation {self.id!r}"
        turns = self.turns[1:] if self.turns and self.turns[0].role == "system" else self.turns
        if not turns:
            raise ConversationError(f"{name} has no turns; expected a user's turn and an answer")
        for number, turn in enumerate(turns):
            expected = ("user", "assistant")[number % 2]
            if turn.role != expected:
                raise ConversationError(
                    f"{name}: turn {number + 1} is the {turn.role}'s, expected the {expected}'s; turns alternate, "
                    "beginning with the user"
                )
            if turn.role == "assistant" and not turn.text.strip():
                raise ConversationError(
                    f"{name}: the answer in turn {number + 1} is empty; write one or remove the turn"
                )
        for turn in self.turns:
            if turn.role != "user" and any(isinstance(part, Picture) for part in turn.parts):
                raise ConversationError(
                    f"{name}: a picture stands in the {turn.role}'s turn; only users show pictures"
                )
            if not _whole(turn):
                raise ConversationError(
                    f"{name}: the {turn.role}'s words hold half of a character (a lone surrogate), which is no text; "
                    "write the whole character or remove it"
                )
        placed = list(self.placed())
        if sorted(placed) != list(range(len(self.images))):
            raise ConversationError(
                f"{name} has {len(self.images)} pictures and places number {placed or 'none'}; every picture must "
                "stand in the text exactly once"
            )


def _whole(turn: Turn) -> bool:
    try:
        turn.text.encode()
    except UnicodeEncodeError:
        return False
    return True
