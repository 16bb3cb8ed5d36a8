"""LLaVA's own format: a JSON list or JSONL of `{id, image, conversations: [{from, value}]}`.

`image` is a file name, a list of them, or absent. In a human turn of a row with pictures `<image>` says where the
next picture stands; in an answer, and in rows without the key `image`, it is text like any other. Pictures without a
place of their own stand before the words of the first human turn, as LLaVA sets them. `video` names videos in the same
way and `<video>` places them; in a row that names no pictures, `<image>` places a video too, as in LLaVA-NeXT's data. A
row that cannot be used is handed on with its problem; only a file that cannot be read at all is an error.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llavakit.conversation.record import (
    Conversation,
    ConversationError,
    Part,
    Picture,
    Role,
    Text,
    Turn,
    video_name,
    video_of,
)
from llavakit.data.readers.json_rows import Broken, read_rows

PLACE = "<image>"
VIDEO_PLACE = "<video>"
_ROLES: dict[str, Role] = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system",
}  # fmt: skip
_SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file, from 0: a conversation, or the problem that it has. `note` tells what was left out of it."""

    position: int
    conversation: Conversation | None
    problem: str | None
    note: str | None = None


def read_llava(path: Path, images: Path | None = None) -> Iterator[Row]:
    """Every row of a JSON or JSONL file, in order and one at a time.

    images: the folder that the names of pictures and videos are relative to; the file's own when None.
    Raises LlavakitError when the file is missing, is not text, or (JSON) is not one whole list.
    """
    path = Path(path)
    root = path.parent if images is None else images
    for position, content in enumerate(read_rows(path)):
        if isinstance(content, Broken):
            yield Row(position, None, content.reason)
            continue
        try:
            conversation, note = _conversation(content, position, root)
            conversation.check()
        except ConversationError as problem:
            yield Row(position, None, str(problem))
        else:
            yield Row(position, conversation, None, note)


def _conversation(row: Any, position: int, root: Path) -> tuple[Conversation, str | None]:
    if not isinstance(row, dict):
        raise ConversationError(f"a row is an object with `conversations`; found a JSON {type(row).__name__}")
    name = position if row.get("id") is None else row["id"]
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise ConversationError(f"id is {name!r}; expected a string or a number")
    files, videos = _files(row, "image", name), _files(row, "video", name)
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise ConversationError(
            f"conversation {name!r}: `conversations` is missing or empty; expected a list of turns"
        )
    places = _Places("image" in row, "video" in row, len(files), len(videos))
    made = []
    for turn in turns:
        role, value = _spoken(turn, name)
        made.append(Turn(role, places.parts(value) if role == "user" else _words(value)))
    places.check(name)
    note = None
    opening = next((turn for turn in made if turn.role != "system"), None)
    if opening is not None and opening.role == "assistant" and len(made) > 1:
        made.remove(opening)
        note = "the first turn was an answer to nothing and is left out, as LLaVA does"
    if left := places.left():
        made = _set_first(made, left)
    meta = {key: value for key, value in row.items() if key not in ("id", "conversations")}
    images = (*(str(root / file) for file in files), *(video_name(str(root / file)) for file in videos))
    return Conversation(name, "", images, tuple(made), meta), note


def _files(row: dict[str, Any], key: str, name: str | int) -> list[str]:
    """The files that a row names under a key: one, a list of them, or none."""
    shown = row.get(key)
    files = [shown] if isinstance(shown, str) and shown else list(shown) if isinstance(shown, list) else []
    if (shown is not None and not isinstance(shown, str | list)) or not all(
        isinstance(file, str) and file for file in files
    ):
        raise ConversationError(
            f"conversation {name!r}: {key} is {shown!r}; expected a file name or a list of them"
        )
    return files


def _spoken(turn: Any, name: str | int) -> tuple[Role, str]:
    speaker = turn.get("from") if isinstance(turn, dict) else None
    if speaker not in _ROLES or not isinstance(turn.get("value"), str):
        raise ConversationError(
            f"conversation {name!r}: a turn is {str(turn)[:80]}; expected {{from: human or gpt, value: text}}"
        )
    return _ROLES[speaker], turn["value"]


