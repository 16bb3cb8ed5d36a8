"""The rule-based teacher sees captions and boxes as text, and what it writes is true of the scene."""

from __future__ import annotations

import asyncio

import pytest

from llavakit.errors import LlavakitError
from llavakit.quickstart.scenes import PICTURE_SIZE, captions, scenes
from llavakit.quickstart.teacher import RuleTeacher, rule_kinds, understand
from llavakit.synthesis.context import Annotated, Box, symbols
from llavakit.synthesis.generate import generate
from llavakit.synthesis.kinds import open_kinds
from llavakit.synthesis.teacher import Message, TeacherRequest


def annotated(number: int, scene, rng) -> Annotated:
    boxes = tuple(
        Box(t.name, (t.box[0] / PICTURE_SIZE, t.box[1] / PICTURE_SIZE, (t.box[0] + t.box[2]) / PICTURE_SIZE, (t.box[1] + t.box[3]) / PICTURE_SIZE))
        for t in scene.things
    )  # fmt: skip
    return Annotated(number, f"{number}.png", tuple(captions(scene, rng)), boxes)


def test_captions_and_boxes_give_back_the_scene() -> None:
    for number, (scene, rng) in enumerate(scenes("understand", 400)):
        found = understand(symbols(annotated(number, scene, rng)))
        key = lambda t: (t.name, t.row, t.column, t.size, t.colour)  # noqa: E731
        assert sorted(map(key, found)) == sorted(map(key, scene.things))
        assert [t.box for t in found] == [t.box for t in scene.things]


def test_every_kind_becomes_conversations_about_the_picture() -> None:
    pictures = [annotated(number, scene, rng) for number, (scene, rng) in enumerate(scenes("kinds", 40))]
    made = generate(pictures, rule_kinds(), RuleTeacher(), seed=3)
    kinds = [conversation.meta["kind"] for conversation in made.conversations]
    assert kinds.count("conversation") == kinds.count("detail") == 40
    assert {rejected.kind for rejected in made.rejected} <= {
        "reasoning"
    }  # scenes of one thing leave nothing to compare
    for conversation in made.conversations:
        conversation.check()
    again = generate(pictures, rule_kinds(), RuleTeacher(), seed=3, concurrency=1)
    assert again.conversations == made.conversations


def test_a_caption_that_does_not_explain_a_box_is_refused() -> None:
    picture = Annotated(1, "1.png", ("Two dogs in the snow.",), (Box("dog", (0.1, 0.1, 0.4, 0.4)),))
    with pytest.raises(LlavakitError, match="No caption says what colour the small dog at the top left has"):
        asyncio.run(
            RuleTeacher().reply(
                TeacherRequest((Message("system", "Task: detail"), Message("user", symbols(picture))))
            )
        )


def test_the_rules_answer_the_prompts_that_come_with_llavakit_too() -> None:
    pictures = [annotated(number, scene, rng) for number, (scene, rng) in enumerate(scenes("prompts", 10))]
    made = generate(pictures, open_kinds(["conversation", "detail", "reasoning"]), RuleTeacher())
    assert {conversation.meta["kind"] for conversation in made.conversations} >= {"conversation", "detail"}
    assert not made.skipped
    with pytest.raises(
        LlavakitError, match="asked for 'brief'; it writes conversation, detail and reasoning"
    ):
        generate(pictures[:1], open_kinds(["brief"]), RuleTeacher())
