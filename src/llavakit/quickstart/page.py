"""The demonstration's report: what looking is worth, in a table, curves, and pictures with questions and answers.

Only turns an `Outcome` into sections of a page; it computes nothing that `results.json` does not hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llavakit.evaluation.intervals import wilson
from llavakit.evaluation.marking import categories
from llavakit.evaluation.page import shown_pictures
from llavakit.quickstart.demo import Outcome
from llavakit.report import (
    Asked,
    Html,
    Section,
    Shown,
    details,
    figures,
    join,
    line_chart,
    page,
    paragraph,
    samples_grid,
    table,
)  # fmt: skip

HEADINGS = {
    "scores": "the tuned model, picture shown",
    "blind": "picture hidden",
    "shuffled": "another question's picture",
    "stage1_only": "after stage 1 only",
    "no_stage1": "stage 2 without stage 1",
}
CARDS = 24


def write_page(outcome: Outcome) -> Path:
    """Write `report.html` into the demonstration's folder.

    Returns:
        Where it stands.
    """
    results = outcome.results()
    sections = [
        Section("Does it look?", scores(outcome, results), NOTE),
        Section("Learning", curves(outcome)),
        Section(
            "Pictures, questions, answers", pictures(outcome), "The first of every task, right and wrong."
        ),
        Section("What was skipped", skipped(outcome)),
        Section("Time", figures({name: f"{value:.0f} s" for name, value in outcome.seconds.items()})),
    ]
    path = outcome.folder / "report.html"
    subtitle = (
        f"Trained and examined in {results['seconds']:.0f} seconds on {results['threads']} CPU threads. "
        "Exact answers on scenes that no training saw."
    )
    path.write_text(page("A small LLaVA", sections, subtitle=subtitle), "utf-8")
    return path


NOTE = (
    "The share of exactly right answers, with its 95 % interval. Half of every task's questions are about scenes "
    "with an object and a colour that never stood together in training; the row of held-out pairs counts those alone."
)


def scores(outcome: Outcome, results: Mapping[str, Any]) -> Html:
    tasks = list(results["questions"])
    rows = []
    for heading, found in outcome.examined.items():
        each = categories(found.marked.verdicts)
        rows.append([HEADINGS[heading], *(share(*each[task]) for task in tasks)])
    held_out = [f"{results['held_out_pairs'][task]:.1%}" for task in tasks]
    rows.insert(1, ["of these, held-out pairs alone", *held_out])
    return table(["", *tasks], rows)


def share(mean: float, number: int) -> str:
    low, high = wilson(mean / 100 * number, number)
    return f"{mean:.1f}% ({low:.0%} to {high:.0%})"


def curves(outcome: Outcome) -> Html:
    """The loss of every stage of both runs, each stage in a chart of its own, runs side by side."""
    stages: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, run in outcome.runs.items():
        for line in read_metrics(run.folder):
            series = stages.setdefault(line["stage"], {})
            if "loss" in line:
                series.setdefault(name, []).append((line["step"], line["loss"]))
    return join(
        line_chart(series, "step", "loss per supervised token", smooth=0.7, title=f"Stage {stage}")
        for stage, series in stages.items()
    )


def read_metrics(run: Path) -> Iterable[Mapping[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]


def read_manifest(run: Path) -> Any:
    return json.loads((run / "manifest.json").read_text("utf-8"))


def pictures(outcome: Outcome) -> Html:
    shown, blind = outcome.examined["scores"], outcome.examined["blind"]
    seen: dict[str, int] = {}
    cards = []
    for verdict in shown.marked.verdicts:
        question = verdict.question
        seen[question.category] = seen.get(question.category, 0) + 1
        if seen[question.category] > CARDS // 4:
            continue
        asked = [
            Asked(question.prompt, shown.answers[question.id], question.truth, verdict.credit == 1),
            Asked("the same with the picture hidden", blind.answers[question.id]),
        ]
        cards.append(Shown(shown_pictures(question), asked, question.category))
    return samples_grid(cards)


def skipped(outcome: Outcome) -> Html:
    rejected = outcome.materials.rejected
    kinds = sorted({(one.kind, one.reason) for one in rejected})
    rows: list[list[object]] = [
        [
            f"teacher's {kind} replies: {reason}",
            sum((one.kind, one.reason) == (kind, reason) for one in rejected),
        ]
        for kind, reason in kinds
    ]
    for name, run in outcome.runs.items():
        for stage in read_manifest(run.folder)["stages"]:
            for what in ("skipped", "cut", "noted"):
                rows.append([f"training {name}, stage {stage['name']}: conversations {what}", stage[what]])
    listed = [[one.image, one.kind, one.reason] for one in rejected]
    which = (
        details(f"All {len(listed)} replies", table(["picture", "kind", "reason"], listed))
        if listed
        else Html("")
    )
    explained = paragraph(
        "A scene of a single thing leaves nothing to compare, so the rule-based teacher writes no question that takes "
        "reasoning about it; its empty reply is counted here and becomes no data."
    )
    return join([explained, table(["what", "how many"], rows), which])
