"""Balancing a file of captions: phrases, choice, the file of what stays, and a report of what it still tells of.

Joins the rooms beside it and writes two files; both are put in place whole and neither replaces another unasked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llavakit.errors import LlavakitError
from llavakit.synthesis.balance.captions import open_captions
from llavakit.synthesis.balance.choice import Chosen, Rule, choose
from llavakit.synthesis.balance.extraction import Extracted, Finder, extract

TOP = 30


@dataclass(frozen=True, slots=True)
class Balance:
    """How a set is balanced. processes: how many find phrases. cache: a folder for phrases that were found."""

    rule: Rule = field(default_factory=Rule)
    finder: Finder = field(default_factory=Finder)
    processes: int = 1
    cache: Path | None = None
    field: str = ""


def balance(
    source: Path,
    target: Path,
    how: Balance | None = None,
    *,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Writes the captions of `source` that stay to `target`, in the form of the source, and `TARGET.report.json`.

    Returns the report: rows, rows kept, rows without a caption by reason, and phrases before and after.
    Raises LlavakitError when the source cannot be read or holds no phrase that is frequent enough, and when a file
    would be replaced without `force`.
    """
    how = how or Balance()
    report_path = target.with_name(target.name + ".report.json")
    for path in (target, report_path):
        if path.exists() and not force:
            raise LlavakitError(f"{path} exists already and is not replaced unless you say --force")
    if not target.parent.is_dir():
        raise LlavakitError(f"{target}: there is no folder {target.parent}; make it first")
    captions = open_captions(source, how.field)
    if target.suffix != source.suffix:
        raise LlavakitError(
            f"{target}: what stays is written in the form of {source}; expected a name that ends in {source.suffix}"
        )
    if target.exists() and target.samefile(source):
        raise LlavakitError(f"{target}: source and target are the same file; write to another")
    found = extract(captions, how.finder, processes=how.processes, cache=how.cache, progress=progress)
    chosen = choose(found.told, how.rule)
    if not chosen.kept.any():
        raise LlavakitError(
            f"{source}: none of {len(found.told.captions)} rows holds a phrase that {how.rule.minimum} captions "
            "share, so nothing is written; lower --minimum or give more captions."
        )
    report = coverage(found, chosen, how.rule) | {
        "rule": asdict(how.rule),
        "phrases": {"by": how.finder.name, "written": how.finder.normalise},
        "source": source.name,
    }
    captions.write(chosen.kept.tolist(), target)
    partial = report_path.with_name(f".partial-{report_path.name}")
    partial.write_text(json.dumps(report, indent=1, ensure_ascii=True) + "\n", "utf-8")
    partial.replace(report_path)
    return report


def coverage(found: Extracted, chosen: Chosen, rule: Rule) -> dict[str, Any]:
    """What the set tells of before and after, as plain values."""
    before, after = found.told.frequency(), found.told.frequency(chosen.kept)
    frequent = before >= rule.minimum
    return {
        "rows": len(chosen.kept),
        "kept": int(chosen.kept.sum()),
        "without_caption": dict(sorted(found.problems.items())),
        "before": _described(before, rule, found.phrases),
        "after": _described(after, rule, found.phrases),
        "frequent_phrases_covered": int((frequent & (after > 0)).sum()),
        "frequent_phrases": int(frequent.sum()),
        "most_captions_drawn_by_one_phrase": int(chosen.drawn.max(initial=0)),
    }


def _described(counts: NDArray[np.int64], rule: Rule, phrases: list[str]) -> dict[str, Any]:
    there = counts[counts > 0]
    largest = np.argsort(-counts, kind="stable")[:TOP]
    top = sorted(
        ((phrases[place], int(counts[place])) for place in largest.tolist() if counts[place]),
        key=lambda one: (-one[1], one[0]),
    )
    return {
        "unique_phrases": len(there),
        "unique_phrases_frequent": int((there >= rule.minimum).sum()),
        "phrases_above_cap": int((there > rule.cap).sum()),
        "mentions": int(there.sum()),
        "median": float(np.median(there)) if len(there) else 0.0,
        "top": [{"phrase": phrase, "captions": number} for phrase, number in top],
    }
