"""Verbs and what they are about as a sunburst: verbs on the inner ring, each with its nouns outside it.

What lives here: the geometry of two rings and their SVG. Colours are the page's (`--c0` to `--c7`); text is set along
the radius and left out where its slice is too thin for it. Knows counts. Knows no data set.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

SIDE = 760
_INNER, _MIDDLE, _OUTER = 96.0, 226.0, 360.0
_COLOURS = 8
_LETTER = 6.4  # width of a letter at 12 px


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a ring: its label, its count, and where it begins and ends, in turns from the top."""

    label: str
    count: int
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Petal:
    """A verb with its nouns; `Slice`s of nouns fill a part of the verb's, the rest are nouns that are not named."""

    verb: Slice
    nouns: tuple[Slice, ...]


def petals(pairs: Mapping[tuple[str, str], int], verbs: int = 20, nouns: int = 5) -> tuple[Petal, ...]:
    """The most frequent verbs, each with its most frequent nouns, as the Self-Instruct paper draws them.

    Shares are of the verbs that are drawn; a verb's slice is as wide as all its questions.
    """
    by_verb: dict[str, Counter[str]] = {}
    for (verb, noun), number in pairs.items():
        by_verb.setdefault(verb, Counter())[noun] += number
    drawn = sorted(by_verb, key=lambda one: (-by_verb[one].total(), one))[:verbs]
    total = sum(by_verb[one].total() for one in drawn)
    found, at = [], 0.0
    for verb in drawn:
        whole = by_verb[verb].total()
        inside, begin = [], at
        for noun, number in sorted(by_verb[verb].items(), key=lambda one: (-one[1], one[0]))[:nouns]:
            inside.append(Slice(noun, number, begin, begin + number / total))
            begin += number / total
        found.append(Petal(Slice(verb, whole, at, at + whole / total), tuple(inside)))
        at += whole / total
    return tuple(found)


def sunburst(pairs: Mapping[tuple[str, str], int], verbs: int = 20, nouns: int = 5) -> str:
    """The SVG; empty when there is nothing to draw."""
    drawn = petals(pairs, verbs, nouns)
    if not drawn:
        return ""
    return (
        f'<svg class="sunburst" viewBox="0 0 {SIDE} {SIDE}" role="img" '
        'aria-label="Verbs of questions, and the nouns they are about">' + "".join(_draw(drawn)) + "</svg>"
    )


def _draw(drawn: tuple[Petal, ...]) -> Iterator[str]:
    for number, petal in enumerate(drawn):
        colour = f"var(--c{number % _COLOURS})"
        yield _ring(petal.verb, _INNER, _MIDDLE, colour, 1.0, petal.verb.label)
        for place, noun in enumerate(petal.nouns):
            opacity = 0.36 - 0.07 * (place % 3)
            yield _ring(noun, _MIDDLE + 2, _OUTER, colour, opacity, f"{petal.verb.label} {noun.label}")
    for petal in drawn:
        yield _label(petal.verb, _INNER, _MIDDLE, "inner")
        for noun in petal.nouns:
            yield _label(noun, _MIDDLE + 2, _OUTER, "outer")


def _point(radius: float, turn: float) -> str:
    angle = 2 * math.pi * turn - math.pi / 2
    return f"{SIDE / 2 + radius * math.cos(angle):.2f},{SIDE / 2 + radius * math.sin(angle):.2f}"


def _ring(one: Slice, inner: float, outer: float, colour: str, opacity: float, name: str) -> str:
    end = min(one.end, one.begin + 0.99999)  # a whole turn would end where it begins
    large = int(end - one.begin > 0.5)
    path = (
        f"M{_point(inner, one.begin)}L{_point(outer, one.begin)}A{outer},{outer} 0 {large} 1 {_point(outer, end)}"
        f"L{_point(inner, end)}A{inner},{inner} 0 {large} 0 {_point(inner, one.begin)}Z"
    )
    return (
        f'<path d="{path}" style="fill:{colour};fill-opacity:{opacity:.2f}">'
        f"<title>{escape(name)}: {one.count:,}</title></path>"
    )


def _label(one: Slice, inner: float, outer: float, ring: str) -> str:
    """Text along the radius, readable from the left on both sides; none where the slice is thinner than a line."""
    middle = (one.begin + one.end) / 2
    radius = (inner + outer) / 2
    if (one.end - one.begin) * 2 * math.pi * radius < 12:
        return ""
    room = int((outer - inner - 10) / _LETTER)
    text = one.label if len(one.label) <= room else one.label[: room - 1] + "…"
    turned = 360 * middle - 90
    if 0.5 < middle < 1:
        turned += 180
    x, y = _point(radius, middle).split(",")
    return (
        f'<text class="{ring}" x="{x}" y="{y}" dy=".35em" transform="rotate({turned:.2f} {x} {y})">'
        f"{escape(text)}</text>"
    )
