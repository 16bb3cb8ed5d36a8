"""A sample of a data set in the making: what was read of a reply, what the gates said, and where all of it is from.

Data alone, and the form of its rows: nothing here asks, judges or writes files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llavakit.conversation.record import Conversation, Picture, Text
from llavakit.data.readers.llava import PLACE
from llavakit.synthesis.candidate import Candidate, Verdict

_SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}


@dataclass(frozen=True, slots=True)
class Sample:
    """A candidate with its verdicts.

    conversation: None where the reply could not be read. provenance: plain JSON values.
    """

    candidate: Candidate
    conversation: Conversation | None
    verdicts: tuple[Verdict, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether it is data: it was read, and no gate rejected it."""
        return self.conversation is not None and not any(one.action == "reject" for one in self.verdicts)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not data, each as `gate: reason`."""
        said = tuple(f"{one.gate}: {one.reason}" for one in self.verdicts if one.action == "reject")
        return (
            said if said or self.conversation is not None else ("unreadable: " + self.candidate.unreadable,)
        )


def llava_row(sample: Sample) -> dict[str, Any]:
    """The sample as LLaVA writes one: `id`, `image`, `conversations`. It has to have a conversation."""
    conversation = sample.conversation
    assert conversation is not None
    turns = [
        {
            "from": _SPEAKERS[turn.role],
            "value": "".join(
                PLACE if isinstance(part, Picture) else part.text
                for part in turn.parts
                if isinstance(part, Text | Picture)
            ),
        }
        for turn in conversation.turns
    ]
    return {
        "id": sample.candidate.id,
        "image": sample.candidate.picture.image,
        "conversations": turns,
    }


def full_row(sample: Sample) -> dict[str, Any]:
    """The LLaVA row with kind, provenance and verdicts."""
    return llava_row(sample) | {
        "kind": sample.candidate.kind,
        "provenance": dict(sample.provenance),
        "verdicts": [verdict_row(one) for one in sample.verdicts],
    }


def rejected_row(sample: Sample) -> dict[str, Any]:
    """A sample that is no data: what the teacher wrote, what was read of it, and why it stays out."""
    candidate = sample.candidate
    return {
        "id": candidate.id,
        "image": candidate.picture.image,
        "kind": candidate.kind,
        "reasons": list(sample.reasons),
        "reply": candidate.reply,
        "finish": candidate.finish,
        "exchanges": [list(pair) for pair in candidate.exchanges],
        "provenance": dict(sample.provenance),
        "verdicts": [verdict_row(one) for one in sample.verdicts],
    }


def verdict_row(verdict: Verdict) -> dict[str, str]:
    """A verdict as plain values."""
    return {
        "gate": verdict.gate,
        "action": verdict.action,
        "reason": verdict.reason,
        "evidence": verdict.evidence,
    }
