"""The page about a data set, and `stats.json` beside it.

One static HTML file: figures of everything that was counted, and a viewer in which samples are leafed through beside
their picture. Style and script stand in the files `page.css` and `page.js` of this room and are put into the page;
nothing is fetched. Knows what was counted; counts nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.synthesis.statistics.charts import bars, histogram
from llavakit.synthesis.statistics.counting import Statistics, Survey, as_values
from llavakit.synthesis.statistics.sunburst import sunburst
from llavakit.synthesis.statistics.viewing import Album, view

PAGE, VALUES = "stats.html", "stats.json"


@dataclass(frozen=True, slots=True)
class Written:
    """page, values: the two files. shown: samples on the page. missing: those of them whose picture is not there."""

    page: Path
    values: Path
    shown: int
    missing: int


def write_page(
    found: Survey, folder: Path, title: str, pictures: Path, *, embed: bool = False, force: bool = False
) -> Written:
    """Writes `stats.html` and `stats.json` below `folder`.

    pictures: the folder that the names of pictures are relative to. embed: put small copies into the page, so that it
    can be passed on alone. Raises LlavakitError when a file would be replaced without `force`, or nothing was read.
    """
    if not found.statistics.kept + found.statistics.rejected:
        told = ", ".join(f"{number} {reason}" for reason, number in found.statistics.problems.items())
        raise LlavakitError(f"{title}: not one sample can be read ({told or 'there are no rows'}).")
    folder.mkdir(parents=True, exist_ok=True)
    page, values = folder / PAGE, folder / VALUES
    for path in (page, values):
        if path.exists() and not force:
            raise LlavakitError(f"{path} exists already and is not replaced unless you say --force")
    samples, missing = view([*found.kept, *found.rejected], Album(pictures, folder, embed))
    _put(page, build(found, title, samples, missing))
    _put(values, json.dumps(as_values(found.statistics), indent=1, ensure_ascii=True) + "\n")
    return Written(page, values, len(samples), missing)


def _put(path: Path, text: str) -> None:
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text(text, "utf-8", "replace")
    partial.replace(path)


def build(found: Survey, title: str, samples: Sequence[dict[str, Any]], missing: int) -> str:
    """The page's HTML."""
    account = found.statistics
    room = files("llavakit.synthesis.statistics")
    content = json.dumps(samples, ensure_ascii=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":  # nothing in a sample may end the script
        content = content.replace(letter, f"\\u{ord(letter):04x}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{(room / 'page.css').read_text('utf-8')}</style></head><body>"
        f"<header><h1>{escape(title)}</h1>{_tiles(account)}"
        '<nav><a href="#questions">Questions</a><a href="#answers">Answers</a><a href="#origin">Origin</a>'
        '<a href="#samples">Samples</a></nav></header><main>'
        f"{_questions(account)}{_answers(account)}{_origin(account)}{_viewer(found, len(samples), missing)}</main>"
        f'<script type="application/json" id="data">{content}</script>'
        f"<script>{(room / 'page.js').read_text('utf-8')}</script></body></html>\n"
    )


def _tiles(account: Statistics) -> str:
    total = account.kept + account.rejected
    values = {
        "samples kept": f"{account.kept:,}",
        "pictures": f"{account.pictures:,}",
        "questions": f"{account.exchanges:,}",
        "verbs with nouns": f"{len(account.asked):,}",
    }
    if account.rejected:
        values["replies rejected"] = f"{account.rejected:,} ({account.rejected / total:.1%})"
    if account.priced:
        values["cost, as priced"] = f"{account.cost:,.2f}"
    if account.problems:
        values["rows not read"] = f"{account.problems.total():,}"
    tiles = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in values.items())
    return f'<div class="tiles">{tiles}</div>'


def _section(name: str, title: str, content: str) -> str:
    return f'<section id="{name}"><h2>{title}</h2>{content}</section>'


