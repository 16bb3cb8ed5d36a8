"""Reports as one HTML file: a page of sections, tables, curves and pictures with questions and answers.

What lives here: functions from plain values to HTML, and the page they stand on. A page is self-contained
(styles, SVG and pictures are inside the file, no script, nothing is fetched), readable in light and dark, and
on paper. It may touch Pillow, to make pictures small. It does not know torch, runs, scores or where a report
is written. All text that comes in is escaped; only values of type `Html`, which these functions make, are put
on the page as they are.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image, ImageOps

from llavakit.report_chart import CHART_STYLE, chart_svg

PictureLike = Image.Image | str | Path


class Html(str):
    """Markup that is already escaped."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it. `note` is a sentence in plain text below the heading."""

    title: str
    html: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a picture: what was answered, what is true, and whether the answer is right (None: no
    verdict).
    """

    question: str
    answer: str | None = None
    truth: str | None = None
    ok: bool | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """One card: pictures (PIL or path; none for text-only conversations), a caption, and questions about
    them.
    """

    pictures: Sequence[PictureLike]
    rows: Sequence[Asked]
    caption: str = ""


def text(value: object) -> Html:
    """`value` escaped; `Html` passes unchanged. Floats have four significant digits, integers commas."""
    if isinstance(value, Html):
        return value
    if isinstance(value, float):
        return Html(f"{value:.4g}")
    if isinstance(value, int) and not isinstance(value, bool):
        return Html(f"{value:,}")
    return Html("" if value is None else escape(str(value)))


def paragraph(*sentences: object) -> Html:
    """A paragraph of plain text."""
    return Html(f"<p>{' '.join(text(sentence) for sentence in sentences)}</p>")


def join(parts: Iterable[str]) -> Html:
    """Parts one below the other."""
    return Html("\n".join(parts))


def details(summary: object, html: str, *, opened: bool = False) -> Html:
    """A part that folds away under its summary."""
    flag = " open" if opened else ""
    return Html(f"<details{flag}><summary>{text(summary)}</summary>{html}</details>")


def figures(values: Mapping[str, object]) -> Html:
    """A row of tiles, each a large value with its name: what a reader wants to see first."""
    tiles = "".join(
        f'<div class="tile"><b>{text(value)}</b><span>{text(name)}</span></div>'
        for name, value in values.items()
    )
    return Html(f'<div class="tiles">{tiles}</div>')


def table(headers: Sequence[object], rows: Iterable[Sequence[object]], *, caption: str = "") -> Html:
    """A table; columns that hold only numbers (and None) are set flush right."""
    body = [list(row) for row in rows]
    numeric = [
        any(isinstance(row[i], (int, float)) for row in body)
        and all(row[i] is None or isinstance(row[i], (int, float)) for row in body)
        for i in range(len(headers))
    ]

    def cells(tag: str, values: Sequence[object]) -> str:
        marked = zip(numeric, values, strict=True)
        return "".join(
            f"<{tag}{' class=n' if right else ''}>{text(value)}</{tag}>" for right, value in marked
        )

    lines = "".join(f"<tr>{cells('td', row)}</tr>" for row in body)
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return Html(
        f'<div class="scroll"><table>{title}<thead><tr>{cells("th", headers)}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
    *,
    log: bool = False,
    smooth: float = 0.0,
    title: str = "",
) -> Html:
    """Curves as inline SVG, one a series, in the order given.

    series: name to points (x, y), x rising; points whose y is not finite (or not positive, when `log`) are
    left out. smooth: between 0 and 1, the weight of the past in a running mean drawn over the points, which
    then stand faint.
    """
    heading = f"<figcaption>{text(title)}</figcaption>" if title else ""
    return Html(f"<figure>{heading}{chart_svg(series, x_label, y_label, log=log, smooth=smooth)}</figure>")


def picture(source: PictureLike, *, side: int = 320, alt: str = "") -> Html:
    """A picture inside the page, at most `side` pixels wide and high; a file that cannot be read shows as its
    name.
    """
    try:
        if isinstance(source, Image.Image):
            data = _encoded(source, side)
        else:
            with Image.open(source) as opened:
                data = _encoded(opened, side)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return Html(f'<span class="lost">{text(source)}: {text(error)}</span>')
    return Html(f'<img src="{data}" alt="{escape(alt, quote=True)}">')


def _encoded(image: Image.Image, side: int) -> str:
    """A data URI: PNG for small or transparent pictures, whose edges matter, JPEG for photographs."""
    image.draft("RGB", (side, side))
    image = ImageOps.exif_transpose(image)
    drawn = max(image.size) <= 128 or "A" in image.getbands() or image.mode == "P"
    image = image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    if drawn:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.convert("RGB").save(buffer, "JPEG", quality=82)
    kind = "png" if drawn else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def samples_grid(samples: Iterable[Shown], *, side: int = 320) -> Html:
    """Cards of pictures with their questions, answers and truth; marked ✓ when right, ✗ when wrong."""
    return Html(f'<div class="grid">{"".join(_card(sample, side) for sample in samples)}</div>')


def _card(sample: Shown, side: int) -> str:
    pictures = "".join(picture(one, side=side, alt=sample.caption) for one in sample.pictures)
    rows = "".join(_asked(row) for row in sample.rows)
    caption = f'<p class="caption">{text(sample.caption)}</p>' if sample.caption else ""
    shown = f'<div class="pictures">{pictures}</div>' if pictures else ""
    return f'<article class="card">{shown}{caption}<dl>{rows}</dl></article>'


def _asked(row: Asked) -> str:
    mark = {
        True: ' <i class="yes" title="right">✓</i>',
        False: ' <i class="no" title="wrong">✗</i>',
        None: "",
    }[row.ok]
    answer = "" if row.answer is None else f'<dd class="answer">{text(row.answer)}{mark}</dd>'
    truth = "" if row.truth is None else f'<dd class="truth">truth: {text(row.truth)}</dd>'
    return f"<dt>{text(row.question)}</dt>{answer}{truth}"


def page(title: str, sections: Sequence[Section], *, subtitle: str = "") -> str:
    """The whole HTML document, with a table of contents when there are more than two sections."""
    contents = "".join(
        f'<a href="#s{number}">{text(section.title)}</a>' for number, section in enumerate(sections)
    )
    body = "".join(
        f'<section id="s{number}"><h2>{text(section.title)}</h2>'
        + (f'<p class="note">{text(section.note)}</p>' if section.note else "")
        + f"{section.html}</section>"
        for number, section in enumerate(sections)
    )
    nav = f"<nav>{contents}</nav>" if len(sections) > 2 else ""
    lead = f'<p class="lead">{text(subtitle)}</p>' if subtitle else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{_STYLE}{CHART_STYLE}</style></head>"
        f"<body><header><h1>{text(title)}</h1>{lead}{nav}</header><main>{body}</main></body></html>\n"
    )


_STYLE = """
:root{color-scheme:light dark;--ground:#fbfaf8;--card:#fff;--ink:#1d2126;--soft:#636b75;--line:#e2e0db;
--link:#2f62c8;
--good:#1a7f4e;--bad:#bd3030;--c0:#2f62c8;--c1:#cf5a1c;--c2:#1a8a5a;--c3:#8648c2;--c4:#a37a00;--c5:#bf3168}
@media(prefers-color-scheme:dark){:root{--ground:#14171b;--card:#1c2026;--ink:#e6e8eb;--soft:#9aa3ae;
--line:#323841;
--link:#82aaff;--good:#56c98c;--bad:#ff8078;--c0:#82aaff;--c1:#ff9c63;--c2:#56c98c;--c3:#c79bff;
--c4:#e0bd4a;--c5:#ff86ad}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.55 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
header,main{max-width:1080px;margin:0 auto;padding:0 24px}header{padding-top:40px}main{padding-bottom:64px}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 8px;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:44px 0 12px;padding-top:14px;border-top:1px solid var(--line)}
p{margin:0 0 12px;max-width:75ch}.lead,.note{color:var(--soft)}.note{font-size:.93rem}a{color:var(--link)}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;margin-top:14px;font-size:.93rem}nav a{text-decoration:none}
nav a:hover{text-decoration:underline}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:0 0 18px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px}
.tile b{display:block;font-size:1.35rem;line-height:1.3;font-weight:600;font-variant-numeric:tabular-nums;
overflow-wrap:anywhere}.tile span{color:var(--soft);font-size:.85rem}
.scroll{overflow-x:auto;margin:0 0 18px}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums;min-width:40%}
caption{text-align:left;color:var(--soft);padding-bottom:6px}
th,td{text-align:left;padding:6px 18px 6px 0;border-bottom:1px solid var(--line);vertical-align:top;
overflow-wrap:anywhere}th{color:var(--soft);font-weight:600;white-space:nowrap}.n{text-align:right;white-space:nowrap}
figure{margin:0 0 22px;background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:14px 14px 8px}
figcaption{font-weight:600;margin:0 4px 6px}
details{margin:0 0 12px}summary{cursor:pointer;color:var(--link);margin-bottom:8px}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));gap:16px;margin-bottom:18px;align-items:start}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;overflow:hidden;
break-inside:avoid}
.pictures{display:flex;flex-wrap:wrap;gap:2px;background:var(--line)}
.pictures img{flex:1 1 40%;min-width:0;max-width:100%;max-height:280px;object-fit:contain;
background:var(--ground)}
.caption{color:var(--soft);font-size:.85rem;margin:10px 14px 0;overflow-wrap:anywhere}
dl{margin:10px 14px 14px;font-size:.92rem}
dt{font-weight:600;margin-top:8px;white-space:pre-line;overflow-wrap:anywhere}dt:first-child{margin-top:0}
dd{margin:2px 0 0;white-space:pre-line;overflow-wrap:anywhere}.truth{color:var(--soft)}
.yes,.no{font-style:normal;font-weight:700}.yes{color:var(--good)}.no,.lost{color:var(--bad)}
.lost{padding:14px;font-size:.85rem;overflow-wrap:anywhere}
code{font:.9em ui-monospace,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
@media print{body{background:#fff}.card,.tile,figure{border-color:#ccc}}
"""
