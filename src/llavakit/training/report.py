"""A run's own report: curves, data, what was left out, samples, and what the run was made of.

What lives here: from a run's folder to its `report.html`. It reads only what the run wrote (manifest, metrics, recipe)
and the pictures of a few samples, so that it can be made at any moment, also of a run that stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

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
)
from llavakit.training.durable import write_text
from llavakit.training.folder import RunFolder
from llavakit.training.metrics import Record, read_metrics


def write_report(folder: RunFolder) -> None:
    """Writes `report.html` of a run, whatever state it is in."""
    records = read_metrics(folder.metrics)
    stages: list[dict[str, Any]] = folder.manifest.get("stages", [])
    sections = [Section("At a glance", _glance(folder, records, stages))]
    for stage in stages:
        own = [record for record in records if record["stage_number"] == stage["number"]]
        sections.append(Section(f"Stage {stage['number']}: {stage['name']}", _curves(own)))
    sections.append(Section("Data", join(_data(stage) for stage in stages)))
    sections.append(Section("Left out", join(_left_out(stage, records) for stage in stages)))
    sections.append(
        Section(
            "Samples",
            join(_samples(stage) for stage in stages),
            note="A few of the conversations that were trained on, as they stand in the data.",
        )
    )
    sections.append(Section("Made of", _made_of(folder)))
    title = f"Run {folder.manifest.get('name', folder.path.name)}"
    write_text(folder.report, page(title, sections, subtitle=_standing(folder, records, stages)))


def _standing(folder: RunFolder, records: Sequence[Record], stages: Sequence[dict[str, Any]]) -> str:
    if folder.finished:
        return f"Finished {folder.manifest['finished']}; the model is in {folder.manifest['final']}."
    if not records:
        return "Not one step is done yet."
    last = records[-1]
    steps = next(stage["steps"] for stage in stages if stage["number"] == last["stage_number"])
    return f"Stopped after step {last['step']} of {steps} of stage {last['stage']}; it can be resumed."


def _glance(folder: RunFolder, records: Sequence[Record], stages: Sequence[dict[str, Any]]) -> Html:
    seconds = sum(record["seconds"] for record in records)
    tokens = sum(record["tokens"] for record in records)
    values: dict[str, object] = {}
    for stage in stages:
        own = [r for r in records if r["stage_number"] == stage["number"] and r["loss"] is not None]
        if own:
            tail = own[-max(1, len(own) // 20) :]
            values[f"loss, end of {stage['name']}"] = sum(r["loss"] for r in tail) / len(tail)
        for name, score in next((r["scores"] for r in reversed(own) if r.get("scores")), {}).items():
            values[f"{name} after {stage['name']}"] = round(score, 2)
        held = [r["validation_loss"] for r in own if "validation_loss" in r]
        if held:
            values[f"validation loss of {stage['name']}"] = held[-1]
    values["steps"] = len(records)
    values["tokens"] = tokens
    values["time of the steps"] = _duration(seconds)
    values["tokens a second"] = round(tokens / seconds) if seconds else 0
    values["rows skipped"] = sum(stage["skipped"] for stage in stages)
    values["rows cut"] = sum(stage["cut"] for stage in stages)
    return figures(values)


def _curves(records: Sequence[Record]) -> Html:
    def points(name: str) -> list[tuple[float, float]]:
        return [(r["step"], r[name]) for r in records if r.get(name) is not None]

    scored = [record for record in records if record.get("scores")]
    names = list(dict.fromkeys(name for record in scored for name in record["scores"]))
    scores = {name: [(r["step"], r["scores"][name]) for r in scored if name in r["scores"]] for name in names}
    losses = {"training": points("loss"), "validation": points("validation_loss")}
    parts = list(dict.fromkeys(part for record in records for part in record["learning_rate"]))
    rates = {part: [(r["step"], r["learning_rate"][part]) for r in records] for part in parts}
    return join(
        [
            line_chart(losses, "step", "loss per supervised token", smooth=0.9, title="Loss"),
            *(line_chart({name: scores[name]}, "step", "score", title=f"Benchmark {name}") for name in names),
            line_chart(
                {"norm": points("gradient_norm")}, "step", "gradient norm", log=True, title="Gradient"
            ),
            details(
                "Learning rate and speed",
                join(
                    [
                        line_chart(rates, "step", "learning rate", log=True, title="Learning rate"),
                        line_chart(
                            {"speed": points("tokens_per_second")}, "step", "tokens a second", title="Speed"
                        ),
                    ]
                ),
            ),
        ]
    )


def _data(stage: dict[str, Any]) -> Html:
    total = sum(source["tokens_drawn"] for source in stage["sources"]) or 1
    rows = [
        [
            source["name"],
            source["rows"],
            source["used"],
            source["samples_drawn"],
            source["tokens_drawn"],
            f"{source['tokens_drawn'] / total:.1%}",
        ]
        for source in stage["sources"]
    ]
    caption = (
        f"Stage {stage['name']}: {stage['steps']} steps over {stage['packs']} packs, {stage['fill']:.1%} full"
    )
    headers = ["source", "rows", "used", "samples drawn", "tokens drawn", "share of tokens"]
    return table(headers, rows, caption=caption)


def _left_out(stage: dict[str, Any], records: Sequence[Record]) -> Html:
    steps: dict[tuple[str, str], list[int]] = {}
    for record in records:
        if record["stage_number"] == stage["number"]:
            for one in record.get("dropped", ()):
                steps.setdefault((one["sample"], one["reason"]), []).append(record["step"])
    parts = [
        paragraph(
            f"Stage {stage['name']}: {stage['skipped']} rows skipped, {stage['cut']} cut at a turn to the length "
            f"limit, {len(steps)} samples left out of their packs because a picture could not be decoded."
        )
    ]
    if stage["videos"]["videos"]:
        shown = stage["videos"]
        parts.append(
            paragraph(
                f"Of its {shown['videos']} videos, {shown['frames']} of {shown['found']} frames are shown."
            )
        )
    if stage["skipped"]:
        kinds = ", ".join(f"{kind} {count}" for kind, count in stage["skipped_by_kind"].items())
        rows = [[row["row"], row["kind"], row["reason"]] for row in stage["skipped_rows"]]
        summary = f"{stage['skipped']} skipped rows ({kinds}){_first(rows, stage['skipped'])}"
        parts.append(details(summary, table(["row", "kind", "reason"], rows), opened=len(rows) <= 20))
    if stage["cut"]:
        rows = [[row["row"], row["exchanges_dropped"]] for row in stage["cut_rows"]]
        summary = f"{stage['cut']} cut rows{_first(rows, stage['cut'])}"
        parts.append(details(summary, table(["row", "exchanges dropped"], rows)))
    if stage["noted"]:
        rows = [[row["row"], row["note"]] for row in stage["noted_rows"]]
        summary = f"{stage['noted']} rows used in part{_first(rows, stage['noted'])}"
        parts.append(details(summary, table(["row", "what was left out"], rows)))
    if steps:
        rows = [[sample, ", ".join(map(str, when)), reason] for (sample, reason), when in steps.items()]
        summary = f"{len(steps)} samples left out of their packs"
        parts.append(details(summary, table(["sample", "at steps", "reason"], rows), opened=len(rows) <= 20))
    return join(parts)


def _first(rows: Sequence[object], total: int) -> str:
    return f", the first {len(rows)} of them" if len(rows) < total else ""


def _samples(stage: dict[str, Any]) -> Html:
    cards = []
    for sample in stage["samples"]:
        asked: list[Asked] = []
        for turn in sample["turns"]:
            if turn["role"] == "assistant":
                question = asked.pop().question if asked and asked[-1].answer is None else ""
                asked.append(Asked(question, turn["text"]))
            else:
                asked.append(Asked(turn["text"] or "(picture)"))
        cards.append(Shown(sample["images"], asked, caption=sample["name"]))
    return join([Html(f"<h3>{escape(stage['name'])}</h3>"), samples_grid(cards)])


def _made_of(folder: RunFolder) -> Html:
    machine = folder.manifest.get("machine", {})
    rows = [
        ["device", machine.get("device")],
        ["precision", machine.get("precision")],
        ["threads", machine.get("threads")],
        ["seed", folder.manifest.get("seed")],
        ["started", folder.manifest.get("started")],
        ["resumed", ", ".join(folder.manifest.get("resumed", [])) or "never"],
        *([name, version] for name, version in machine.get("versions", {}).items()),
    ]
    recipe = folder.recipe.read_text(encoding="utf-8")
    listing = Html(f"<pre><code>{escape(recipe)}</code></pre>")
    return join(
        [table(["", ""], [[name, str(value)] for name, value in rows]), details("The recipe", listing)]
    )


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {left:02d} s"
