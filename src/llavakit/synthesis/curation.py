"""From stored replies to samples: each is read, judged, and told where it is from.

Reading, gates and provenance are functions of tasks, journal and settings alone. Nothing is asked here, so they can be
changed and run again for free, and the same journal always gives the same samples.

Knows the journal as something that has replies by key. Knows no teacher and writes no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from llavakit.synthesis.asking.stored import Stored
from llavakit.synthesis.candidate import Candidate, Verdict
from llavakit.synthesis.quality import Settings, check
from llavakit.synthesis.quality.ratings import SCALES, rating_request, rating_verdicts, read_rating
from llavakit.synthesis.sample import Sample
from llavakit.synthesis.tasks import Task, conversation, read_reply
from llavakit.synthesis.teacher import TeacherRequest

Replies = Callable[[str], Stored | None]
"""What is kept under a request's key, None where nothing is."""


@dataclass(frozen=True, slots=True)
class Rating:
    """By which model samples are rated, and the lowest mark on each of the four scales that is kept."""

    model: str
    minimum: int = 3


@dataclass(slots=True)
class Curated:
    """missing: tasks without a reply so far. failed: tasks that will have none, by why. tolerated: what readers let
    pass in replies that are not quite in form. unrated: samples that were to be rated and have no rating so far."""

    samples: list[Sample] = field(default_factory=list)
    missing: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    tolerated: Counter[str] = field(default_factory=Counter)
    unrated: int = 0


def curate(tasks: Iterable[Task], replies: Replies, gates: Settings, rating: Rating | None = None) -> Curated:
    """Every task that has a reply as a sample, in the tasks' order."""
    done = Curated()
    answered: list[tuple[Task, Stored, Candidate]] = []
    for task in tasks:
        stored = replies(task.key)
        if stored is None:
            done.missing += 1
        elif stored.reply is None:
            done.failed[stored.trouble] += 1
        else:
            answered.append((task, stored, read_reply(task, stored.reply)))
    verdicts = check([candidate for _, _, candidate in answered], gates)
    for (task, stored, candidate), found in zip(answered, verdicts, strict=True):
        told = provenance(task, stored)
        done.tolerated.update(candidate.notes)
        if rating is not None and _passes(candidate, found):
            opinion = replies(rating_request(candidate, rating.model).key)
            if opinion is None or opinion.reply is None:
                done.unrated += 1
            else:
                marks = read_rating(opinion.reply.text)
                found = (*found, *rating_verdicts(marks, dict.fromkeys(SCALES, rating.minimum)))
                told["rating"] = {"model": opinion.reply.model, "marks": asdict(marks) if marks else None}
        made = None if candidate.unreadable else conversation(candidate)
        done.samples.append(Sample(candidate, made, found, told))
    return done


def wanted_ratings(
    tasks: Iterable[Task], replies: Replies, gates: Settings, rating: Rating
) -> Iterator[TeacherRequest]:
    """What is asked about the samples that every other gate lets pass."""
    for sample in curate(tasks, replies, gates).samples:
        if sample.kept:
            yield rating_request(sample.candidate, rating.model)


def _passes(candidate: Candidate, verdicts: Sequence[Verdict]) -> bool:
    return not candidate.unreadable and all(one.action != "reject" for one in verdicts)


def provenance(task: Task, stored: Stored) -> dict[str, Any]:
    """Where a sample is from, as plain values: the picture's source, what was asked of whom, and what came back."""
    picture, request, reply = task.picture, task.request, stored.reply
    assert reply is not None
    source = {
        "dataset": picture.source, "picture": str(picture.id), "licence": picture.licence,
        "licence_url": picture.licence_url,
    }  # fmt: skip
    sent = [one.sha256 for message in request.messages for one in message.pictures]
    parameters: Mapping[str, Any] = {
        "temperature": request.temperature, "seed": request.seed, "max_tokens": stored.sent_max_tokens,
        "sample": request.sample, "schema": request.schema is not None,
    }  # fmt: skip
    return {
        "source": source,
        "boxes": [[box.category, *(round(value, 4) for value in box.corners)] for box in picture.boxes],
        "prompt": task.prompt,
        "request": task.key,
        "pictures_sent": sent,
        "teacher": {"asked": request.model, "returned": reply.model, "fingerprint": reply.fingerprint},
        "parameters": dict(parameters),
        "finish": reply.finish,
        "request_id": reply.request_id,
        "at": stored.at,
        "attempts": stored.attempts,
        "usage": {
            "prompt": reply.usage.prompt, "completion": reply.usage.completion, "cached": reply.usage.cached,
        },
        "cost": stored.usd,
    }  # fmt: skip
