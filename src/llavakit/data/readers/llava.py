"""LLaVA's own format: a JSON list or JSONL of `{id, image, conversations: [{from, value}]}`.

`image` is a file name, a list of them, or absent. In a human turn of a row with pictures `<image>` says where the
next picture stands; in an answer, and in rows without the key `image`, it is text like any other. Pictures without a
place of their own stand before the words of the first human turn, as LLaVA sets them. A row that cannot be used is
handed on with its problem; only a file that cannot be read at all is an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llavakit.conversation.record import Conversation, ConversationError, Part, Picture, Role, Text, Turn
from llavakit.data.readers.json_rows import Broken, read_rows

PLACE = "<image>"
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

    images: the folder that picture names are relative to; the file's own when None.
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
    shown = row.get("image")
    files = [shown] if isinstance(shown, str) and shown else list(shown) if isinstance(shown, list) else []
    if (shown is not None and not isinstance(shown, str | list)) or not all(
        isinstance(file, str) and file for file in files
    ):
        raise ConversationError(
            f"conversation {name!r}: image is {shown!r}; expected a file name or a list of them"
        )
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise ConversationError(
            f"conversation {name!r}: `conversations` is missing or empty; expected a list of turns"
        )
    made, placed = [], 0
    for turn in turns:
        role, value = _spoken(turn, name)
        parts, placed = _parts(value, placed, split="image" in row and role == "user")
        made.append(Turn(role, parts))
    if placed > len(files):
        raise ConversationError(
            f"conversation {name!r} has {placed} {PLACE} in its text and {len(files)} pictures; name a picture for "
            f"each or remove the {PLACE}"
        )
    note = None
    opening = next((turn for turn in made if turn.role != "system"), None)
    if opening is not None and opening.role == "assistant" and len(made) > 1:
        made.remove(opening)
        note = "the first turn was an answer to nothing and is left out, as LLaVA does"
    if placed < len(files):
        made = _set_first(made, placed, len(files))
    meta = {key: value for key, value in row.items() if key not in ("id", "conversations")}
    images = tuple(str(root / file) for file in files)
    return Conversation(name, "", images, tuple(made), meta), note


def _spoken(turn: Any, name: str | int) -> tuple[Role, str]:
    speaker = turn.get("from") if isinstance(turn, dict) else None
    if speaker not in _ROLES or not isinstance(turn.get("value"), str):
        raise ConversationError(
            f"conversation {name!r}: a turn is {str(turn)[:80]}; expected {{from: human or gpt, value: text}}"
        )
    return _ROLES[speaker], turn["value"]


def _parts(value: str, placed: int, split: bool) -> tuple[tuple[Part, ...], int]:
    """The parts of a turn's text, and how many pictures are placed after it."""
    if not split:
        return ((Text(value),) if value else ()), placed
    parts: list[Part] = []
    for number, words in enumerate(value.split(PLACE)):
        if number:
            parts.append(Picture(placed))
            placed += 1
        if words:
            parts.append(Text(words))
    return tuple(parts), placed


def _set_first(turns: list[Turn], placed: int, count: int) -> list[Turn]:
    """Sets pictures that have no place before the words of the first user's turn, each on its own line."""
    at = next((number for number, turn in enumerate(turns) if turn.role == "user"), None)
    if at is None:
        return turns
    ahead: list[Part] = []
    for index in range(placed, count):
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
    named = meta.pop("image", None)
    if conversation.images:
        images = list(conversation.images)
        own = images[0] if len(images) == 1 else images
        row["image"] = named if _names(named, images) else own
    elif named is not None:
        row["image"] = named
    order = list(conversation.placed())
    if order != sorted(order):
        raise ConversationError(
            f"conversation {conversation.id!r} places its pictures in the order {order}; LLaVA's format can only place "
            "them one after the other"
        )
    row["conversations"] = [
        {"from": _SPEAKERS[turn.role], "value": _value(turn, conversation, "image" in row)}
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


def _value(turn: Turn, conversation: Conversation, shows: bool) -> str:
    if shows and turn.role == "user" and PLACE in turn.text:
        raise ConversationError(
            f"conversation {conversation.id!r}: the words of a user hold {PLACE}, which LLaVA's format would read as a "
            "picture"
        )
    return "".join(PLACE if isinstance(part, Picture) else part.text for part in turn.parts)
