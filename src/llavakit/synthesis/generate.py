"""From annotated pictures to conversations in one go, in memory: for small data and teachers that cost nothing.

For every picture and kind the teacher is asked once. A reply that was cut or cannot be read is kept with its reason; it
never becomes data. What has to survive an interruption, or costs money, goes through `asking` instead.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from llavakit.conversation.record import Conversation
from llavakit.synthesis.context import Annotated
from llavakit.synthesis.prompt_folder import PromptFolder
from llavakit.synthesis.tasks import Task, conversation, make_tasks, read_reply
from llavakit.synthesis.teacher import Teacher, TeacherReply


@dataclass(frozen=True, slots=True)
class Rejected:
    """A reply that did not become data: which picture, which kind, why, and what the teacher wrote."""

    image: str
    kind: str
    reason: str
    reply: str


@dataclass(slots=True)
class Generated:
    """skipped: pictures that were not asked about, by `kind: reason`."""

    conversations: list[Conversation] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def generate(
    pictures: Sequence[Annotated],
    kinds: Sequence[PromptFolder],
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
    result = Generated()
    tasks = list(make_tasks(pictures, kinds, seed=seed, skipped=result.skipped))
    replies = asyncio.run(_ask(tasks, teacher, concurrency))
    for task, reply in zip(tasks, replies, strict=True):
        candidate = read_reply(task, reply)
        if candidate.unreadable:
            image = candidate.picture.image
            result.rejected.append(Rejected(image, task.kind, candidate.unreadable, reply.text))
        else:
            result.conversations.append(conversation(candidate))
    return result


async def _ask(tasks: Sequence[Task], teacher: Teacher, concurrency: int) -> list[TeacherReply]:
    gate = asyncio.Semaphore(concurrency)

    async def ask(task: Task) -> TeacherReply:
        async with gate:
            return await teacher.reply(task.request)

    return await asyncio.gather(*map(ask, tasks))
