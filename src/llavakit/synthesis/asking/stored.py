"""What the journal keeps of a request: its reply, or why there will be none, and what it cost.

Data alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from llavakit.synthesis.teacher import TeacherReply, TeacherRequest


@dataclass(frozen=True, slots=True)
class Stored:
    """What is kept under a request's key.

    reply: None for a request that was refused; `trouble` and `message` then say why. attempts: calls made for it. usd:
    what all of them cost, in the currency of the price list. at: when the reply was kept, in UTC. sent_max_tokens: the
    room of the call that gave the reply, which is more than was asked for where a reply had been cut.
    """

    key: str
    reply: TeacherReply | None
    trouble: str
    message: str
    attempts: int
    usd: float
    at: str
    latency_s: float
    sent_max_tokens: int


def is_settled(stored: Stored | None, request: TeacherRequest, more_room: float) -> bool:
    """Whether there is nothing left to ask: a whole reply, a refusal, or one that was cut in the larger room too."""
    if stored is None:
        return False
    if stored.reply is None or stored.reply.finish != "length" or more_room <= 1:
        return True
    return stored.sent_max_tokens > request.max_tokens