def _grid(*figures: str) -> str:
    return f'<div class="figures">{"".join(figures)}</div>'


def _questions(account: Statistics) -> str:
    drawn = sunburst(account.asked)
    paired = account.asked.total()
    told = (
        f"{paired:,} of {paired + account.without_pair:,} questions have a verb with a noun; the twenty most frequent "
        "verbs are drawn, each with up to five nouns. Point at a slice for its count."
    )
    burst = (
        f'<figure class="wide"><figcaption>What questions ask</figcaption>{drawn}'
        f'<p class="soft">{told}</p></figure>'
    )
    repeated = f"{account.repeated_questions:,} questions repeat an earlier one word for word"
    return _section(
        "questions",
        "Questions",
        (burst if drawn else "")
        + _grid(
            bars("Types of questions", account.types, colour=1),
            bars("How they begin", account.starts, note=repeated, colour=1),
            histogram("Length of questions", account.question_words, "words", colour=1),
            histogram("Questions in a sample", account.turns, "questions", colour=1),
        ),
    )


def _answers(account: Statistics) -> str:
    return _section(
        "answers",
        "Answers and what they name",
        _grid(
            histogram("Length of answers", account.answer_words, "words", colour=2),
            bars("Nouns", account.nouns, note="samples whose answers name it", of=account.kept, colour=2),
            bars(
                "Words of place",
                account.spatial,
                note="samples whose answers use it",
                of=account.kept,
                colour=2,
            ),
            bars("Objects with a box", account.boxes, note="boxes of the samples that were kept", colour=3),
        ),
    )


def _origin(account: Statistics) -> str:
    return _section(
        "origin",
        "Where samples are from, and what was kept",
        _grid(
            bars("Kinds kept", account.kinds, colour=0),
            bars("Kinds rejected", account.rejected_kinds, colour=5),
            bars(
                "Rejected for",
                account.reasons,
                note="a reply can have several reasons",
                of=account.rejected,
                colour=5,
            ),
            bars("Noted", account.notes, note="of all replies", of=account.kept + account.rejected, colour=4),
            bars("Teachers", account.teachers, colour=0),
            bars("Data sets of the pictures", account.sources, colour=0),
            bars("Licences of the pictures", account.licences, colour=0),
            bars("Rows not read", Counter(account.problems), colour=5),
        ),
    )


def _viewer(found: Survey, shown: int, missing: int) -> str:
    total = found.statistics.kept + found.statistics.rejected
    chosen = (
        f"All {total:,} samples are here."
        if shown == total
        else f"{len(found.kept):,} of {found.statistics.kept:,} kept and {len(found.rejected):,} of "
        f"{found.statistics.rejected:,} rejected samples are here, chosen by the hash of their id."
    )
    if missing:
        chosen += f" The picture of {missing:,} of them is not there; name its folder with --images."
    controls = (
        '<form id="filter" onsubmit="return false"><label>Verdict <select id="verdict"><option value="">all</option>'
        '<option value="kept">kept</option><option value="rejected">rejected</option></select></label>'
        '<label>Kind <select id="kind"><option value="">all</option></select></label>'
        '<label>Reason <select id="reason"><option value="">any</option></select></label>'
        '<label>Text <input id="text" type="search" placeholder="words in it"></label>'
        '<label><input id="boxes" type="checkbox" checked> boxes</label></form>'
    )
    steps = (
        '<p class="steps"><button id="back" type="button" aria-label="previous sample">←</button> '
        '<span id="place" aria-live="polite"></span> '
        '<button id="on" type="button" aria-label="next sample">→</button> '
        '<span class="soft">arrow keys leaf, / goes to the text, b hides boxes</span></p>'
    )
    return _section(
        "samples",
        "Samples",
        f'<p class="soft">{escape(chosen)}</p>{controls}{steps}<noscript><p>Leafing through samples needs JavaScript.'
        '</p></noscript><article id="sample"></article>',
    )
