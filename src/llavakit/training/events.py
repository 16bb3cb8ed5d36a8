"""What a run tells while it goes on.

What lives here: one small record a kind of event, and the listener that receives them. Training never prints: the
command line, the quickstart and tests listen. Events are facts with names and numbers; how they look is the listener's
business. It knows nothing of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins, or goes on when `resumed`. `device` and `precision` in words."""

    folder: Path
    stages: tuple[str, ...]
    device: str
    precision: str
    resumed: bool


@dataclass(frozen=True, slots=True)
class Indexing:
    """`rows` rows of a data source have been read so far."""

    source: str
    rows: int


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage begins at step `step` of `steps`. `parameters`: how many numbers train, part by part."""

    number: int
    name: str
    step: int
    steps: int
    samples: int
    skipped: int
    cut: int
    videos: int
    frames: int
    frames_found: int
    packs: int
    fill: float
    parameters: dict[str, int]


@dataclass(frozen=True, slots=True)
class StepDone:
    """An optimizer step. `loss` is the mean over the step's supervised tokens, None when all its samples were dropped.

    scores: by benchmark, where the model was evaluated after this step; nan where a score is undefined. rates: learning
    rate by part. seconds: of this step. tokens_per_second and seconds_left: over the last steps.
    """

    stage: str
    step: int
    steps: int
    loss: float | None
    validation_loss: float | None
    scores: dict[str, float]
    rates: dict[str, float]
    gradient_norm: float | None
    tokens: int
    supervised: int
    seconds: float
    tokens_per_second: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Evaluating:
    """`done` of `total` questions of a benchmark are answered by the model of this step."""

    stage: str
    step: int
    benchmark: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class SampleDropped:
    """A sample whose picture turned out unreadable when it was loaded; its pack was trained without it."""

    stage: str
    step: int
    sample: str
    reason: str


@dataclass(frozen=True, slots=True)
class StateSaved:
    """The run can be resumed from this step."""

    stage: str
    step: int
    folder: Path


@dataclass(frozen=True, slots=True)
class StageFinished:
    """A stage is done; its model lies in `checkpoint`."""

    number: int
    name: str
    checkpoint: Path


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence that the user should see."""

    sentence: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """All stages are done."""

    folder: Path
    checkpoint: Path
    report: Path


Event = (
    RunStarted
    | Indexing
    | StageStarted
    | StepDone
    | Evaluating
    | SampleDropped
    | StateSaved
    | StageFinished
    | Notice
    | RunFinished
)


class Listener(Protocol):
    """Receives every event, in order, in the training process; it should return at once."""

    def __call__(self, event: Event, /) -> None: ...


def nobody(event: Event, /) -> None:
    """The listener that does not listen."""
