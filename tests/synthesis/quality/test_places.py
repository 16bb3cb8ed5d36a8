"""Sides and heights that boxes contradict are found in every form of sentence; what may be meant otherwise passes."""

from __future__ import annotations

import random
import time

import pytest
from tests.synthesis.quality.planted import PARK, reasons, said

from llavakit.synthesis.context import Annotated, Box

PLACES = "placed otherwise than boxes"
ROOM = Annotated(
    9,
    "9.jpg",
    ("A cat on a couch below a clock, a vase beside it.",),
    (
        Box("clock", (0.1, 0.05, 0.2, 0.15)),
        Box("cat", (0.3, 0.5, 0.5, 0.7)),
        Box("vase", (0.8, 0.6, 0.9, 0.9)),
        Box("book", (0.1, 0.8, 0.2, 0.9)),
        Box("book", (0.25, 0.8, 0.35, 0.9)),
        Box("couch", (0.2, 0.4, 1.0, 1.0)),
    ),
)
WHERE = "Where is the clock?"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("The frisbee is to the right of the bench.", [PLACES]),
        ("The bench is on the left side of the picture.", [PLACES]),
        ("The bench can be seen on the left of the image.", [PLACES]),
        ("On the left of the picture there is a bench.", [PLACES]),
        ("The frisbee is below the bench.", []),
        ("The frisbee is to the left of the bench.", []),
        ("The bench is on the right of the picture.", []),
        ("The dog is to the right of the bench.", []),
        ("The frisbee might be to the right of the bench.", []),
    ],
)
def test_places_are_compared_with_the_only_boxes_of_both(answer: str, found: list[str]) -> None:
    assert reasons(said(answer, picture=PARK), "places") == found


@pytest.mark.parametrize(
    "answer",
    [
        "A clock hangs at the top right.",
        "A clock hangs in the upper right-hand corner of the image.",
        "In the lower left corner, there is a vase.",
        "A cat sleeps on a couch, a clock hangs on the right.",
        "The vase is at the middle left and the cat on the couch.",
        "The clock is above and to the right of the cat.",
        "The clock is to the right and above the cat.",
        "The vase is further left than the cat.",
        "The clock hangs lower than the vase.",
        "The cat is to the right of the clock and to the right of the vase.",
        "Two books lie on the right side of the picture.",
        "To the right of the vase there is a clock.",
        "On the left there is a vase; on the right, a clock.",
    ],
)
def test_a_statement_that_boxes_contradict_is_found(answer: str) -> None:
    assert reasons(said(answer, picture=ROOM), "places") == [PLACES]


@pytest.mark.parametrize(
    "answer",
    [
        "A clock hangs at the top left.",
        "In the lower right corner, there is a vase.",
        "The clock is above and to the left of the cat.",
        "The vase has a crack at the top left.",
        "The vase, with a flower on the left, is blue.",
        "There is a crack at the bottom left of the vase.",
        "The cat turns to the right.",
        "On the right, next to the cat, lies a cushion.",
        "The cat is on the right track.",
        "A book lies at the bottom left.",
        "The cat is not at the top right.",
        "A cat is at the top right of the couch.",
        "On the right, a vase; on the left, a cat; at the top left, a clock.",
        "In the top left of the picture, above the vase and the cat, it is late.",
        "The vase has its mouth turned to the top left of the image.",
        "A vase leans to the left of the image.",
        "The cat is to the left of the vase, above it is a clock, to the left of the vase.",
    ],
)
def test_a_statement_that_may_be_meant_otherwise_passes(answer: str) -> None:
    assert reasons(said(answer, picture=ROOM), "places") == []


