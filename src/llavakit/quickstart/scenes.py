"""Scenes: small pictures of named things, with the captions and boxes that COCO would give them.

A scene is one to four glyphs of Font Awesome (a cat, a key, a rocket ...), each in one of eight colours, small or
large, somewhere on a plain or shaded ground. The picture is drawn from the list of things; so are five captions in
plain English and one box a thing. Everything is a pure function of a `random.Random`.

This room draws and captions. It knows nothing of questions, teachers or models.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PICTURE_SIZE = 96
SMALL, LARGE = (24, 29), (34, 40)
CLEARANCE = 3  # pixels kept free between two boxes
MOST_THINGS = 4

# name in our captions -> name of the glyph in Font Awesome's metadata
GLYPHS = {
    "cat": "cat", "dog": "dog", "horse": "horse", "fish": "fish", "frog": "frog", "spider": "spider",
    "bird": "dove", "hippo": "hippo", "tree": "tree", "leaf": "leaf", "sun": "sun", "moon": "moon",
    "star": "star", "cloud": "cloud", "snowflake": "snowflake", "fire": "fire", "car": "car-side", "bus": "bus",
    "truck": "truck", "bicycle": "bicycle", "plane": "plane", "rocket": "rocket", "helicopter": "helicopter",
    "ship": "ship", "house": "house", "church": "church", "key": "key", "bell": "bell", "umbrella": "umbrella",
    "book": "book", "camera": "camera", "anchor": "anchor", "hammer": "hammer", "trophy": "trophy",
    "guitar": "guitar", "heart": "heart", "crown": "crown", "apple": "apple-whole", "carrot": "carrot",
    "ghost": "ghost",
}  # fmt: skip
NAMES = tuple(GLYPHS)
PLURALS = {"fish": "fish", "leaf": "leaves", "bus": "buses", "church": "churches"} | {
    name: name + "s" for name in NAMES if name not in ("fish", "leaf", "bus", "church")
}
COLOURS = {
    "red": (214, 30, 36), "orange": (247, 130, 20), "yellow": (250, 226, 40), "green": (26, 142, 52),
    "blue": (28, 68, 214), "purple": (136, 36, 172), "white": (250, 250, 250), "black": (14, 14, 14),
}  # fmt: skip
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
NUMBERS = ("zero", "one", "two", "three", "four")


@dataclass(frozen=True, slots=True)
class Thing:
    """One glyph of a scene. The box is (x, y, width, height) in pixels, as COCO writes it."""

    name: str
    colour: str
    size: str
    box: tuple[int, int, int, int]

    @property
    def centre(self) -> tuple[float, float]:
        x, y, width, height = self.box
        return x + width / 2, y + height / 2

    @property
    def row(self) -> str:
        return ROWS[min(2, int(self.centre[1] * 3 // PICTURE_SIZE))]

    @property
    def column(self) -> str:
        return COLUMNS[min(2, int(self.centre[0] * 3 // PICTURE_SIZE))]

    @property
    def place(self) -> str:
        """ "top left" ... "bottom right"; the very centre is "middle centre"."""
        return f"{self.row} {self.column}"

    @property
    def phrase(self) -> str:
        return f"{article(self.size)} {self.size} {self.colour} {self.name}"


@dataclass(frozen=True, slots=True)
class Scene:
    """Things in the order they were placed, and the ground as (kind, first colour, second colour)."""

    things: tuple[Thing, ...]
    ground: tuple[str, tuple[int, int, int], tuple[int, int, int]]
    shades: tuple[tuple[int, int, int], ...]


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def held_out(name: str, colour: str) -> bool:
    """Whether this object and colour are kept apart in training: one colour of every object, five pairs a colour."""
    return NAMES.index(name) % len(COLOURS) == list(COLOURS).index(colour)


def draw_scene_plan(
    rng: random.Random,
    *,
    novel: bool = False,
    count: int | None = None,
    extents: tuple[tuple[int, int], tuple[int, int]] = (SMALL, LARGE),
) -> Scene:
    """Choose the things of a scene.

    Args:
        novel: the first thing is a held-out pair of object and colour; without it no held-out pair occurs.
        count: how many things; at random from one to four when None.
        extents: the least and most pixels of a small and of a large thing's longer side.
    """
    wanted = count or rng.randint(1, MOST_THINGS)
    repeat = rng.random() < 0.45  # scenes with several of a kind, or counting would only ever answer "one"
    things: list[Thing] = []
    name = rng.choice(NAMES)
    while len(things) < wanted:
        if not (repeat and things and rng.random() < 0.75):
            name = rng.choice(NAMES)
        apart = novel and not things
        colour = rng.choice([c for c in COLOURS if held_out(name, c) == apart])
        thing = _place(rng, name, colour, things, extents)
        if thing is None:
            things = []  # no room left: begin again rather than settle for fewer
            continue
        things.append(thing)
    grey = rng.randint(95, 190)
    first, second = (_near(rng, (grey, grey, grey), 22) for _ in range(2))
    ground = rng.choice(("plain", "plain", "across", "down"))
    shades = tuple(_near(rng, COLOURS[thing.colour], 9) for thing in things)
    return Scene(tuple(things), (ground, first, second), shades)


def _place(
    rng: random.Random,
    name: str,
    colour: str,
    others: Sequence[Thing],
    extents: tuple[tuple[int, int], tuple[int, int]],
) -> Thing | None:
    for _ in range(30):
        size = rng.choice(("small", "large"))
        extent = rng.randint(*extents[size == "large"])
        height, width = _glyph(name, extent).shape
        x, y = rng.randint(1, PICTURE_SIZE - width - 1), rng.randint(1, PICTURE_SIZE - height - 1)
        thing = Thing(name, colour, size, (x, y, width, height))
        if all(_apart(thing.box, other.box) for other in others):
            return thing
    return None


def _apart(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return (
        a[0] + a[2] + CLEARANCE <= b[0] or b[0] + b[2] + CLEARANCE <= a[0]
        or a[1] + a[3] + CLEARANCE <= b[1] or b[1] + b[3] + CLEARANCE <= a[1]
    )  # fmt: skip


def _near(rng: random.Random, colour: tuple[int, int, int], spread: int) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, value + rng.randint(-spread, spread))) for value in colour)
    return red, green, blue


@lru_cache(maxsize=1)
def _font_files() -> tuple[str, dict[str, str]]:
    root = files("fontawesomefree") / "static" / "fontawesomefree"
    icons = json.loads((root / "metadata" / "icons.json").read_text("utf-8"))
    return str(root / "webfonts" / "fa-solid-900.ttf"), {
        name: icons[glyph]["unicode"] for name, glyph in GLYPHS.items()
    }


@lru_cache(maxsize=len(NAMES) * 24)
def _glyph(name: str, extent: int) -> np.ndarray:
    """The glyph's coverage in 0..1, cut to its ink, its longer side `extent` pixels: float32 (height, width)."""
    path, codes = _font_files()
    font = ImageFont.truetype(path, 160)
    canvas = Image.new("L", (320, 320))
    ImageDraw.Draw(canvas).text((40, 40), chr(int(codes[name], 16)), fill=255, font=font)
    ink = canvas.crop(canvas.getbbox())
    scale = extent / max(ink.size)
    ink = ink.resize(
        (max(1, round(ink.width * scale)), max(1, round(ink.height * scale))), Image.Resampling.LANCZOS
    )
    return np.asarray(ink, dtype=np.float32) / 255


