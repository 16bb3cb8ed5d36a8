"""The one interface of every teacher: a chat request goes in, a reply comes out.

A teacher is whatever writes: a hosted model behind an OpenAI-compatible endpoint, a small local one, a set of rules. It
is asked with the messages of a chat and answers with text, and `generate` cannot tell one from another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class TeacherRequest:
    """What is sent: the messages, and the parameters that decide the reply together with them."""

    messages: tuple[Message, ...]
    seed: int = 0
    temperature: float = 0.7
    max_tokens: int = 1024


@dataclass(frozen=True, slots=True)
class TeacherReply:
    """What came back. `finish` is "stop" for a whole reply; anything else says how it was cut."""

    text: str
    model: str
    finish: str = "stop"


class Teacher(Protocol):
    name: str

    async def reply(self, request: TeacherRequest) -> TeacherReply: ...
