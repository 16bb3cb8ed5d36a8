"""A teacher made of rules, behind the interface of every teacher.

It gets what a language model would get, a system prompt and a picture's captions and boxes as text, and nothing else.
It works out which things there are (the boxes say what and where, the captions say of which colour) and writes the
reply in the form that the prompt asks for. It can read the captions that `scenes` writes; others it refuses.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from llavakit.quickstart.questions import REASONING, describe, dialogue
from llavakit.quickstart.scenes import COLOURS, COLUMNS, PICTURE_SIZE, ROWS, Thing
from llavakit.synthesis.kinds import open_kinds
from llavakit.synthesis.prompt_folder import PromptFolder
from llavakit.synthesis.teacher import TeacherError, TeacherReply, TeacherRequest, Trouble

TURNS = 8
MENTION = re.compile(
    rf"\ban? (small|large) ({'|'.join(COLOURS)}) (\w+) at the ({'|'.join(ROWS)}) ({'|'.join(COLUMNS)})",
    re.IGNORECASE,
)
BOX = re.compile(r"^(\w+): \[([\d., ]+)\]$", re.MULTILINE)


class RuleTeacher:
    """Writes LLaVA's three kinds of data about scenes from their captions and boxes."""

    name = "rules"

    async def reply(self, request: TeacherRequest) -> TeacherReply:
        system, context = request.messages[0].content, request.messages[-1].content
        rng = random.Random(f"{request.seed}/{system}/{_three_decimals(context)}")
        things = understand(context)
        kind = system.partition("\n")[0].removeprefix("Task: ")
        if kind == "detail":
            text = describe(things)
        elif kind == "conversation":
            text = blocks(dialogue(things, rng, TURNS))
        elif kind == "reasoning":
            text = blocks(
                [asked for writer in REASONING.values() if (asked := writer(things, rng)) is not None]
            )
        else:
            raise TeacherError(
                Trouble.ACCESS,
                f"The rule-based teacher was asked for {kind!r}; it writes conversation, detail and reasoning.",
            )
        return TeacherReply(text, self.name)


def rule_kinds() -> list[PromptFolder]:
    """LLaVA's three kinds with prompts that hold no examples: rules learn nothing from them."""
    return open_kinds(("conversation", "detail", "reasoning"), Path(__file__).parent / "prompts")


def _three_decimals(context: str) -> str:
    """The context with every number of a box in three decimals: what is drawn does not hang on how it is printed."""
    return BOX.sub(
        lambda box: f"{box[1]}: [{', '.join(f'{float(value):.3f}' for value in box[2].split(','))}]", context
    )


def understand(context: str) -> list[Thing]:
    """The things that captions and boxes speak of: every box finds its colour and size in a caption's mention of its
    name and place.

    Raises:
        TeacherError: a box that no caption explains.
    """
    captions, _, boxes = context.partition("\n\n")
    mentions = [
        tuple(word.lower() for word in found) for found in MENTION.findall(captions.partition("\n")[0])
    ]
    things = []
    for name, corners in BOX.findall(boxes):
        left, top, right, bottom = (round(float(value) * PICTURE_SIZE) for value in corners.split(","))
        box = (left, top, right - left, bottom - top)
        place = Thing(name, "", "", box)
        size = "small" if max(box[2:]) < 32 else "large"
        fitting = [m for m in mentions if m[2:] == (name, place.row, place.column) and m[0] == size]
        if not fitting:
            raise TeacherError(
                Trouble.REFUSED,
                f"No caption says what colour the {size} {name} at the {place.place} has; the rule-based teacher "
                "reads captions like those of `llavakit quickstart`.",
            )
        mentions.remove(fitting[0])
        things.append(Thing(name, fitting[0][1], size, box))
    return things


def blocks(asked: list[tuple[str, str]]) -> str:
    return "\n".join(f"Question:\n{question}\n===\nAnswer:\n{answer}\n===" for question, answer in asked)
