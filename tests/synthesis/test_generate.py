"""Replies become conversations or are rejected with a reason; nothing in between."""

from __future__ import annotations

import asyncio

from llavakit.conversation.record import Picture, Text
from llavakit.synthesis.context import Annotated
from llavakit.synthesis.generate import generate
from llavakit.synthesis.kinds import open_kinds
from llavakit.synthesis.tasks import caption_pairs
from llavakit.synthesis.teacher import TeacherReply, TeacherRequest

PICTURES = [Annotated(number, f"{number}.png", (f"Caption {number}.", "Another."), ()) for number in range(5)]
GOOD = "Question:\nWhat is it?\n===\nAnswer:\nA cat.\n===\nQuestion:\nWhere?\n===\nAnswer:\nOn the mat.\n==="


class Scripted:
    """Answers by picture, the later ones sooner, so that replies arrive out of order."""

    name = "scripted"

    def __init__(self, replies: dict[str, TeacherReply]) -> None:
        self.replies, self.asked = replies, 0

    async def reply(self, request: TeacherRequest) -> TeacherReply:
        self.asked += 1
        await asyncio.sleep(0)
        return self.replies[request.messages[-1].content.split(".")[0]]


def test_good_replies_become_conversations_and_bad_ones_are_kept_with_their_reason() -> None:
    teacher = Scripted({
        "Caption 0": TeacherReply(GOOD, "m"),
        "Caption 1": TeacherReply("Sure! Here is a conversation.", "m"),
        "Caption 2": TeacherReply(GOOD, "m", finish="length"),
        "Caption 3": TeacherReply("Question:\nWhat?\n===\nAnswer:\n\n===", "m"),
        "Caption 4": TeacherReply("", "m"),
    })  # fmt: skip
    made = generate(PICTURES, open_kinds(["conversation"]), teacher)
    [kept] = made.conversations
    assert kept.images == ("0.png",) and kept.turns[0].parts == (Picture(0), Text("\nWhat is it?"))
    assert [turn.role for turn in kept.turns] == ["user", "assistant"] * 2
    assert [(r.image, r.reply) for r in made.rejected] == [
        (f"{n}.png", teacher.replies[f"Caption {n}"].text) for n in range(1, 5)
    ]
    assert "cut (length)" in made.rejected[1].reason
    assert teacher.asked == 5


def test_caption_pairs_answer_with_a_caption_of_the_picture() -> None:
    pairs = caption_pairs(PICTURES)
    assert [pair.turns[1].parts for pair in pairs] == [(Text(f"Caption {n}."),) for n in range(5)]
    assert caption_pairs(PICTURES) == pairs
