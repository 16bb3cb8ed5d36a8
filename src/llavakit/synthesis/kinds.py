"""The three kinds of instruction data, with the prompt that asks for each and the way its reply is read.

LLaVA's three (section 3 of the paper): a conversation of several questions, a detailed description, and one question
that takes reasoning. A dialogue comes back as blocks of `Question:` and `Answer:` parted by lines of `===`; a
description comes back as it is, and its question is drawn from a list.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from importlib.resources import files

from llavakit.errors import LlavakitError

DETAIL_QUESTIONS = (
    "Describe the picture in detail.",
    "Describe everything that you see.",
    "Tell me all about this picture.",
    "What does the picture show? Leave nothing out.",
)
BRIEF_QUESTIONS = (
    "Describe the picture briefly.",
    "Say in a few words what is here.",
    "Give a short caption for this picture.",
    "What is this a picture of?",
)


class Unreadable(LlavakitError):
    """A reply that is not in the form its prompt asked for."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of data: its name, and whether the reply is a dialogue or one description."""

    name: str
    is_dialogue: bool

    @property
    def system_prompt(self) -> str:
        return (files("llavakit.synthesis") / "prompts" / f"{self.name}.txt").read_text("utf-8").strip()

    def read(self, reply: str, rng: random.Random) -> list[tuple[str, str]]:
        """The questions and answers of a reply.

        Raises:
            Unreadable: the reply is empty, or is no run of questions each followed by its answer.
        """
        if self.is_dialogue:
            return read_dialogue(reply)
        if not reply.strip():
            raise Unreadable("the description is empty")
        return [(rng.choice(DETAIL_QUESTIONS), reply.strip())]


KINDS = {
    kind.name: kind for kind in (Kind("conversation", True), Kind("detail", False), Kind("reasoning", True))
}


def read_dialogue(reply: str) -> list[tuple[str, str]]:
    """Read blocks `Question:`, text, `===`, `Answer:`, text, `===`, in strict alternation."""
    blocks = [block.strip() for block in re.split(r"^===\s*$", reply, flags=re.MULTILINE) if block.strip()]
    spoken = []
    for number, block in enumerate(blocks):
        label, _, text = block.partition("\n")
        expected = ("Question:", "Answer:")[number % 2]
        if label.strip() != expected or not text.strip():
            raise Unreadable(
                f"block {number + 1} begins with {label[:40]!r}; expected {expected!r} and a text below it"
            )
        spoken.append(text.strip())
    if not spoken or len(spoken) % 2:
        raise Unreadable(f"{len(spoken)} blocks do not pair up as questions and answers")
    return list(zip(spoken[::2], spoken[1::2], strict=True))
