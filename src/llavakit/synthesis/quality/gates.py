"""All gates together: candidates in, for each of them its verdicts out.

A gate is a file with a `VERSION` and a function that finds reasons in one candidate; the settings decide what becomes
of them. Nothing is asked and nothing is written here, so gates can be set otherwise and run again for free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from llavakit.synthesis.candidate import Candidate, Verdict
from llavakit.synthesis.quality import form, leak, length, refusal
from llavakit.synthesis.quality.settings import Settings
from llavakit.synthesis.quality.text import Finding

GATES: dict[str, tuple[int, Callable[[Candidate, Settings], Iterator[Finding]]]] = {
    "form": (form.VERSION, form.find),
    "refusal": (refusal.VERSION, refusal.find),
    "leak": (leak.VERSION, leak.find),
    "length": (length.VERSION, length.find),
}
"""Gates that look at one candidate at a time: version and function by name."""


def check(candidates: Sequence[Candidate], settings: Settings | None = None) -> list[tuple[Verdict, ...]]:
    """The verdicts of all gates that are not off, one tuple a candidate, in the candidates' order."""
    settings = settings or Settings()
    return [check_one(candidate, settings) for candidate in candidates]


def check_one(candidate: Candidate, settings: Settings) -> tuple[Verdict, ...]:
    """The verdicts of the gates that need no other candidate. A reason stands once, with where it was seen first."""
    verdicts: dict[tuple[str, str], Verdict] = {}
    for name, (version, find) in GATES.items():
        action = getattr(settings, name)
        if action == "off":
            continue
        gate = f"{name}/{version}"
        for finding in find(candidate, settings):
            verdicts.setdefault((gate, finding.reason), Verdict(gate, action, *finding))
    return tuple(verdicts.values())


def identity(settings: Settings) -> dict[str, Any]:
    """What a card says of the gates: their versions and all settings."""
    return {"gates": {name: version for name, (version, _) in GATES.items()}, "settings": settings.identity()}


def tally(verdicts: Iterable[Sequence[Verdict]]) -> dict[str, int]:
    """How many candidates have each `gate: reason (action)`, most frequent first."""
    counted = Counter(
        line for row in verdicts for line in {f"{v.gate}: {v.reason} ({v.action})" for v in row}
    )
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
