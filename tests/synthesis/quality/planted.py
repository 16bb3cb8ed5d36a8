"""Candidates with one fault planted in each, for the tests of the gates."""

from __future__ import annotations

from typing import Any

from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.context import Annotated, Box
from llavakit.synthesis.quality import Settings, check

CAPTIONS = (
    "Two dogs play with a red frisbee on the grass.",
    "A brown dog and a white dog run across a lawn beside a bench.",
)
BOXES = (
    Box("dog", (0.1, 0.5, 0.3, 0.8)),
    Box("dog", (0.6, 0.5, 0.8, 0.8)),
    Box("frisbee", (0.4, 0.3, 0.5, 0.4)),
    Box("bench", (0.8, 0.2, 1.0, 0.5)),
)
PARK = Annotated(1, "1.jpg", CAPTIONS, BOXES)


def candidate(*exchanges: tuple[str, str], kind: str = "conversation", **fields: Any) -> Candidate:
    fields = {"picture": PARK, "reply": "\n".join(part for pair in exchanges for part in pair)} | fields
    return Candidate(id=f"{kind}-1", kind=kind, exchanges=exchanges, **fields)


def said(answer: str, question: str = "What is going on here?", **fields: Any) -> Candidate:
    return candidate((question, answer), **fields)


def reasons(one: Candidate, gate: str, **settings: Any) -> list[str]:
    """The reasons that one gate has against a candidate."""
    (verdicts,) = check([one], Settings.of(settings))
    return [verdict.reason for verdict in verdicts if verdict.gate.split("/")[0] == gate]