def paint(scene: Scene, scale: int = 1) -> np.ndarray:
    """The scene's pixels, `scale` times as many each way as it was planned in: uint8 (side, side, 3)."""
    side = scale * PICTURE_SIZE
    kind, first, second = scene.ground
    a, b = (np.asarray(colour, dtype=np.float32) for colour in (first, second))
    ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None] * (0.0 if kind == "plain" else 1.0)
    line = a + (b - a) * ramp
    canvas = np.broadcast_to(line[:, None] if kind == "down" else line[None], (side, side, 3)).copy()
    for thing, shade in zip(scene.things, scene.shades, strict=True):
        x, y, width, height = thing.box
        cover = _glyph(thing.name, scale * max(width, height))[..., None]
        spot = canvas[scale * y :, scale * x :][: cover.shape[0], : cover.shape[1]]
        spot += (np.asarray(shade, dtype=np.float32) - spot) * cover
    return canvas.round().astype(np.uint8)


def captions(scene: Scene, rng: random.Random) -> list[str]:
    """Five captions, as five people would write them; the first two mention everything, with places."""
    things = list(scene.things)
    rng.shuffle(things)
    full = [f"{thing.phrase} at the {thing.place}" for thing in things]
    reading = [f"{thing.phrase} at the {thing.place}" for thing in reading_order(things)]
    plain = [f"{article(thing.colour)} {thing.colour} {thing.name}" for thing in things]
    return [
        sentence(join(reading)),
        sentence(rng.choice(("there is ", "a picture of ", "we see ")) + join(full)),
        sentence(join(plain)),
        sentence(rng.choice(("a picture with ", "a scene with ", "an image of ")) + tally(things)),
        sentence(rng.choice(full)),
    ]


def reading_order(things: Sequence[Thing]) -> list[Thing]:
    """Ninth by ninth from the top left; within a ninth from the top, then from the left."""
    return sorted(
        things, key=lambda t: (ROWS.index(t.row), COLUMNS.index(t.column), t.centre[1], t.centre[0])
    )


def tally(things: Sequence[Thing]) -> str:
    """ "two cats and a key": kinds with their counts, in the order of first mention."""
    kinds = list(dict.fromkeys(thing.name for thing in things))
    counts = [sum(thing.name == kind for thing in things) for kind in kinds]
    return join(
        [
            f"{article(kind)} {kind}" if n == 1 else f"{NUMBERS[n]} {PLURALS[kind]}"
            for kind, n in zip(kinds, counts, strict=True)
        ]
    )


def join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def sentence(words: str) -> str:
    return words[0].upper() + words[1:] + "."


def scenes(seed: str, count: int, *, novel: bool = False) -> Iterator[tuple[Scene, random.Random]]:
    """`count` scenes and, with each, the random numbers that follow its drawing: a pure function of the seed."""
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        yield draw_scene_plan(rng, novel=novel), rng
