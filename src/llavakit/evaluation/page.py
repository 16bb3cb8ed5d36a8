"""A run's report as one HTML file: scores beside published ones, categories, what was noticed, and answers to look at.

Turns what `results` writes into sections of a page, with pictures; computes no score.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Question, Verdict
from llavakit.evaluation.intervals import wilson
from llavakit.evaluation.pictures import InFile, picture_bytes
from llavakit.evaluation.results import Scored
from llavakit.evaluation.writing import write_whole
from llavakit.images.pixels import open_picture
from llavakit.report import (
    Asked,
    Html,
    Section,
    Shown,
    details,
    figures,
    join,
    page,
    paragraph,
    samples_grid,
    table,
)  # fmt: skip

REPORT = "report.html"
CARDS = 40
"""Answers shown of each benchmark, half of them right where there are so many."""
LONGEST = 600

_STYLE = """<style>
.bars{display:grid;grid-template-columns:minmax(8rem,max-content) 1fr max-content;gap:6px 14px;align-items:center;
font-size:.92rem;margin:0 0 18px;font-variant-numeric:tabular-nums}
.bars .track{position:relative;height:14px;background:var(--line);border-radius:4px}
.bars .full{position:absolute;inset:0 auto 0 0;background:var(--c0);border-radius:4px}
.bars .reach{position:absolute;top:6px;height:2px;background:var(--ink)}
.filters{display:flex;flex-wrap:wrap;gap:10px;margin:0 0 14px}
.filters select,.filters input{font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);
border-radius:8px;padding:5px 10px}
.one .grid{margin:0;grid-template-columns:1fr}.one[hidden]{display:none}tr.ours td{font-weight:600}
</style>"""
_SCRIPT = """<script>
for(const part of document.querySelectorAll('.answers')){
const [verdict,category,words]=part.querySelectorAll('select,input'),count=part.querySelector('.count');
const show=()=>{let shown=0;const said=words.value.toLowerCase();
for(const one of part.querySelectorAll('.one')){
const fits=(!verdict.value||one.dataset.verdict===verdict.value)
&&(!category.value||one.dataset.category===category.value)
&&(!said||one.textContent.toLowerCase().includes(said));one.hidden=!fits;shown+=fits}
count.textContent=shown+' shown'};
for(const control of [verdict,category,words])control.addEventListener('input',show);show()}
</script>"""


def write_report(folder: Path, answered_by: Mapping[str, Any], scored: Sequence[Scored]) -> Path:
    """Writes `report.html` into a run's folder."""
    who = str(answered_by.get("model") or ", ".join(map(str, answered_by.get("answers", {}))) or "answers")
    sections = [Section("Scores", join([Html(_STYLE), _overview(scored)]), _NOTE)]
    files = list(map(str, answered_by.get("answers", {})))
    names = files if len(files) == len(scored) else [who] * len(scored)
    for one, name in zip(scored, names, strict=True):
        parts = [_beside(one, name), _figures(one), _categories(one), _noticed(one)]
        sections.append(Section(one.benchmark.title, join(part for part in parts if part)))
        sections.append(
            Section(
                f"Answers to {one.benchmark.name}",
                _answers(one),
                f"{min(CARDS, len(one.questions))} of {len(one.questions):,}, spread evenly over right and wrong.",
            )
        )
    sections.append(Section("How this was made", _made(answered_by, scored)))
    sections[-1] = Section(sections[-1].title, join([Html(sections[-1].html), Html(_SCRIPT)]))
    path = folder / REPORT
    write_whole(path, page("Evaluation", sections, subtitle=who).encode("utf-8", "replace"))
    return path


_NOTE = (
    "Each score with its 95 % interval, which tells how much another draw of such questions could change it. Published "
    "numbers stand beside it with the protocol that made them; only equal protocols can be compared."
)


def _number(value: float) -> Html:
    """Two decimals, flush right; a dash for what is undefined."""
    return Html(f'<div class="n">{value:.2f}</div>' if math.isfinite(value) else '<div class="n">–</div>')


