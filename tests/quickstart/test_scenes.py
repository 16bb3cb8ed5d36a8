"""Scenes are pure functions of their seed, hold no held-out pair unless asked, and are described truly."""

from __future__ import annotations

import random

import numpy as np
import pytest

from llavakit.quickstart import questions
from llavakit.quickstart.scenes import (
    COLOURS,
    GLYPHS,
    NAMES,
    NUMBERS,
    PICTURE_SIZE,
    Thing,
    captions,
    draw_scene_plan,
    held_out,
    paint,
    scenes,
    tally,
)  # fmt: skip


def test_the_same_seed_draws_the_same_pixels_and_captions() -> None:
    first, second = (
        [(paint(scene), captions(scene, rng)) for scene, rng in scenes("same", 20)] for _ in range(2)
    )
    for (pixels, told), (pixels_again, told_again) in zip(first, second, strict=True):
        assert np.array_equal(pixels, pixels_again)
        assert told == told_again


def test_training_scenes_hold_no_held_out_pair_and_novel_ones_hold_exactly_one() -> None:
    for novel in (False, True):
        for scene, _ in scenes("pairs", 300, novel=novel):
            assert sum(held_out(thing.name, thing.colour) for thing in scene.things) == int(novel)


def test_every_object_and_every_colour_has_held_out_pairs() -> None:
    pairs = [(name, colour) for name in NAMES for colour in COLOURS if held_out(name, colour)]
    assert {name for name, _ in pairs} == set(NAMES)
    assert {colour for _, colour in pairs} == set(COLOURS)
    assert len(pairs) == len(NAMES)


def test_boxes_lie_in_the_picture_and_apart() -> None:
    for scene, _ in scenes("boxes", 300):
        painted = np.zeros((PICTURE_SIZE, PICTURE_SIZE), dtype=int)
        for thing in scene.things:
            x, y, width, height = thing.box
            assert x >= 0 and y >= 0 and x + width <= PICTURE_SIZE and y + height <= PICTURE_SIZE
            painted[y : y + height, x : x + width] += 1
        assert painted.max() == 1


@pytest.mark.parametrize("name", GLYPHS)
def test_every_object_is_drawn_in_its_colour_inside_its_box_only(name: str) -> None:
    colour = next(c for c in COLOURS if not held_out(name, c))
    scene = next(s for s, _ in scenes(f"drawn/{name}", 4000) if s.things[0].name == name)
    x, y, width, height = scene.things[0].box
    with_it, without = paint(scene), paint(type(scene)(scene.things[1:], scene.ground, scene.shades[1:]))
    changed = (with_it != without).any(-1)
    assert changed[y : y + height, x : x + width].mean() > 0.15, colour
    changed[y : y + height, x : x + width] = False
    assert not changed.any()


def thing(name: str, colour: str, x: int, y: int) -> Thing:
    return Thing(name, colour, "small", (x, y, 24, 24))


CAT, KEY, OTHER_CAT = thing("cat", "blue", 2, 2), thing("key", "red", 70, 70), thing("cat", "red", 70, 2)


def answers(writer: questions.Writer, things: list[Thing]) -> dict[str, str]:
    found = (writer(things, random.Random(seed)) for seed in range(300))
    return dict(asked for asked in found if asked is not None)


def test_questions_have_one_true_answer() -> None:
    assert set(answers(questions.colour, [CAT, KEY])) == {
        "What colour is the cat?", "Which colour does the cat have?", "What colour is the key?", "Which colour does the key have?",
    }  # fmt: skip
    assert set(answers(questions.colour, [CAT, KEY]).values()) == {"blue", "red"}
    assert answers(questions.counting, [CAT, KEY, OTHER_CAT])["How many cats are there?"] == "two"
    assert answers(questions.counting, [CAT, KEY, OTHER_CAT])["How many things are there?"] == "three"
    assert answers(questions.relation, [CAT, KEY])["Is the cat to the left of the key?"] == "Yes"
    assert answers(questions.relation, [CAT, KEY])["Is the cat below the key?"] == "No"
    assert answers(questions.place, [CAT, KEY])["Where is the key?"] == "At the bottom right"
    assert answers(questions.presence_of_pair, [CAT, KEY])["Is there a blue cat?"] == "Yes"
    assert "yes" not in {
        a.lower() for q, a in answers(questions.presence_of_pair, [CAT, KEY]).items() if "red cat" in q
    }
    assert answers(questions.removed, [CAT, KEY]) == {
        "If the cat went away, what would be left?": "A key.", "If the key went away, what would be left?": "A cat.",
    }  # fmt: skip


def test_an_ambiguous_question_is_not_asked() -> None:
    assert not any("cat" in question for question in answers(questions.colour, [CAT, OTHER_CAT, KEY]))
    assert answers(questions.relation, [CAT, OTHER_CAT]) == {}
    assert answers(questions.relation, [CAT, thing("key", "red", 10, 12)]) == {}


@pytest.mark.parametrize("writer", [questions.presence, questions.presence_of_pair, questions.relation])
def test_yes_and_no_are_equally_frequent(writer: questions.Writer) -> None:
    said = [
        asked[1] for seed in range(2000)
        if (asked := writer(draw_scene_plan(random.Random(seed)).things, random.Random(-seed - 1))) is not None
    ]  # fmt: skip
    assert 0.45 < said.count("Yes") / len(said) < 0.55


def test_a_tally_names_kinds_with_their_numbers() -> None:
    assert tally([CAT, KEY, OTHER_CAT]) == "two cats and a key"
    assert NUMBERS[2] == "two"
