"""Questions and answers about a scene, one function a kind of data; all that is said follows from captions and boxes.

Which of many wordings comes is drawn, so that replies differ from each other as a model's would.
"""

from __future__ import annotations

import random

from llavakit.synthesis.endpoint.fake.scene import (
    Corners,
    Scene,
    counted,
    number_word,
    place,
    plural,
    sides,
    with_article,
)

Exchange = tuple[str, str]

_ABSENT = ("giraffe", "kite", "toaster", "zebra", "snowboard", "surfboard", "parking meter", "elephant")
_WHAT = (
    "What is going on in this picture?",
    "What does the picture show?",
    "What can be seen here?",
    "What is the scene about?",
)
_WHAT_ELSE = (
    "What else is to be seen?",
    "Is there anything else to notice?",
    "What more does the picture show?",
)
_THINK = (
    "What might happen next in this scene?",
    "What should somebody who is there pay attention to?",
    "What can be concluded about the situation?",
    "Why might this moment have been worth a photograph?",
)
_LIKELY = (
    "so it is likely that things simply go on this way for a while",
    "which suggests an ordinary moment rather than a staged one",
    "so whoever is nearby would do well to keep an eye on what goes on",
    "and that makes a sudden change rather unlikely",
)
_NOTHING_KNOWN = "The picture shows a scene with a few things in it."


def description(scene: Scene, rng: random.Random) -> str:
    """A description of several sentences."""
    said = list(scene.captions)
    rng.shuffle(said)
    lines = said[: max(2, len(said) - 1)] or [_NOTHING_KNOWN]
    for category, number in scene.counts.items():
        if number > 1:
            opening = rng.choice(("There are", "One also finds", "In view there are"))
            lines.append(f"{opening} {counted(category, number)} in the scene.")
    for category, box in scene.singles:
        lines.append(f"The {category} is {place(box)} of the picture.")
    lines += [f"The {left} is to the left of the {right}." for left, right in sides(scene)[:2]]
    lines += [f'The text "{word}" can be read.' for word in scene.words[:5]]
    return " ".join(lines)


def brief(scene: Scene, rng: random.Random) -> str:
    """One sentence."""
    return rng.choice(scene.captions) if scene.captions else _NOTHING_KNOWN


def conversation(scene: Scene, rng: random.Random) -> list[Exchange]:
    """Four to six exchanges."""
    captions = list(scene.captions) or [_NOTHING_KNOWN]
    rng.shuffle(captions)
    middle = [*_counting(scene, rng), *_placing(scene, rng)]
    rng.shuffle(middle)
    absent = _absent(scene, rng)
    middle = middle[:3]
    middle.append(
        (f"Is there {with_article(absent)} in the picture?", f"No, there is no {absent} in the picture.")
    )
    if len(captions) > 1:
        middle.append((rng.choice(_WHAT_ELSE), captions[1]))
    if len(middle) < 3:
        middle.append((rng.choice(_THINK), _reasoned(scene, rng)))
    return [(rng.choice(_WHAT), captions[0]), *middle]


def reasoning(scene: Scene, rng: random.Random) -> list[Exchange]:
    """One exchange."""
    return [(rng.choice(_THINK), _reasoned(scene, rng))]


def false_premise(scene: Scene, rng: random.Random) -> list[Exchange]:
    """Three exchanges whose questions take for granted what is not so."""
    caption = rng.choice(scene.captions or (_NOTHING_KNOWN,))
    made = []
    for left, right in sides(scene)[:1]:
        made.append(
            (
                f"Why is the {left} to the right of the {right}?",
                f"The {left} is not to the right of the {right}; it is to the left of it.",
            )
        )
    for absent in rng.sample([one for one in _ABSENT if not _named(scene, one)], 3 - len(made)):
        question = rng.choice(("What is the {} doing?", "Which colour does the {} have?", "Who owns the {}?"))
        made.append((question.format(absent), f"There is no {absent} in the picture. {caption}"))
    return made


