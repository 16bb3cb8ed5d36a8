"""From annotated pictures to conversations, by way of a teacher.

For every picture and kind the teacher is asked once; its reply is read in the form the prompt asked for and becomes a
`Conversation` with the picture before the first question. A reply that was cut or cannot be read is kept with its
reason and counted; it never becomes data.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from llavakit.conversation.record import Conversation, Picture, Text, Turn
from llavakit.synthesis.context import Annotated, symbols
from llavakit.synthesis.kinds import BRIEF_QUESTIONS, Kind, Unreadable
from llavakit.synthesis.teacher import Message, Teacher, TeacherReply, TeacherRequest


@dataclass(frozen=True, slots=True)
class Rejected:
    """A reply that did not become data: which picture, which kind, why, and what the teacher wrote."""

    image: str
    kind: str
    reason: str
    reply: str


@dataclass(slots=True)
class Generated:
    conversations: list[Conversation] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def generate(
    pictures: Sequence[Annotated],
    kinds: Sequence[Kind],
    teacher: Teacher,
    *,
    seed: int = 0,
    concurrency: int = 16,
) -> Generated:
    """Ask the teacher for every kind of data about every picture.

    Args:
        concurrency: requests under way at once.

    Returns:
        Conversations in the order of pictures and kinds whatever the order of replies, and what was rejected.
    """
    return asyncio.run(_generate(pictures, kinds, teacher, seed, concurrency))


async def _generate(
    pictures: Sequence[Annotated], kinds: Sequence[Kind], teacher: Teacher, seed: int, concurrency: int
) -> Generated:
    gate = asyncio.Semaphore(concurrency)

    async def ask(picture: Annotated, kind: Kind) -> TeacherReply:
        messages = (Message("system", kind.system_prompt), Message("user", symbols(picture)))
        async with gate:
            return await teacher.reply(TeacherRequest(messages, seed=seed))

    wanted = [(picture, kind) for picture in pictures for kind in kinds]
    replies = await asyncio.gather(*(ask(picture, kind) for picture, kind in wanted))
    result = Generated()
    for (picture, kind), reply in zip(wanted, replies, strict=True):
        try:
            if reply.finish != "stop":
                raise Unreadable(f"the reply was cut ({reply.finish})")
            spoken = kind.read(reply.text, random.Random(f"{seed}/{kind.name}/{picture.id}"))
        except Unreadable as reason:
            result.rejected.append(Rejected(picture.image, kind.name, str(reason), reply.text))
            continue
        meta = {"kind": kind.name, "teacher": reply.model}
        result.conversations.append(conversation(f"{kind.name}-{picture.id}", picture.image, spoken, meta))
    return result


def caption_pairs(
    pictures: Sequence[Annotated], *, seed: int = 0, questions: Sequence[str] = BRIEF_QUESTIONS
) -> list[Conversation]:
    """Stage 1's data: a question drawn from a list and, as its answer, the first caption people wrote for the picture
    (LLaVA, section 4.1)."""
    pairs = []
    for picture in pictures:
        question = random.Random(f"{seed}/caption/{picture.id}").choice(questions)
        spoken = [(question, picture.captions[0])]
        pairs.append(conversation(f"caption-{picture.id}", picture.image, spoken, {"kind": "caption"}))
    return pairs


def conversation(
    name: str, image: str, spoken: Sequence[tuple[str, str]], meta: dict[str, str]
) -> Conversation:
    """Questions and answers about one picture as a record, the picture on its own line before the first question."""
    turns = []
    for number, (question, answer) in enumerate(spoken):
        ahead = (Picture(0), Text("\n" + question)) if number == 0 else (Text(question),)
        turns += [Turn("user", ahead), Turn("assistant", (Text(answer),))]
    return Conversation(name, "", (image,), tuple(turns), meta)