@pytest.mark.parametrize(
    ("question", "wrong", "right"),
    [
        (WHERE, "At the top right", "At the top left"),
        (WHERE, "It is in the upper right corner.", "It is in the upper left corner."),
        (WHERE, "It hangs to the right of the vase.", "It hangs to the left of the vase."),
        ("Where is the clock, seen from the vase?", "To the right and below", "To the left and above"),
        ("Where is the vase relative to the clock?", "Below and to the left.", "Below and to the right."),
        ("Where can you find the vase?", "On the left.", "On the right."),
        ("On which side of the picture is the vase?", "The left side.", "The right side."),
        ("Is the vase on the left or on the right?", "Left", "Right"),
        ("Is the vase to the left or to the right of the clock?", "To the left", "To the right"),
        ("Is the clock to the left of the vase?", "No", "Yes"),
        ("Is the clock to the right of the vase?", "Yes, it is.", "No, it is not."),
        ("Is the clock above the cat?", "No", "Yes"),
        ("Does the clock hang above and to the left of the vase?", "No", "Yes"),
        ("Is the vase on the right side of the picture?", "No", "Yes"),
        ("Is there a clock in the top right corner?", "Yes", "No"),
        ("What is to the left of the cat?", "The vase", "The clock"),
        ("What is at the top left?", "A vase", "A clock"),
        ("Which is higher, the clock or the vase?", "The vase.", "The clock."),
        ("Which is further to the right, the clock or the vase?", "The clock is.", "The vase is."),
    ],
)
def test_an_answer_is_read_together_with_its_question(question: str, wrong: str, right: str) -> None:
    assert reasons(said(wrong, question, picture=ROOM), "places") == [PLACES]
    assert reasons(said(right, question, picture=ROOM), "places") == []


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Is the cat on the left side of the picture?", "No, it is in the middle."),
        ("Is the couch to the left of the vase?", "No, the vase stands before it."),
        ("Is the cat on the right sleeping?", "Yes"),
        ("Is the owner of the cat to the right of the vase?", "Yes"),
        ("Would the cat be to the right of the vase?", "Yes"),
        ("Where is the cat looking?", "To the right."),
        ("Where on the vase is the crack?", "At the top left."),
        ("Where is the vase's shadow?", "To the left."),
        ("Where is the vase?", "On the left of the painting."),
        ("Which left first, the vase or the cat?", "The vase."),
        ("What is to the left of the vase doing there?", "The vase."),
        ("What is to the left of the cat?", "Nothing but the wall."),
        ("Where is the book?", "On the left."),
    ],
)
def test_what_a_question_leaves_open_passes(question: str, answer: str) -> None:
    assert reasons(said(answer, question, picture=ROOM), "places") == []


def test_of_several_things_all_must_be_elsewhere() -> None:
    asked = "Where is the book?"
    assert reasons(said("At the bottom right.", asked, picture=ROOM), "places") == [PLACES]
    assert reasons(said("At the bottom left.", asked, picture=ROOM), "places") == []
    crowd = Annotated(9, "9.jpg", ROOM.captions, (Box("book", (0.1, 0.8, 0.2, 0.9), crowd=True),))
    assert reasons(said("At the bottom right.", asked, picture=crowd), "places") == []


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.09])
def test_centres_that_are_close_decide_nothing(shift: float) -> None:
    boxes = (
        Box("cat", (0.4, 0.4, 0.6, 0.6)),
        Box("vase", (0.4 + shift, 0.4 + shift, 0.6 + shift, 0.6 + shift)),
    )
    near = Annotated(10, "10.jpg", (), boxes)
    for side in ("to the right of", "to the left of", "above", "below"):
        assert reasons(said(f"The cat is {side} the vase.", picture=near), "places") == []
    for side in ("left", "right", "top", "bottom"):
        assert reasons(said(f"The vase is at the {side} of the picture.", picture=near), "places") == []


OPPOSITE = {"left": "right", "right": "left"}
FORMS = (
    ("What is going on here?", "The cat is to the {} of the vase."),
    ("What is going on here?", "There is a cat on the {} of a vase."),
    ("Where is the cat?", "To the {} of the vase."),
    ("Where is the cat, seen from the vase?", "To the {}"),
    ("Is the cat to the {} of the vase?", "Yes, it is."),
    ("What is to the {} of the vase?", "The cat"),
    ("Which is further to the {}, the vase or the cat?", "The cat."),
)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: " ".join(form))
def test_what_is_true_of_the_centres_passes_and_its_opposite_is_found_from_the_margin_on(
    form: tuple[str, str],
) -> None:
    rng = random.Random(0)
    found = 0
    for _ in range(60):
        corners = [(x := rng.uniform(0, 0.8), 0.4, x + rng.uniform(0.05, 0.2), 0.6) for _ in range(2)]
        cat, vase = (Box(name, at) for name, at in zip(("cat", "vase"), corners, strict=True))
        picture = Annotated(11, "11.jpg", (), (cat, vase))
        apart = (corners[1][0] + corners[1][2] - corners[0][0] - corners[0][2]) / 2
        side = "left" if apart > 0 else "right"
        told, mirrored = (
            said(form[1].format(way), form[0].format(way), picture=picture) for way in (side, OPPOSITE[side])
        )
        assert reasons(told, "places") == []
        assert reasons(mirrored, "places") == ([PLACES] if abs(apart) > 0.1 else [])
        found += abs(apart) > 0.1
    assert 30 < found < 60


@pytest.mark.parametrize(
    "text", ["left of the cat ", "to the right of ", "the cat is at the top right ", "above "]
)
def test_an_answer_of_100000_characters_without_an_end_is_read_in_time(text: str) -> None:
    began = time.process_time()
    whole = text * (100_000 // len(text))
    for question in ("Where is the cat?", "Is the cat to the left of the vase?", "What is above the cat?"):
        reasons(said(whole, question, picture=ROOM), "places")
        reasons(said("Yes", whole + "?", picture=ROOM), "places")
    assert time.process_time() - began < 5
