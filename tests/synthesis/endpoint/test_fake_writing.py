"""Made-up replies are in the form that was asked for, about what the prompt tells, and mostly good enough to keep."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.context import Annotated, Box, Word
from llavakit.synthesis.endpoint.chat_format import chat_body
from llavakit.synthesis.endpoint.fake.scene import plural, read_scene, sides
from llavakit.synthesis.endpoint.fake.writing import write_reply
from llavakit.synthesis.kinds import kind_names, open_kinds
from llavakit.synthesis.quality import check, rating_request, read_rating
from llavakit.synthesis.tasks import make_tasks, read_reply
from llavakit.synthesis.teacher import Message, TeacherReply, TeacherRequest

TOLD = [kind for kind in kind_names() if not kind.startswith("vision")]
PLACES = ("kitchen", "garden", "station", "harbour", "library", "market", "workshop", "meadow")
THINGS = ("dog", "chair", "bicycle", "clock", "bench", "boat", "horse", "umbrella")


def picture(number: int) -> Annotated:
    thing, other, place = THINGS[number % 8], THINGS[(number // 8 + number + 1) % 8], PLACES[number % 8]
    captions = (
        f"A {thing} stands beside a {other} in a {place}.",
        f"The {place} holds a {thing} and a {other}.",
        f"Morning light falls on a {thing} in the {place}.",
    )
    boxes = (
        Box(thing, (0.05, 0.4, 0.3, 0.9)),
        Box(other, (0.65, 0.4, 0.95, 0.9)),
        Box("book", (0.4, 0.6, 0.5, 0.7)),
        Box("book", (0.5, 0.6, 0.6, 0.7)),
    )
    return Annotated(number, f"{number}.jpg", captions, boxes, words=(Word("OPEN"), Word("ROOM 12")))


def candidates(kind: str, number: int = 48) -> list[Candidate]:
    tasks = make_tasks([picture(n) for n in range(number)], open_kinds([kind]), model="m", skipped=Counter())
    return [
        read_reply(task, TeacherReply(write_reply(chat_body(task.request), random.Random(task.key)), "m"))
        for task in tasks
    ]


def body(asked: str, system: str = "") -> dict[str, object]:
    return chat_body(TeacherRequest((Message("system", system), Message("user", asked))))


@pytest.mark.parametrize("kind", TOLD)
def test_replies_of_every_kind_are_read_and_most_pass_the_gates(kind: str) -> None:
    made = candidates(kind)
    assert not [one.unreadable for one in made if one.unreadable]
    verdicts = [verdict for given in check(made) for verdict in given if verdict.action == "reject"]
    # the pictures of this test are much alike, so that texts about them may be too
    rejected = [verdict for verdict in verdicts if not verdict.gate.startswith("duplicates")]
    assert len(rejected) <= len(made) * 0.2, rejected[:5]


def test_replies_to_a_picture_differ_by_request() -> None:
    asked = body("A dog in a room.\n\ndog: [0.1, 0.2, 0.3, 0.4]", "Question:\n===\nAnswer:")
    assert len({write_reply(asked, random.Random(n)) for n in range(30)}) > 10


def test_a_malformed_reply_cannot_be_read() -> None:
    for kind in ("conversation", "multiple_choice", "region"):
        (task,) = make_tasks([picture(1)], open_kinds([kind]), model="m", skipped=Counter())
        text = write_reply(chat_body(task.request), random.Random(0), malformed=True)
        assert read_reply(task, TeacherReply(text, "m")).unreadable


def test_ratings_and_scores_come_in_the_form_that_judges_ask_for() -> None:
    for candidate in candidates("conversation", 5):
        assert read_rating(write_reply(chat_body(rating_request(candidate)), random.Random(1))) is not None
    pair = "[Assistant 1]\nA dog.\n[Assistant 2]\nA cat.\nOutput one line with two scores from 1 to 10."
    first = write_reply(body(pair), random.Random(2)).partition("\n")[0].split(" ")
    assert len(first) == 2 and all(1 <= float(score) <= 10 for score in first)
    assert 0 <= float(write_reply(body("Compare. | is it right? | yes | no |"), random.Random(3))) <= 1
    assert write_reply(body("Which?\nA. a dog\nB. a cat"), random.Random(4)) in ("A", "B")


def test_any_schema_is_followed() -> None:
    schema = {
        "type": "object",
        "properties": {
            "verdict": {"enum": ["yes", "no"]},
            "score": {"type": "integer", "minimum": 1, "maximum": 5},
            "share": {"type": "number", "minimum": 0, "maximum": 1},
            "sure": {"type": "boolean"},
            "nothing": {"type": ["null", "string"]},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
            "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
    }
    request = TeacherRequest((Message("user", "A dog."),), schema=schema)
    for seed in range(20):
        said = json.loads(write_reply(chat_body(request), random.Random(seed)))
        assert said["verdict"] in ("yes", "no") and said["score"] in range(1, 6) and 0 <= said["share"] <= 1
        assert isinstance(said["sure"], bool) and said["nothing"] is None and len(said["tags"]) <= 2
        assert isinstance(said["either"], str)


def test_a_prompt_is_seen_as_captions_boxes_and_words() -> None:
    text = (
        "a dog: asleep\nA red chair.\n\ndog: [0.1, 0.5, 0.3, 0.9]\nchair: [0.6, 0.4, 0.9, 0.9]\n\n"
        'Words in the picture:\n"OPEN": [0.1, 0.1, 0.2, 0.2]\n"12"\n\nRegions:\na tail: [0.1, 0.1, 0.2, 0.2]'
    )
    scene = read_scene(text)
    assert scene.captions == ("A dog: asleep.", "A red chair.")
    assert scene.counts == {"dog": 1, "chair": 1} and scene.words == ("OPEN", "12")
    assert sides(scene) == [("dog", "chair")]


def test_a_prompt_without_anything_to_see_still_gets_a_reply() -> None:
    for system in ("", "Question: ... === Answer:", "Write one short caption."):
        assert write_reply(body("", system), random.Random(0)).strip()


def test_plurals_are_english() -> None:
    many = ["dog", "person", "bench", "wine glass", "knife", "sheep", "skis", "berry", "toy"]
    assert [plural(one) for one in many] == [
        "dogs", "people", "benches", "wine glasses", "knives", "sheep", "skis", "berries", "toys",
    ]  # fmt: skip
