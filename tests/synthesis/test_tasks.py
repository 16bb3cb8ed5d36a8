"""A task is a function of picture, prompt and settings, and a reply is read the same way whenever it is read."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from llavakit.conversation.record import Picture, Text
from llavakit.errors import LlavakitError
from llavakit.synthesis.context import Annotated, Box, Region, Relation, Word, symbols
from llavakit.synthesis.kinds import open_kinds
from llavakit.synthesis.reading import (
    Unreadable,
    read_blocks,
    read_choices,
    read_json,
    read_regions,
    read_text,
)
from llavakit.synthesis.tasks import conversation, make_tasks, read_reply
from llavakit.synthesis.teacher import TeacherReply

DOG = Annotated(
    7, "7.jpg", ("A dog.", "A dog on a sofa."),
    (Box("dog", (0.1, 0.25, 0.6, 0.75)), Box("couch", (0, 0.5, 1, 1)), Box("dog", (0.123456, 0.2, 0.3, 0.4))),
    source="coco",
)  # fmt: skip
PAIR = "Question:\nWhat is it?\n===\nAnswer:\nA dog.\n==="


def tasks(*pictures: Annotated, kinds: tuple[str, ...] = ("conversation",), **settings):
    skipped: Counter[str] = Counter()
    return list(make_tasks(pictures, open_kinds(kinds), skipped=skipped, **settings)), skipped


def test_captions_and_boxes_are_written_as_the_paper_writes_them_and_richer_parts_under_a_heading() -> None:
    assert symbols(DOG) == (
        "A dog.\nA dog on a sofa.\n\ndog: [0.1, 0.25, 0.6, 0.75]\ncouch: [0.0, 0.5, 1.0, 1.0]\n"
        "dog: [0.123, 0.2, 0.3, 0.4]"
    )
    assert symbols(replace(DOG, boxes=())) == "A dog.\nA dog on a sofa."
    rich = replace(
        DOG, words=(Word("EXIT"),), regions=(Region("a paw", (0, 0, 0.5, 0.5)),), relations=(Relation(2, "on", 1),)
    )  # fmt: skip
    assert symbols(rich, ("words", "regions", "relations")) == (
        'Words in the picture:\n"EXIT"\n\nRegions:\na paw: [0.0, 0.0, 0.5, 0.5]\n\nRelations:\ndog 2 on couch'
    )


def test_a_request_is_the_prompt_its_examples_and_the_symbols() -> None:
    [[task], _] = tasks(DOG, model="m", seed=3)
    kind = task.folder
    assert [m.role for m in task.request.messages] == [
        "system",
        *["user", "assistant"] * len(kind.examples),
        "user",
    ]
    assert task.request.messages[-1].content == symbols(DOG)
    assert (task.id, task.prompt) == ("conversation-7", kind.identity)
    assert (task.request.model, task.request.seed, task.request.temperature) == (
        "m",
        3,
        kind.meta.temperature,
    )
    assert tasks(DOG, model="m", seed=3)[0][0].key == task.key
    assert tasks(DOG, model="m", seed=4)[0][0].key != task.key


def test_further_samples_are_other_requests() -> None:
    [made, _] = tasks(DOG, samples=3, max_tokens=5, temperature=0.0)
    assert [task.id for task in made] == ["conversation-7", "conversation-7-2", "conversation-7-3"]
    assert len({task.key for task in made}) == 3 and len({task.request.seed for task in made}) == 3
    assert {(task.request.max_tokens, task.request.temperature) for task in made} == {(5, 0.0)}


def test_a_kind_whose_reply_is_json_sends_its_schema_unless_told_otherwise() -> None:
    kinds = ("conversation", "multiple_choice", "region")
    [made, _] = tasks(DOG, kinds=kinds)
    names = [list(task.request.schema["properties"]) if task.request.schema else None for task in made]
    assert names == [None, ["items"], ["regions"]]
    assert not any(task.request.schema for task in tasks(DOG, kinds=kinds, schemas=False)[0])


def test_nothing_is_asked_about_a_picture_that_lacks_what_the_kind_needs() -> None:
    bare = replace(DOG, id=8, captions=(), boxes=())
    [made, skipped] = tasks(DOG, bare, kinds=("conversation", "text_rich", "region"))
    assert [task.id for task in made] == ["conversation-7", "region-7"]
    assert skipped == {
        "text_rich: no words": 2, "conversation: no captions": 1, "region: no boxes or regions": 1,
    }  # fmt: skip


def test_a_picture_of_which_only_blanks_are_known_is_no_empty_prompt() -> None:
    [made, skipped] = tasks(replace(DOG, captions=(" ",), boxes=()))
    assert not made and skipped == {"conversation: nothing to tell the teacher": 1}


def test_ids_that_two_data_sets_share_are_told_apart_by_the_data_set() -> None:
    [made, _] = tasks(DOG, replace(DOG, source="vg"), replace(DOG, id=9))
    assert [task.id for task in made] == ["conversation-coco-7", "conversation-vg-7", "conversation-9"]
    with pytest.raises(LlavakitError, match="'coco-7'"):
        tasks(DOG, DOG)
    with pytest.raises(LlavakitError, match="'7-2' stands for a picture and for sample 2 of '7'"):
        tasks(DOG, replace(DOG, id="7-2"), samples=2)


def test_a_reply_becomes_a_conversation_with_the_picture_first() -> None:
    [[task], _] = tasks(DOG)
    candidate = read_reply(task, TeacherReply(PAIR, "m-1"))
    assert candidate.exchanges == (("What is it?", "A dog."),) and candidate.teacher == "m-1"
    assert (
        task.folder.system in candidate.instructions and task.folder.examples[0][1] in candidate.instructions
    )
    assert candidate.notes == ("fewer exchanges than asked for",)
    made = conversation(candidate)
    assert made.turns[0].parts == (Picture(0), Text("\nWhat is it?")) and made.images == ("7.jpg",)
    assert read_reply(task, TeacherReply(PAIR, "m-1")) == candidate


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (TeacherReply(PAIR, "m", finish="length"), r"cut \(length\)"),
        (TeacherReply(PAIR, "m", refusal="I can't."), "declined"),
        (TeacherReply("Sure!\n" + PAIR, "m"), "begins with 'Sure!'"),
        (TeacherReply("", "m"), "0 blocks"),
    ],
)
def test_a_reply_that_is_cut_declined_or_out_of_form_is_unreadable(reply: TeacherReply, reason: str) -> None:
    [[task], _] = tasks(DOG)
    candidate = read_reply(task, reply)
    assert not candidate.exchanges and candidate.reply == reply.text
    with pytest.raises(LlavakitError, match=reason):
        raise LlavakitError(candidate.unreadable)


def test_a_short_answer_carries_the_format_line_after_every_question() -> None:
    [[task], _] = tasks(DOG, kinds=("short_answer",))
    [(question, _)] = read_reply(task, TeacherReply(PAIR, "m")).exchanges
    assert question == "What is it?\nAnswer the question using a single word or phrase."


@pytest.mark.parametrize(
    ("reply", "note"),
    [
        (PAIR, None),
        (PAIR.removesuffix("==="), None),
        ("Question:\nWhat is it?\n===  \nAnswer:\nA dog.", "a line that parts blocks is not exactly ==="),
        (
            "**Question:**\nWhat is it?\n===\n**Answer:**\nA dog.",
            "a label is not exactly Question: or Answer:",
        ),
        ("Question 1:\nWhat is it?\n===\nAnswer 1:\nA dog.", "a label is not exactly Question: or Answer:"),
        ("Question: What is it?\n===\nAnswer: A dog.\n===", "a text stands beside its label"),
        ("Question:\nWhat is it?\nAnswer:\nA dog.", "no === between blocks"),
        ("<think>Hm.</think>\n" + PAIR, "a thought ahead of the reply was left out"),
    ],
)
def test_what_is_safe_to_read_is_read_and_noted(reply: str, note: str | None) -> None:
    read = read_blocks(reply)
    assert read.exchanges == [("What is it?", "A dog.")]
    assert read.notes == ([note] if note else [])


@pytest.mark.parametrize(
    "reply",
    [
        "Answer:\nA\n===\nQuestion:\nB\n===",
        "Question:\nA\n===",
        "===",
        "Question: A\n===",
        "Question:\nA?\n===\nAnswer:\n\n===",
        "Question:\nA?\n===\nQuestion:\nB?\n===",
        "Question:\nA?\n===\nAnswer:\nB.\nQuestion:\nC?\n===",
        "<think>Still thinking",
        PAIR + "\nI hope this helps!",
    ],
)
def test_a_dialogue_out_of_form_is_unreadable(reply: str) -> None:
    with pytest.raises(Unreadable):
        read_blocks(reply)


def test_a_description_is_stripped_and_never_empty() -> None:
    assert read_text(" A dog. ", ("Describe.",), random.Random(0)).exchanges == [("Describe.", "A dog.")]
    with pytest.raises(Unreadable, match="empty"):
        read_text("  ", ("Describe.",), random.Random(0))


def test_json_is_read_whole_or_not_at_all() -> None:
    good = '{"exchanges": [{"question": "A?", "answer": "B."}]}'
    assert read_json(good).exchanges == [("A?", "B.")]
    assert read_json(f"```json\n{good}\n```").notes == ["JSON inside a fence"]
    for bad in (
        good[:-3],
        "[]",
        '{"exchanges": []}',
        '{"exchanges": [{"question": "A?", "answer": ""}]}',
        "null",
    ):
        with pytest.raises(Unreadable):
            read_json(bad)


def test_options_that_are_alike_too_few_or_no_texts_are_unreadable() -> None:
    item = {"question": "A?", "right": "Two", "wrong": ["three"]}
    assert read_choices(json.dumps({"items": [item]}), random.Random(0)).exchanges
    for wrong in ([], ["two."], [2], "three", ["a", "b", "c", "d", "e", "f"]):
        with pytest.raises(Unreadable):
            read_choices(json.dumps({"items": [item | {"wrong": wrong}]}), random.Random(0))


def test_regions_ask_for_the_description_and_for_the_box_in_turn() -> None:
    rows = [{"box": list(box.corners), "phrase": f"thing {n}"} for n, box in enumerate(DOG.boxes)]
    begun = set()
    for seed in range(8):
        asked = read_regions(json.dumps({"regions": rows}), DOG, random.Random(seed)).exchanges
        for_box = ["bounding box" in question for question, _ in asked]
        assert for_box == [for_box[0], not for_box[0], for_box[0]]
        assert all(answer.startswith("[") == boxed for (_, answer), boxed in zip(asked, for_box, strict=True))
        begun.add(for_box[0])
    assert begun == {True, False}


def test_a_made_up_box_is_left_out_with_a_note() -> None:
    rows = [
        {"box": [0.1, 0.25, 0.6, 0.75], "phrase": "the big dog"},
        {"box": [0.9, 0.9, 1, 1], "phrase": "a bone"},
    ]
    read = read_regions(json.dumps({"regions": rows}), DOG, random.Random(0))
    assert len(read.exchanges) == 1 and read.notes == ["a box that was not given"]
    assert {"[0.10, 0.25, 0.60, 0.75]" in text for text in read.exchanges[0]} == {True, False}
    with pytest.raises(Unreadable, match="no box"):
        read_regions(json.dumps({"regions": rows[1:]}), DOG, random.Random(0))
    with pytest.raises(Unreadable, match="four numbers"):
        read_regions(json.dumps({"regions": [{"box": [1], "phrase": "x"}]}), DOG, random.Random(0))
