"""All gates together: candidates in, for each of them its verdicts out.

A gate is a file with a `VERSION` and a function that finds reasons in one candidate; the settings decide what becomes
of them. Nothing is asked and nothing is written here, so gates can be set otherwise and run again for free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from llavakit.synthesis.candidate import Candidate, Verdict
from llavakit.synthesis.quality import (
    duplicates,
    form,
    hallucination,
    leak,
    length,
    places,
    refusal,
    relevance,
)
from llavakit.synthesis.quality.names import NAMES
from llavakit.synthesis.quality.settings import Acting, Settings
from llavakit.synthesis.quality.text import Finding
from llavakit.synthesis.quality.things import Vocabulary

GATES: dict[str, tuple[int, Callable[[Candidate, Settings], Iterator[Finding]]]] = {
    "form": (form.VERSION, form.find),
    "refusal": (refusal.VERSION, refusal.find),
    "leak": (leak.VERSION, leak.find),
    "length": (length.VERSION, length.find),
    "relevance": (relevance.VERSION, relevance.find),
}
"""Gates that look at one candidate at a time: version and function by name."""

COMPARING: dict[str, tuple[int, Callable[[Candidate, Settings, Vocabulary], Iterator[Finding]]]] = {
    "hallucination": (hallucination.VERSION, hallucination.find_things),
    "counts": (hallucination.VERSION, hallucination.find_counts),
    "places": (places.VERSION, places.find),
}
"""Gates that compare a candidate with its picture's annotations, by the names that things go by in the set."""


def check(candidates: Sequence[Candidate], settings: Settings | None = None) -> list[tuple[Verdict, ...]]:
    """The verdicts of all gates that are not off, one tuple a candidate, in the candidates' order.

    Duplicates are looked for last, among what no other gate rejects.
    """
    settings = settings or Settings()
    vocabulary = vocabulary_of(candidates)
    found = [check_one(candidate, settings, vocabulary) for candidate in candidates]
    if (action := settings.action("duplicates")) != "off":
        rejected = frozenset(
            place for place, row in enumerate(found) if any(v.action == "reject" for v in row)
        )
        gate = f"duplicates/{duplicates.VERSION}"
        for place, findings in duplicates.find_all(candidates, settings, rejected).items():
            found[place] += tuple(Verdict(gate, action, *finding) for finding in findings)
    return found


def vocabulary_of(candidates: Iterable[Candidate]) -> Vocabulary:
    """The names of things: COCO's, and the categories of the candidates' own boxes."""
    own = {box.category.lower() for candidate in candidates for box in candidate.picture.boxes}
    return Vocabulary(sorted(own - NAMES.keys()))


def check_one(candidate: Candidate, settings: Settings, vocabulary: Vocabulary) -> tuple[Verdict, ...]:
    """The verdicts of the gates that need no other candidate. A reason stands once, with where it was seen first.

    Gates that compare with annotations only note where the teacher saw the picture: it may know more than they do.
    """
    verdicts: dict[tuple[str, str], Verdict] = {}
    for name, (version, find) in GATES.items():
        if (action := settings.action(name)) != "off":
            _add(verdicts, f"{name}/{version}", action, find(candidate, settings))
    for name, (version, compare) in COMPARING.items():
        if (action := settings.action(name)) != "off":
            lenient: Acting = "note" if candidate.kind.startswith("vision_") else action
            _add(verdicts, f"{name}/{version}", lenient, compare(candidate, settings, vocabulary))
    return tuple(verdicts.values())


def _add(
    verdicts: dict[tuple[str, str], Verdict],
    gate: str,
    action: Acting,
    findings: Iterable[Finding],
) -> None:
    for finding in findings:
        verdicts.setdefault((gate, finding.reason), Verdict(gate, action, *finding))


def identity(settings: Settings) -> dict[str, Any]:
    """What a card says of the gates: their versions and all settings."""
    versions = {name: version for name, (version, _) in (*GATES.items(), *COMPARING.items())}
    return {"gates": versions | {"duplicates": duplicates.VERSION}, "settings": settings.identity()}


def tally(verdicts: Iterable[Sequence[Verdict]]) -> dict[str, int]:
    """How many candidates have each `gate: reason (action)`, most frequent first."""
    counted = Counter(
        line for row in verdicts for line in {f"{v.gate}: {v.reason} ({v.action})" for v in row}
    )
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