def _head(name: str) -> Html:
    return Html(f'<div class="n">{escape(name)}</div>')


def _interval(one: Scored) -> str:
    interval = one.marked.interval
    if not math.isfinite(interval.low):
        return interval.method
    return f"{interval.low:.2f} to {interval.high:.2f}"


def _overview(scored: Sequence[Scored]) -> Html:
    tiles = {
        f"{one.benchmark.name}, {one.benchmark.headline}": f"{one.marked.score:.2f}"
        if math.isfinite(one.marked.score)
        else "–"
        for one in scored
    }
    rows = [
        [
            one.benchmark.name,
            one.benchmark.headline,
            _number(one.marked.score),
            _interval(one),
            _protocol(one),
            f"{len(one.questions):,} of {one.total:,}",
        ]
        for one in scored
    ]
    return join(
        [
            figures(tiles),
            table(["benchmark", "figure", _head("score"), "95 % interval", "protocol", "questions"], rows),
        ]
    )


def _protocol(one: Scored) -> str:
    condition = str(one.asking.get("condition", "shown"))
    told = {"blind": "picture hidden", "shuffled": "another question's picture"}.get(condition)
    part = "" if len(one.questions) == one.total else "part of the questions"
    return ", ".join(filter(None, [one.variant.protocol, told, part]))


def _beside(one: Scored, who: str) -> Html:
    """This score among published ones, best first."""
    rows: list[tuple[float, list[object]]] = [
        (
            published.value,
            [published.model, _number(published.value), "", published.protocol, published.source],
        )
        for published in one.benchmark.published
    ]
    mine = [
        Html(f"<b>{escape(who)}</b>"),
        _number(one.marked.score),
        _interval(one),
        _protocol(one),
        "this run",
    ]
    rows.append((one.marked.score if math.isfinite(one.marked.score) else -math.inf, list(mine)))
    rows.sort(key=lambda row: -row[0])
    return table(
        ["model", _head(one.benchmark.headline), "95 % interval", "protocol", "source"],
        [row for _, row in rows],
    )


def _figures(one: Scored) -> Html:
    rows = [[name, _number(value), "this protocol"] for name, value in one.marked.figures.items()]
    rows += [[name, _number(value), "for comparison"] for name, value in one.marked.others.items()]
    return details("All figures", table(["figure", _head("value"), "rule"], rows), opened=len(rows) <= 8)


def _categories(one: Scored) -> Html:
    """The mean credit of every category as bars, with Wilson's interval."""
    grouped: dict[str, list[float]] = {}
    for verdict in one.marked.verdicts:
        if verdict.question.category and math.isfinite(verdict.credit):
            grouped.setdefault(verdict.question.category, []).append(verdict.credit)
    if len(grouped) < 2:
        return Html("")
    lines = []
    for name, credits in grouped.items():
        mean = math.fsum(credits) / len(credits)
        low, high = wilson(math.fsum(credits), len(credits))
        lines.append(
            f'<span>{escape(name)}</span><span class="track"><span class="full" style="width:{100 * mean:.2f}%">'
            f'</span><span class="reach" style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></span></span>'
            f"<span>{100 * mean:.2f} ({len(credits):,})</span>"
        )
    title = paragraph(
        "Mean credit in percent by category; the line is the 95 % interval, in brackets the number of questions."
    )
    return join([title, Html(f'<div class="bars">{"".join(lines)}</div>')])


def _noticed(one: Scored) -> Html:
    rows: list[list[object]] = [[what, number] for what, number in one.counts.items()]
    rows += [[f"marked: {what}", number] for what, number in one.marked.notes.items()]
    if not rows:
        return paragraph("Nothing odd was noticed in the answers.")
    return table(["noticed in the answers", "how many"], rows)


