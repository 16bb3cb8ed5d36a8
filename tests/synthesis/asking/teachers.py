"""Teachers and clocks of which a test knows everything."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator

from llavakit.synthesis.teacher import Message, TeacherError, TeacherReply, TeacherRequest, Trouble, Usage


def requests(number: int, *, model: str = "m", max_tokens: int = 100) -> Iterator[TeacherRequest]:
    return (
        TeacherRequest((Message("user", f"question {n}"),), model, max_tokens=max_tokens)
        for n in range(number)
    )


def replied(request: TeacherRequest, finish: str = "stop", usage: Usage | None = None) -> TeacherReply:
    text = f"answer to {request.messages[-1].content}"
    return TeacherReply(
        text, "m-2026", finish, usage or Usage(10, 5), request_id="r", raw=f'{{"said": "{text}"}}'
    )


class Scripted:
    """A teacher with a script: (request, number of the attempt) to a reply or an error."""

    name = "scripted"

    def __init__(
        self, script: Callable[[TeacherRequest, int], TeacherReply | TeacherError], seconds: float = 0
    ) -> None:
        self.script, self.seconds = script, seconds
        self.calls: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0

    async def reply(self, request: TeacherRequest) -> TeacherReply:
        content = request.messages[-1].content
        self.calls[content] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.seconds)
            said = self.script(request, self.calls[content])
        finally:
            self.at_once -= 1
        if isinstance(said, TeacherError):
            raise said
        return said


def trouble(kind: Trouble, **told: object) -> TeacherError:
    return TeacherError(kind, f"it is {kind.value}", **told)  # type: ignore[arg-type]


class Hurried:
    """A clock on which waiting takes a thousandth of its time."""

    def now(self) -> float:
        return asyncio.get_running_loop().time() * 1000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 1000)
