"""Line charts as SVG text.

What lives here: axes with round ticks, linear or logarithmic, curves thinned to what a screen can show, a
legend. It takes numbers and names and gives a string; colours are the page's CSS variables, so a chart
follows light and dark. It does not know what is plotted, and `report.py` is its only reader.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 960, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 28, 46
COLOURS = 6
MOST_POINTS = 600
SMOOTHED_FROM = 40

CHART_STYLE = """
svg.chart{display:block;width:100%;height:auto;font-size:13px;fill:var(--soft)}
svg.chart .grid-line{stroke:var(--line);stroke-width:1}svg.chart path{fill:none;stroke-linejoin:round}
svg.chart .name{fill:var(--ink)}
""" + "".join(f".k{i}{{stroke:var(--c{i})}}.f{i}{{fill:var(--c{i})}}\n" for i in range(COLOURS))


def chart_svg(
    series: Mapping[str, Points], x_label: str, y_label: str, *, log: bool = False, smooth: float = 0.0
) -> str:
    """The chart as one `<svg>` element; a sentence in its place when there is nothing to draw."""
    drawn = {name: _usable(points, log) for name, points in series.items()}
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        return "<p>Nothing was measured.</p>"
    x_low, x_high = _span(x for points in drawn.values() for x, _ in points)
    y_low, y_high = _span(y for points in drawn.values() for _, y in points)
    y_ticks = log_ticks(y_low, y_high) if log else ticks(y_low, y_high)
    y_low, y_high = min(y_low, y_ticks[0]), max(y_high, y_ticks[-1])

    def place_x(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def place_y(y: float) -> float:
        low, high, here = (math.log(v) for v in (y_low, y_high, y)) if log else (y_low, y_high, y)
        return HEIGHT - BOTTOM - (here - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for value in y_ticks:
        y = place_y(value)
        parts.append(
            f'<line class="grid-line" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>'
        )
    for value in ticks(x_low, x_high, 8):
        if x_low <= value <= x_high:
            parts.append(
                f'<text x="{place_x(value):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
                f"{_number(value)}</text>"
            )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    for number, (name, points) in enumerate(drawn.items()):
        colour = number % COLOURS
        lines = [(points, 1.0, 2)]
        if smooth and len(points) >= SMOOTHED_FROM:
            lines = [(points, 0.3, 1), (running_mean(points, smooth), 1.0, 2)]
        for line, opacity, width in lines:
            parts.append(_curve([(place_x(x), place_y(y)) for x, y in thin(line)], colour, opacity, width))
        last = lines[-1][0][-1]
        parts.append(
            f'<circle class="f{colour}" cx="{place_x(last[0]):.1f}" cy="{place_y(last[1]):.1f}" r="3">'
            f"<title>{escape(name)}: {_number(last[1])} at {_number(last[0])}</title></circle>"
        )
    if len(drawn) > 1:
        parts.append(_legend(list(drawn)))
    label = escape(f"{y_label} over {x_label}: {', '.join(drawn)}", quote=True)
    opening = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
    return f"{opening}{''.join(parts)}</svg>"


def _usable(points: Points, log: bool) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log)]


def _span(values: object) -> tuple[float, float]:
    """The smallest and largest of some numbers, apart from each other even when the numbers are not."""
    numbers = list(values)  # type: ignore[call-overload]
    low, high = min(numbers), max(numbers)
    if low == high:
        pad = abs(low) * 0.1 or 1.0
        return (low - pad, high + pad) if low != 1 else (0.5, 1.5)
    return low, high


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that cover `low` to `high`."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis that cover `low` to `high`: every power of ten, with 2 and 5 in
    short spans.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    marks = (1, 2, 5) if last - first <= 3 else (1,)
    every = [m * 10.0**power for power in range(first - 1, last + 2) for m in marks]
    below = [value for value in every if value <= low] or every[:1]
    above = [value for value in every if value >= high] or every[-1:]
    return [value for value in every if below[-1] <= value <= above[0]]


def thin(points: Points, most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most about `most` points: of every run of points the lowest and the highest, so that a spike stays
    visible.
    """
    if len(points) <= most:
        return list(points)
    size = math.ceil(2 * len(points) / most)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        run = points[start : start + size]
        kept += sorted({min(run, key=lambda p: p[1]), max(run, key=lambda p: p[1])})
    if kept[-1] != points[-1]:
        kept.append(points[-1])
    return kept


def running_mean(points: Points, weight: float) -> list[tuple[float, float]]:
    """An exponential mean of the past, without the pull of its start."""
    mean, mass = 0.0, 0.0
    smoothed = []
    for x, y in points:
        mean, mass = weight * mean + (1 - weight) * y, weight * mass + (1 - weight)
        smoothed.append((x, mean / mass))
    return smoothed


def _curve(places: Points, colour: int, opacity: float, width: int) -> str:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return f'<path class="k{colour}" d="{path}" stroke-width="{width}" stroke-opacity="{opacity}"/>'


def _legend(names: Sequence[str]) -> str:
    widths = [28 + 7.5 * len(name) for name in names]
    x = WIDTH - RIGHT - sum(widths)
    parts = []
    for number, (name, width) in enumerate(zip(names, widths, strict=True)):
        parts.append(
            f'<rect class="f{number % COLOURS}" x="{x:.0f}" y="{TOP - 20}" width="12" height="4" rx="2"/>'
            f'<text class="name" x="{x + 18:.0f}" y="{TOP - 13}">{escape(name)}</text>'
        )
        x += width
    return "".join(parts)


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e+")
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
