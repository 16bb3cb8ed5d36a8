"""Questions about a scene and their true answers, in short plain English.

Every writer takes the things of a scene and random numbers and gives a question with its answer, or None where the
scene leaves the question without one clear answer (the colour of "the cat" where there are two cats). The rule-based
teacher, the language model's first dialogues and the held-out examination all ask through this one list.

This room knows things. It knows nothing of pictures, captions, models or formats.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from llavakit.quickstart.scenes import (
    COLOURS,
    COLUMNS,
    MOST_THINGS,
    NAMES,
    NUMBERS,
    PICTURE_SIZE,
    PLURALS,
    ROWS,
    Thing,
    article,
    join,
    reading_order,
    sentence,
    tally,
)  # fmt: skip

Asked = tuple[str, str]
Writer = Callable[[Sequence[Thing], random.Random], Asked | None]

APART = (
    PICTURE_SIZE / 6
)  # centres closer than this along a direction are neither left nor right, above nor below


def unique(things: Sequence[Thing]) -> list[Thing]:
    """Things that can be called "the cat": the only ones of their name."""
    names = [thing.name for thing in things]
    return [thing for thing in things if names.count(thing.name) == 1]


def presence(things: Sequence[Thing], rng: random.Random) -> Asked | None:
    """ "Is there a cat?", yes and no equally often."""
    shown = {thing.name for thing in things}
    yes = rng.random() < 0.5
    name = rng.choice(sorted(shown) if yes else [n for n in NAMES if n not in shown])
    ending = rng.choice(("", " in the picture", " here"))
    return f"Is there {article(name)} {name}{ending}?", "Yes" if yes else "No"


def presence_of_pair(things: Sequence[Thing], rng: random.Random) -> Asked | None:
    """ "Is there a red cat?"; the false ones swap the colour or the name of something shown."""
    thing = rng.choice(list(things))
    name, colour = thing.name, thing.colour
    pairs = {(other.name, other.colour) for other in things}
    yes = rng.random() < 0.5
    while not yes and (name, colour) in pairs:
        if rng.random() < 0.5:
            colour = rng.choice([*COLOURS, *(other.colour for other in things)])
        else:
            name = rng.choice([*NAMES, *(other.name for other in things)])
    return f"Is there {article(colour)} {colour} {name}?", "Yes" if yes else "No"


def colour(things: Sequence[Thing], rng: random.Random) -> Asked | None:
    candidates = unique(things)
    if not candidates:
        return None
    thing = rng.choice(candidates)
    return rng.choice(("What colour is the {}?", "Which colour does the {} have?")).format(
        thing.name
    ), thing.colour


def counting(things: Sequence[Thing], rng: random.Random) -> Asked | None:
    """How many things, or how many of a kind: of a kind that is shown."""
    if rng.random() < 0.5:
        return rng.choice(("How many things are there?", "How many things do you see?")), NUMBERS[len(things)]
    name = rng.choice(sorted({thing.name for thing in things}))
    number = sum(thing.name == name for thing in things)
    return f"How many {PLURALS[name]} are there?", NUMBERS[number]


def counting_colour(things: Sequence[Thing], rng: random.Random) -> Asked | None:
    colour = rng.choice(list(COLOURS)) if rng.random() < 0.3 else rng.choice(list(things)).colour
    number = sum(thing.colour == colour for thing in things)
    return f"How many {colour} things are there?", NUMBERS[number]


def directions(a: Thing, b: Thing) -> list[tuple[str, str]]:
    """The directions in which `a` clearly lies from `b`, each with its opposite."""
    found = []
    for axis, words, thirds in (
        (0, ("to the left of", "to the right of"), COLUMNS),
        (1, ("above", "below"), ROWS),
    ):
        third_a, third_b = ((t.column if axis == 0 else t.row) for t in (a, b))
        if third_a == third_b or abs(a.centre[axis] - b.centre[axis]) < APART:
            continue
        found.append(words if thirds.index(third_a) < thirds.index(third_b) else words[::-1])
    return found


def relation(things: Sequence[Thing], rng: random.Random) -> Asked | None:
    """ "Is the cat to the left of the key?", yes and no equally often, only where it is clear."""
    pairs = [
        (a, b, way) for a in unique(things) for b in unique(things) if a is not b for way in directions(a, b)
    ]
    if not pairs:
        return None
    a, b, way = rng.choice(pairs)
    yes = rng.random() < 0.5
    return f"Is the {a.name} {way[0] if yes else way[1]} the {b.name}?", "Yes" if yes else "No"


def bearing(things: Sequence[Thing], rng: random.Random) -> Asked | None:
    """ "Where is the cat, seen from the key?", "To the left and above": every clear direction."""
    pairs = [(a, b, ways) for a in unique(things) for b in unique(things) if (ways := directions(a, b))]
    if not pairs:
        return None
    a, b, ways = rng.choice(pairs)
    said = " and ".join(way.removesuffix(" of") for way, _ in ways)
    return f"Where is the {a.name}, seen from the {b.name}?", sentence(said)[:-1]


def place(things: Sequence[Thing], rng: random.Random) -> Asked | None:
    candidates = unique(things)
    if not candidates:
        return None
    thing = rng.choice(candidates)
    return f"Where is the {thing.name}?", f"At the {thing.place}"


def at_place(things: Sequence[Thing], rng: random.Random) -> Asked | None:
    thing = rng.choice(list(things))
    if sum(other.place == thing.place for other in things) > 1:
        return None
    return f"What is at the {thing.place}?", sentence(f"{article(thing.colour)} {thing.colour} {thing.name}")[
        :-1
    ]


def of_colour(things: Sequence[Thing], rng: random.Random) -> Asked | None:
    thing = rng.choice(list(things))
    if sum(other.colour == thing.colour for other in things) > 1:
        return None
    return f"What is {thing.colour}?", f"The {thing.name}"


def size(things: Sequence[Thing], rng: random.Random) -> Asked | None:
    candidates = unique(things)
    if not candidates:
        return None
    thing = rng.choice(candidates)
    return f"Is the {thing.name} small or large?", sentence(thing.size)[:-1]


def kinds(things: Sequence[Thing], rng: random.Random) -> Asked | None:
    return "What do you see?", sentence(tally(things))


def detail(things: Sequence[Thing], rng: random.Random) -> Asked:
    """Everything in reading order, with size, colour and place."""
    question = rng.choice(("Describe the picture in detail.", "Describe everything that you see."))
    return question, describe(things)


def describe(things: Sequence[Thing]) -> str:
    return sentence(join([f"{thing.phrase} at the {thing.place}" for thing in reading_order(things)]))


def higher(things: Sequence[Thing], rng: random.Random) -> Asked | None:
    """Reasoning: which of two would fall further; the answer gives its reason."""
    pairs = [(a, b) for a in unique(things) for b in unique(things) if ("above", "below") in directions(a, b)]
    if not pairs:
        return None
    a, b = rng.choice(pairs)
    first, second = (a, b) if rng.random() < 0.5 else (b, a)
    question = f"Which would fall further to the ground, the {first.name} or the {second.name}?"
    return question, f"The {a.name}, because it is above the {b.name}."


def removed(things: Sequence[Thing], rng: random.Random) -> Asked | None:
    """Reasoning: what is left when something goes."""
    candidates = unique(things)
    if not candidates or len(things) < 2:
        return None
    thing = rng.choice(candidates)
    rest = [other for other in things if other is not thing]
    return f"If the {thing.name} went away, what would be left?", sentence(tally(rest))


def alike(things: Sequence[Thing], rng: random.Random) -> Asked | None:
    """Reasoning: do two things match in colour, and why."""
    if len(unique(things)) < 2:
        return None
    a, b = rng.sample(unique(things), 2)
    question = f"Do the {a.name} and the {b.name} match in colour?"
    if a.colour == b.colour:
        return question, f"Yes, both are {a.colour}."
    return question, f"No, the {a.name} is {a.colour} and the {b.name} is {b.colour}."


CONVERSATION: dict[str, Writer] = {
    "presence": presence, "colour": colour, "counting": counting, "relation": relation,
    "presence_of_pair": presence_of_pair, "counting_colour": counting_colour, "place": place, "at_place": at_place,
    "of_colour": of_colour, "size": size, "kinds": kinds, "bearing": bearing,
}  # fmt: skip
REASONING: dict[str, Writer] = {"higher": higher, "removed": removed, "alike": alike}
EXAMINED = ("presence", "colour", "counting", "relation", "relation", "bearing")
assert len(NUMBERS) == MOST_THINGS + 1


def dialogue(things: Sequence[Thing], rng: random.Random, turns: int) -> list[Asked]:
    """Up to `turns` different questions of the conversation kind; the examined kinds come more often than the rest."""
    names = [*CONVERSATION, *EXAMINED]
    asked: dict[str, str] = {}
    for _ in range(3 * turns):
        if len(asked) == turns:
            break
        written = CONVERSATION[rng.choice(names)](things, rng)
        if written is not None:
            asked.setdefault(*written)
    return list(asked.items())