class _Places:
    """Hands out the pictures and videos of a row, pictures numbered first, as their places are met."""

    def __init__(self, shows: bool, plays: bool, pictures: int, videos: int) -> None:
        self._kinds = {}  # each sign that is a place: where its numbers begin, how many there are, how many were met
        if shows:
            self._kinds[PLACE] = [0, pictures, 0]
        if plays:
            self._kinds[VIDEO_PLACE] = [pictures, videos, 0]
        self._video_at_picture = plays and not shows

    def parts(self, value: str) -> tuple[Part, ...]:
        """The parts of a user's text."""
        parts: list[Part] = []
        for words in re.split(f"({PLACE}|{VIDEO_PLACE})", value):
            sign = VIDEO_PLACE if words == PLACE and self._video_at_picture else words
            if sign in self._kinds:
                first, _, met = self._kinds[sign]
                parts.append(Picture(first + met))
                self._kinds[sign][2] += 1
            elif words:
                joined = isinstance(parts[-1], Text) if parts else False
                before = parts.pop() if joined else Text("")
                assert isinstance(before, Text)
                parts.append(Text(before.text + words))
        return tuple(parts)

    def check(self, name: str | int) -> None:
        """Raises ConversationError when more places were met than there is to show."""
        for sign, (_, count, met) in self._kinds.items():
            if met > count:
                what = "pictures" if sign == PLACE else "videos"
                raise ConversationError(
                    f"conversation {name!r} has {met} {sign} in its text and {count} {what}; name one of the {what} "
                    f"for each or remove the {sign}"
                )

    def left(self) -> list[int]:
        """The numbers of those that have no place."""
        return [first + n for first, count, met in self._kinds.values() for n in range(met, count)]


def _words(value: str) -> tuple[Part, ...]:
    return (Text(value),) if value else ()


def _set_first(turns: list[Turn], left: list[int]) -> list[Turn]:
    """Sets those that have no place before the words of the first user's turn, each on its own line."""
    at = next((number for number, turn in enumerate(turns) if turn.role == "user"), None)
    if at is None:
        return turns
    ahead: list[Part] = []
    for index in left:
        ahead += [Picture(index), Text("\n")]
    return [*turns[:at], Turn("user", (*ahead, *turns[at].parts)), *turns[at + 1 :]]


def write_llava(conversations: Iterable[Conversation], path: Path) -> None:
    """Writes conversations as a JSON list, or as JSONL when the name ends so; all of it or nothing.

    A picture is written as the row it was read from named it, else by its path. Raises ConversationError for a user's
    words that hold `<image>` beside real pictures, which this format cannot tell apart.
    """
    path = Path(path)
    rows = (_json(_row(conversation)) for conversation in conversations)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            if path.suffix == ".jsonl":
                file.writelines(row + "\n" for row in rows)
            else:
                file.write("[")
                file.writelines(("\n" if number == 0 else ",\n") + row for number, row in enumerate(rows))
                file.write("\n]\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _json(row: dict[str, Any]) -> str:
    """A row as JSON, its letters as they are; all of it in ASCII where it holds half a character, which is no UTF-8."""
    written = json.dumps(row, ensure_ascii=False)
    try:
        written.encode()
    except UnicodeEncodeError:
        return json.dumps(row)
    return written


def _row(conversation: Conversation) -> dict[str, Any]:
    meta = dict(conversation.meta)
    row: dict[str, Any] = {"id": conversation.id}
    videos = [video for name in conversation.images if (video := video_of(name)) is not None]
    pictures = [name for name in conversation.images if video_of(name) is None]
    for key, files in (("image", pictures), ("video", videos)):
        named = meta.pop(key, None)
        if files:
            own = files[0] if len(files) == 1 else files
            row[key] = named if _names(named, files) else own
        elif named is not None:
            row[key] = named
    order = list(conversation.placed())
    for still in (True, False):
        kind = [index for index in order if (video_of(conversation.images[index]) is None) == still]
        if kind != sorted(kind):
            raise ConversationError(
                f"conversation {conversation.id!r} places its pictures in the order {order}; LLaVA's format can only "
                "place them one after the other"
            )
    row["conversations"] = [
        {"from": _SPEAKERS[turn.role], "value": _value(turn, conversation, row)}
        for turn in conversation.turns
    ]
    return row | meta


def _names(named: Any, images: list[str]) -> bool:
    """Whether the names that a row had are still those of its conversation's pictures."""
    names = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    return len(names) == len(images) and all(
        Path(image).parts[-len(Path(name).parts) :] == Path(name).parts
        for name, image in zip(names, images, strict=True)
    )


def _value(turn: Turn, conversation: Conversation, row: dict[str, Any]) -> str:
    for key, sign in (("image", PLACE), ("video", VIDEO_PLACE), ("video", PLACE)):
        if key in row and turn.role == "user" and sign in turn.text:
            raise ConversationError(
                f"conversation {conversation.id!r}: the words of a user hold {sign}, which LLaVA's format would read "
                f"as a {'picture' if key == 'image' else 'video'}"
            )
    return "".join(
        part.text
        if isinstance(part, Text)
        else PLACE
        if video_of(conversation.images[part.index]) is None
        else VIDEO_PLACE
        for part in turn.parts
    )
