"""What the gates of quality look at and what they say: a reply that was read, and verdicts about it.

Data alone: nothing here asks, judges or writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llavakit.synthesis.context import Annotated


@dataclass(frozen=True, slots=True)
class Candidate:
    """A reply about a picture that may become data.

    id: `KIND-PICTURE`, with `-N` behind it for a further sample. exchanges: questions with their answers, empty where
    the reply could not be read; `unreadable` then says why. finish, refusal, reply: as the teacher gave them.
    instructions: what the teacher was told (system message and examples), of which nothing may come back.
    notes: what was let pass in reading although it was not quite in form, each a short phrase that can be counted.
    """

    id: str
    kind: str
    picture: Annotated
    exchanges: tuple[tuple[str, str], ...]
    reply: str
    finish: str = "stop"
    refusal: str = ""
    unreadable: str = ""
    instructions: str = ""
    teacher: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one gate found in one candidate.

    gate: its name with its version, such as `leak/1`. action: `reject` keeps the candidate out of the data, `note` is
    shown and kept beside it. reason: a short phrase that is counted. evidence: the words at which it was seen.
    """

    gate: str
    action: Literal["reject", "note"]
    reason: str
    evidence: str = ""
