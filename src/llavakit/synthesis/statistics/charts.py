"""Counts as bars and lengths as a histogram, in HTML and SVG.

Text is escaped here. Colours are the page's. Knows numbers. Knows no data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape

from llavakit.synthesis.statistics.counting import quantiles, ranked

BARS = 15
_BINS = 24
_WIDTH, _HEIGHT, _BELOW = 420, 150, 22


def bars(
    title: str,
    counts: Mapping[str, int],
    *,
    note: str = "",
    of: int | None = None,
    most: int = BARS,
    colour: int = 0,
) -> str:
    """A figure of the most frequent, the rest added up in one line below; empty when there is nothing to show.

    of: what shares are of; all that is counted when None.
    """
    if not counts:
        return ""
    shown = ranked(counts)
    rest = shown[most:]
    largest = shown[0][1]
    total = sum(counts.values()) if of is None else of
    lines = "".join(
        f'<tr><th scope="row">{escape(name) or "(nothing)"}</th>'
        f'<td class="bar"><span style="width:{100 * number / largest:.2f}%;background:var(--c{colour})"></span></td>'
        f'<td class="n">{number:,}</td><td class="n soft">{number / total:.1%}</td></tr>'
        for name, number in shown[:most]
    )
    more = f"<p class=soft>and {len(rest):,} others, {sum(n for _, n in rest):,} together</p>" if rest else ""
    return _figure(title, f'<table class="bars"><tbody>{lines}</tbody></table>{more}', note)


def histogram(title: str, lengths: Counter[int], unit: str, *, colour: int = 0) -> str:
    """A figure of lengths up to the 99th percentile, with the share beyond it told."""
    if not lengths:
        return ""
    total = sum(lengths.values())
    reached, last = 0, 0
    for length in sorted(lengths):
        reached += lengths[length]
        last = length
        if reached >= 0.99 * total:
            break
    step = max(1, -(-(last + 1) // _BINS))
    found = Counter({one // step: 0 for one in range(0, last + 1, step)})
    for length, number in lengths.items():
        if length <= last:
            found[length // step] += number
    high = max(found.values())
    wide = _WIDTH / len(found)
    drawn = "".join(
        f'<rect x="{place * wide:.2f}" y="{_HEIGHT * (1 - number / high):.2f}" width="{max(1.0, wide - 1.5):.2f}" '
        f'height="{_HEIGHT * number / high:.2f}" style="fill:var(--c{colour})"><title>'
        f"{_range(place * step, step)} {escape(unit)}: {number:,}</title></rect>"
        for place, number in sorted(found.items())
    )
    marks = "".join(
        f'<text x="{x:.1f}" y="{_HEIGHT + 16}" text-anchor="{anchor}">{value}</text>'
        for value, x, anchor in (
            (0, 0.0, "start"),
            (len(found) // 2 * step, len(found) // 2 * wide + wide / 2, "middle"),
            (last, float(_WIDTH), "end"),
        )
    )
    described = quantiles(lengths)
    note = (
        f"{unit}: mean {described['mean']:.1f}, median {described['p50']:.0f}, "
        f"90 percent between {described['p5']:.0f} and {described['p95']:.0f}, longest {described['longest']:,.0f}"
    )
    svg = (
        f'<svg class="histogram" viewBox="0 0 {_WIDTH} {_HEIGHT + _BELOW}" role="img" '
        f'aria-label="{escape(title)}">{drawn}{marks}</svg>'
    )
    return _figure(title, svg, note)


def _range(begin: int, step: int) -> str:
    return str(begin) if step == 1 else f"{begin} to {begin + step - 1}"


def _figure(title: str, content: str, note: str) -> str:
    told = f'<p class="soft">{escape(note)}</p>' if note else ""
    return f"<figure><figcaption>{escape(title)}</figcaption>{content}{told}</figure>"