def _answers(one: Scored) -> Html:
    cards = []
    for verdict in _spread(one.marked.verdicts):
        question = verdict.question
        answer = printable(one.answers[question.id]) if one.answers[question.id].strip() else "(empty)"
        if verdict.parsed is not None and verdict.parsed != one.answers[question.id]:
            answer += f"\nunderstood as: {printable(verdict.parsed)}"
        for said in one.judge_replies.get(question.id, ()):
            answer += f"\nthe judge: {printable(said)}"
        if verdict.note:
            answer += f"\nnote: {verdict.note}"
        asked = Asked(printable(question.prompt), answer, printable(_truth(question)), _ok(verdict))
        shown = Shown(
            shown_pictures(question), [asked], ", ".join(filter(None, [question.id, question.category]))
        )
        word = {True: "right", False: "wrong", None: "in part"}[_ok(verdict)]
        word = word if math.isfinite(verdict.credit) else "no mark"
        cards.append(
            f'<div class="one" data-verdict="{word}" data-category="{escape(question.category, quote=True)}">'
            f"{samples_grid([shown])}</div>"
        )
    names = dict.fromkeys(verdict.question.category for verdict in one.marked.verdicts)
    categories = "".join(f"<option>{escape(name)}</option>" for name in names if name)
    filters = (
        '<div class="filters"><select><option value="">every verdict</option><option>right</option>'
        "<option>wrong</option><option>in part</option><option>no mark</option></select>"
        '<select><option value="">every category</option>'
        f'{categories}</select><input type="search" placeholder="words"><span class="count"></span></div>'
    )
    return Html(f'<div class="answers">{filters}<div class="grid">{"".join(cards)}</div></div>')


def _spread(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """At most CARDS verdicts, of the right and of the others evenly, in the order of the questions."""
    right = [place for place, verdict in enumerate(verdicts) if verdict.credit == 1]
    rest = [place for place, verdict in enumerate(verdicts) if verdict.credit != 1]
    room_right = min(len(right), max(CARDS // 2, CARDS - len(rest)))
    room_rest = min(len(rest), CARDS - room_right)
    chosen = [
        places[step * len(places) // room]
        for places, room in ((right, room_right), (rest, room_rest))
        for step in range(room)
    ]
    return [verdicts[place] for place in sorted(chosen)]


def _ok(verdict: Verdict) -> bool | None:
    return {1.0: True, 0.0: False}.get(verdict.credit)


def _truth(question: Question) -> str:
    return question.truth if isinstance(question.truth, str) else json.dumps(question.truth, default=str)


def shown_pictures(question: Question) -> list[Path | Image.Image]:
    """The pictures that can be shown; a file that cannot be read is shown by its name."""
    found: list[Path | Image.Image] = []
    for source in question.pictures:
        if isinstance(source, InFile):
            found.append(source.path)
            continue
        try:
            found.append(open_picture(picture_bytes(source)))
        except LlavakitError:
            found.append(Path("a picture that cannot be read"))
    return found


def printable(text: str) -> str:
    """The text as a page can show it: control characters escaped, and no longer than a card bears."""
    cut = text[:LONGEST]
    shown = "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1]
        for character in cut
    )
    return shown if len(text) <= LONGEST else f"{shown}… ({len(text):,} characters)"


def _made(answered_by: Mapping[str, Any], scored: Sequence[Scored]) -> Html:
    parts = [table(["answered by", ""], [[name, _plain(value)] for name, value in answered_by.items()])]
    for one in scored:
        result = one.result()
        rows: list[Sequence[object]] = [
            *([name, _plain(value)] for name, value in one.asking.items()),
            *([f"hash of {name}", _plain(value)] for name, value in result["hashes"].items()),
            ["interval", f"{one.marked.interval.method}, {one.marked.interval.units:,} units, "
             f"{one.marked.interval.draws:,} draws"],
            *([f"judge: {name}", _plain(value)] for name, value in (one.judge or {}).items()),
        ]  # fmt: skip
        parts.append(details(one.benchmark.name, table(["", ""], rows)))
    return join(parts)


def _plain(value: Any) -> object:
    return value if isinstance(value, str | int) or value is None else json.dumps(value, default=str)
