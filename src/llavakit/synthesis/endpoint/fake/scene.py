"""What a fake endpoint sees: the captions, boxes and words in a prompt, and plain sentences about them.

A prompt that holds none of them gives an empty scene, about which something can still be said.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

_BOX = re.compile(r"^(.{1,120}?): \[\s*([\d.]+)\s*,\s*([\d.]+)\s*,\s*([\d.]+)\s*,\s*([\d.]+)\s*\]$")
_HEADING = re.compile(r"^[A-Z][\w ]{0,40}:$")
_NUMBERS = ("no", "one", "two", "three", "four", "five")
_PLURALS = {"person": "people", "man": "men", "woman": "women", "child": "children", "sheep": "sheep",
            "mouse": "mice", "knife": "knives"}  # fmt: skip
_TAKEN_FOR_PLURAL = ("skis", "scissors")

Corners = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Scene:
    """Captions, (category, corners) of the boxes, and words that stand in the picture."""

    captions: tuple[str, ...] = ()
    boxes: tuple[tuple[str, Corners], ...] = ()
    words: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many boxes each category has, in the order of appearance."""
        return dict(Counter(category for category, _ in self.boxes))

    @property
    def singles(self) -> list[tuple[str, Corners]]:
        """The boxes that are alone of their category."""
        counts = self.counts
        return [(category, box) for category, box in self.boxes if counts[category] == 1]


def read_scene(text: str) -> Scene:
    """Read a prompt's symbols: captions a line each, `category: [l, t, r, b]` lines, words in quotation marks."""
    captions: list[str] = []
    boxes: list[tuple[str, Corners]] = []
    words: list[str] = []
    section = ""
    for line in (line.strip() for line in text.splitlines()):
        found = _BOX.match(line)
        named = found[1] if found else line
        if not line:
            section = "" if section == "The picture" else section
        elif _HEADING.match(line):
            section = line[:-1]
        elif named.startswith('"') and named.endswith('"') and len(named) > 2:
            words.append(named[1:-1])
        elif found and section != "Regions":
            left, top, right, bottom = (float(found[number]) for number in (2, 3, 4, 5))
            boxes.append((named, (left, top, right, bottom)))
        elif not found and section in ("", "The picture") and not boxes:
            captions.append(line[0].upper() + line[1:] + ("" if line.endswith((".", "!", "?")) else "."))
    return Scene(tuple(captions), tuple(boxes), tuple(words))


def with_article(category: str) -> str:
    """`a dog`, `an oven`; a name that reads as a plural stays as it is."""
    if category in _TAKEN_FOR_PLURAL:
        return category
    return f"{'an' if category[:1].lower() in 'aeiou' else 'a'} {category}"


def plural(category: str) -> str:
    ahead, _, last = category.rpartition(" ")
    if last in _PLURALS:
        last = _PLURALS[last]
    elif last in _TAKEN_FOR_PLURAL:
        pass
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{ahead} {last}".strip()


def counted(category: str, number: int) -> str:
    """`one dog`, `three people`, `several cars`."""
    if number == 1:
        return with_article(category)
    return f"{_NUMBERS[number] if number < len(_NUMBERS) else 'several'} {plural(category)}"


def number_word(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else "several"


def place(box: Corners) -> str:
    """Where a box stands, in words."""
    across, down = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    side = "on the left" if across < 0.38 else "on the right" if across > 0.62 else "in the middle"
    height = ", near the top" if down < 0.3 else ", near the bottom" if down > 0.7 else ""
    return side + height


def sides(scene: Scene) -> list[tuple[str, str]]:
    """Pairs (left one, right one) of single things that stand clearly apart."""
    return [
        (one, other)
        for one, a in scene.singles
        for other, b in scene.singles
        if a[2] < b[0] + 0.02 and (b[0] + b[2]) - (a[0] + a[2]) > 0.3
    ]
