"""A judge's replies that another run or tool saved, in the place of a judge that is asked.

Read are llavakit's marked answers (`judged`), lines of LLaVA's reviews (`content`), and MM-Vet's file of grades (an
object from id to lists of `content` and `model`). A file may hold several runs, and several files are several runs.

Knows files and ids. That the replies are about the answers that are scored cannot be seen from most of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Benchmark
from llavakit.evaluation.judge import Heard
from llavakit.evaluation.saved import id_of, read_rows

NONE_SAVED = "not judged: no saved reply"
ABOUT_NONE = "saved replies about no question"
UNNAMED = "a judge that the file does not name"


def read_replies(benchmark: Benchmark, wanted: Sequence[str], paths: Sequence[Path]) -> Heard:
    """The replies about the wanted questions, a run after the other.

    Raises LlavakitError when a file is of no form that is known, or has two different replies where one belongs.
    """
    heard = Heard([])
    known = frozenset(wanted)
    for path in paths:
        runs: list[dict[str, str]] = []
        for place, row in enumerate(read_rows(path)):
            name = id_of(benchmark, row, place)
            replies, models = _told(row, f"{path}, row {place + 1}")
            if name not in known:
                heard.counts[ABOUT_NONE] += 1
                continue
            heard.models.update(models)
            runs += [{} for _ in range(len(replies) - len(runs))]
            for run, reply in enumerate(replies):
                if runs[run].setdefault(name, reply) != reply:
                    raise LlavakitError(f"{path} has two replies about question {name} that differ; keep one")
        heard.replies += runs
    heard.replies = heard.replies or [{}]
    lacking = sum(name not in found for found in heard.replies for name in wanted)
    if lacking:
        heard.counts[NONE_SAVED] = lacking
    return heard


def _told(row: Mapping[str, Any], where: str) -> tuple[list[str], list[str]]:
    """A row's replies and who gave them."""
    said, models = row.get("judged", row.get("content")), row.get("model")
    if said is None:
        raise LlavakitError(
            f"{where} has no judge's reply under `judged` or `content` (it has: {', '.join(row)})"
        )
    replies = said if isinstance(said, list) else [said]
    models = models if isinstance(models, list) else [UNNAMED] * len(replies)
    if not all(isinstance(one, str) for one in (*replies, *models)):
        raise LlavakitError(f"{where} has a judge's reply that is no text")
    return list(replies), list(models)
