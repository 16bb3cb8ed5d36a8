"""The one interface of every teacher: a chat request goes in, a reply comes out.

A teacher is whatever writes: a hosted model behind an OpenAI-compatible endpoint, a small local one, a set of rules. It
is asked with the messages of a chat and answers with text, and the engine cannot tell one from another. A request is
known by the hash of everything that is sent, so that the same request is never paid twice.

Knows no network, no file and no prompt.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, Protocol

from llavakit.errors import LlavakitError

FinishReason = str
"""`stop` for a whole reply; `length` for one that was cut, `content_filter` for one that was withheld, or else."""


@dataclass(frozen=True, slots=True)
class SentPicture:
    """A picture as it is sent: its encoded bytes and what they are, such as `image/jpeg`."""

    media_type: str
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def url(self) -> str:
        """The picture as a `data:` URL."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode('ascii')}"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat; its pictures stand before its text."""

    role: Literal["system", "user", "assistant"]
    content: str
    pictures: tuple[SentPicture, ...] = ()


@dataclass(frozen=True, slots=True)
class TeacherRequest:
    """What is sent: the messages, and the parameters that decide the reply together with them.

    model: the name by which the endpoint knows it; "" for a teacher that is only one. schema: a JSON schema that the
    reply has to follow, where the endpoint can hold it to one. sample: the number of this request among equal ones.
    """

    messages: tuple[Message, ...]
    model: str = ""
    seed: int | None = 0
    temperature: float | None = 0.7
    max_tokens: int = 1024
    schema: Mapping[str, Any] | None = None
    sample: int = 0

    def identity(self) -> dict[str, Any]:
        """Everything that is sent, as plain values; a picture is named by its hash."""
        messages = [
            {"role": m.role, "content": m.content, "pictures": [picture.sha256 for picture in m.pictures]}
            for m in self.messages
        ]
        return {
            "messages": messages,
            "model": self.model,
            "seed": self.seed,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "schema": self.schema,
            "sample": self.sample,
        }

    @property
    def key(self) -> str:
        """The hash of `identity`, in 64 hexadecimal digits."""
        text = json.dumps(self.identity(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a reply was billed for. cached: those of the prompt's that were billed at the cache's price."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0


@dataclass(frozen=True, slots=True)
class TeacherReply:
    """What came back.

    model: as the endpoint says it, which may differ from what was asked for. refusal: the endpoint's own word that the
    model declined. raw: the body as it came, from which everything else can be read again.
    """

    text: str
    model: str
    finish: FinishReason = "stop"
    usage: Usage = field(default_factory=Usage)
    refusal: str = ""
    request_id: str = ""
    fingerprint: str = ""
    raw: str = ""


class Trouble(Enum):
    """Why a request got no reply, which decides what is done next."""

    RATE_LIMIT = "rate limit"  # 429: fewer at once, and again after the time that was named
    OVERLOADED = "overloaded"  # 503, 529: fewer at once, and again
    TRANSIENT = "transient"  # other 5xx, time-outs, connections cut, bodies that are no JSON: again
    REFUSED = "refused"  # 400, content filters, contexts that are too long: never again
    ACCESS = "access"  # 401, 403, 404, no money left: nothing will work, stop the run


class TeacherError(LlavakitError):
    """A request that got no reply.

    retry_after: seconds after which the endpoint wants to be asked again, where it says so. paid: whether tokens may
    have been spent nevertheless (a time-out or a connection cut after sending).
    """

    def __init__(
        self, trouble: Trouble, message: str, *, retry_after: float | None = None, paid: bool = False
    ) -> None:
        super().__init__(message)
        self.trouble, self.retry_after, self.paid = trouble, retry_after, paid


class Teacher(Protocol):
    """Whatever writes. `reply` makes one attempt: who asks decides about another."""

    @property
    def name(self) -> str:
        """How the teacher is known where its replies are kept."""
        ...

    async def reply(self, request: TeacherRequest) -> TeacherReply:
        """Raises TeacherError when there is no reply."""
        ...