def short_answers(scene: Scene, rng: random.Random) -> list[Exchange]:
    """Exchanges whose answers are a word or two."""
    made: list[Exchange] = []
    for category, number in list(scene.counts.items())[:3]:
        if number <= 5:
            made.append((f"How many {plural(category)} are there?", str(number)))
    for category, box in scene.singles[:3]:
        made.append(
            (f"On which side of the picture is the {category}?", place(box).split(",")[0].split()[-1])
        )
    absent = _absent(scene, rng)
    made.append((f"Is there {with_article(absent)} in the picture?", "no"))
    for category in list(scene.counts)[:2]:
        made.append((f"Can {with_article(category)} be seen?", "yes"))
    rng.shuffle(made)
    return made[:6]


def text_exchanges(scene: Scene, rng: random.Random) -> list[Exchange]:
    """Exchanges about the words that stand in the picture."""
    made = [
        (
            rng.choice(("What can be read here?", "Which text stands in the picture?")),
            f'It reads "{scene.words[0]}".',
        )
    ]
    for word in scene.words[1:4]:
        question = rng.choice(("Which other text is there?", "What else is written there?"))
        made.append((question, f'There is also the text "{word}".'))
    if len(made) < 2:
        made.append((rng.choice(_WHAT), brief(scene, rng)))
    return made


def choices(scene: Scene, rng: random.Random) -> list[dict[str, object]]:
    """Questions with a right option and three wrong ones."""
    made: list[dict[str, object]] = []
    for category, number in list(scene.counts.items())[:2]:
        if number <= 5:
            wrong = [str(other) for other in rng.sample([n for n in range(1, 9) if n != number], 3)]
            question = f"How many {plural(category)} are in the picture?"
            made.append({"question": question, "right": str(number), "wrong": wrong})
    for category in list(scene.counts)[:2]:
        wrong = rng.sample([one for one in _ABSENT if not _named(scene, one)], 3)
        question = rng.choice(("Which of these is in the picture?", "Which of these can be seen?"))
        made.append({"question": question, "right": category, "wrong": wrong})
    if len(made) < 2:
        wrong = [f"{counted(one, 2)} in a row" for one in _ABSENT[:3]]
        made.append({"question": "What does the picture show?", "right": brief(scene, rng), "wrong": wrong})
    return made


def regions(scene: Scene, rng: random.Random) -> list[dict[str, object]]:
    """Boxes that were given, each with a phrase."""
    alone: list[tuple[str, Corners]] = scene.singles or list(scene.boxes[:1])
    return [
        {"box": list(box), "phrase": f"the {category} {place(box)} of the picture"}
        for category, box in alone[:6]
    ]


def _counting(scene: Scene, rng: random.Random) -> list[Exchange]:
    made = []
    for category, number in scene.counts.items():
        if 1 < number <= 5:
            many = plural(category)
            answers = (
                f"There are {number_word(number)} {many} in the picture.",
                f"One can count {number_word(number)} {many}.",
            )
            made.append((f"How many {many} are there?", rng.choice(answers)))
    return made


def _placing(scene: Scene, rng: random.Random) -> list[Exchange]:
    made = []
    for category, box in scene.singles:
        question = rng.choice(("Where is the {}?", "In which part of the picture is the {}?")).format(
            category
        )
        made.append((question, f"The {category} is {place(box)} of the picture."))
    for left, right in sides(scene)[:3]:
        if rng.random() < 0.5:
            made.append(
                (
                    f"Is the {left} to the left of the {right}?",
                    f"Yes, the {left} is to the left of the {right}.",
                )
            )
        else:
            question = f"Is the {left} to the right of the {right}?"
            made.append((question, f"No, the {left} is to the left of the {right}."))
    return made


def _reasoned(scene: Scene, rng: random.Random) -> str:
    captions = list(scene.captions) or [_NOTHING_KNOWN]
    rng.shuffle(captions)
    seen = " ".join(captions[:2])
    things = [counted(category, number) for category, number in list(scene.counts.items())[:3]]
    listed = (
        f"With {' and '.join(things)} in view, it all fits together" if things else "It all fits together"
    )
    return f"{seen} {listed}, {rng.choice(_LIKELY)}."


def _absent(scene: Scene, rng: random.Random) -> str:
    return rng.choice([one for one in _ABSENT if not _named(scene, one)])


def _named(scene: Scene, thing: str) -> bool:
    return thing in scene.counts or any(thing in caption.lower() for caption in scene.captions)
