"""Templates: how a conversation is written for a language model, and which of it is learnt.

A template writes a conversation as pieces. A piece is text with two marks, whether it is the template's own (special
tokens may stand only there) and whether it is supervised, or the slot of a picture. Labels come from these marks, never
from looking at the written text again.

Supervised is always the assistant's words, the space that parts them from its header, and the token or sign that ends
them. Upstream's `v0` also supervised the
header `### Assistant:`, and its ChatML and LLaMA-3 paths the marks of every turn; those are left out here, since a
model never has to say them.

Knows records and plain strings. Knows nothing of ids; `tokenize` turns pieces into them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from llavakit.conversation.record import Conversation, ConversationError, Picture, Text, Turn
from llavakit.errors import LlavakitError

Order = Literal["as_written", "first", "random"]


@dataclass(frozen=True, slots=True)
class Written:
    """Text. control: the template's own words, where special tokens may stand. supervised: learnt."""

    text: str
    control: bool
    supervised: bool


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of picture `index`."""

    index: int


Piece = Written | Slot

MARKED = "+im_start_end"
PICTURE_MARKS = ("<im_start>", "<im_end>")


class Template(Protocol):
    """name: as recipes call it. stop: texts at which an answer ends when generated."""

    @property
    def name(self) -> str: ...
    @property
    def stop(self) -> tuple[str, ...]: ...
    def write(self, conversation: Conversation, *, prompt: bool = False) -> list[Piece]:
        """The pieces of a conversation; with `prompt` it ends with a user's turn and the writing stops where the
        assistant begins to speak. Raises ConversationError when the template cannot write it."""
        ...


def control(text: str, supervised: bool = False) -> list[Piece]:
    return [Written(text, True, supervised)] if text else []


def content(turn: Turn, supervised: bool = False) -> list[Piece]:
    """A turn's own parts, pictures as slots."""
    return [
        Slot(part.index) if isinstance(part, Picture) else Written(part.text, False, supervised)
        for part in turn.parts
        if isinstance(part, Picture) or part.text
    ]


def split_system(conversation: Conversation, default: str) -> tuple[list[Piece], tuple[Turn, ...]]:
    """What the system says, the template's own default or the conversation's turn, and the turns after it."""
    turns = conversation.turns
    if turns and turns[0].role == "system":
        return content(turns[0]), turns[1:]
    return control(default), turns


def exchanges(turns: tuple[Turn, ...]) -> Iterator[tuple[bool, Turn, Turn | None]]:
    """(is the first, the user's turn, the assistant's turn or None where it has yet to speak)."""
    for start in range(0, len(turns), 2):
        yield start == 0, turns[start], turns[start + 1] if start + 1 < len(turns) else None


@dataclass(frozen=True)
class RoleTemplate:
    """Every turn between a header and an end: the form of all templates but `plain` and LLaMA-2's.

    before_system/after_system stand around what the system says. `end` closes an answer and is learnt; `after_answer`
    follows it and is not. `gap` stands between the assistant's header and the answer. It is left away in a prompt,
    where the tokenizer would part it from the word it belongs to; so the model has to say it, and it is learnt.
    """

    name: str
    stop: tuple[str, ...]
    system: str
    before_system: str
    after_system: str
    user: str
    after_user: str
    assistant: str
    gap: str
    end: str
    after_answer: str

    def write(self, conversation: Conversation, *, prompt: bool = False) -> list[Piece]:
        system, turns = split_system(conversation, self.system)
        pieces = [*control(self.before_system), *system, *control(self.after_system)] if system else []
        for _, asked, answer in exchanges(turns):
            pieces += control(self.user) + content(asked) + control(self.after_user + self.assistant)
            if answer is not None:
                pieces += control(self.gap, True) + content(answer, True)
                pieces += control(self.end, True) + control(self.after_answer)
        return finished(self.name, conversation, turns, pieces, prompt)


@dataclass(frozen=True)
class LlamaTwoTemplate:
    """`[INST] ... [/INST] answer </s>`; the system's words stand inside the first instruction when there are any."""

    name: str
    stop: tuple[str, ...]
    system: str

    def write(self, conversation: Conversation, *, prompt: bool = False) -> list[Piece]:
        system, turns = split_system(conversation, self.system)
        pieces: list[Piece] = []
        for first, asked, answer in exchanges(turns):
            opening = "[INST] " if first or self.name == "mistral" else "<s>[INST] "
            pieces += control(opening)
            if first and system:
                pieces += [*control("<<SYS>>\n"), *system, *control("\n<</SYS>>\n\n")]
            pieces += content(asked) + control(" [/INST]")
            if answer is not None:
                pieces += control(" ", True) + content(answer, True) + control(" </s>", True)
        return finished(self.name, conversation, turns, pieces, prompt)


@dataclass(frozen=True)
class PlainTemplate:
    """Stage 1's: the pictures and the caption, no roles, no instruction; the caption and its line end are learnt."""

    name: str = "plain"
    stop: tuple[str, ...] = ("\n",)

    def write(self, conversation: Conversation, *, prompt: bool = False) -> list[Piece]:
        turns = conversation.turns
        if len(turns) > 2 or not any(isinstance(part, Picture) for part in turns[0].parts):
            raise ConversationError(
                f"conversation {conversation.id!r} has {len(turns)} turns and {len(conversation.images)} pictures; "
                "template plain writes one picture and its caption, so use another template for this data"
            )
        pieces: list[Piece] = [Slot(part.index) for part in turns[0].parts if isinstance(part, Picture)]
        if len(turns) == 2:
            pieces += content(turns[1], True) + control("\n", True)
        return finished(self.name, conversation, turns, pieces, prompt)


@dataclass(frozen=True)
class MarkedTemplate:
    """Another template with every picture between `<im_start>` and `<im_end>`, as models before LLaVA v1.5 were
    taught (`mm_use_im_start_end`). It is named as the other, with MARKED behind."""

    inner: Template

    @property
    def name(self) -> str:
        return self.inner.name + MARKED

    @property
    def stop(self) -> tuple[str, ...]:
        return self.inner.stop

    def write(self, conversation: Conversation, *, prompt: bool = False) -> list[Piece]:
        pieces: list[Piece] = []
        for piece in self.inner.write(conversation, prompt=prompt):
            marked = isinstance(piece, Slot)
            pieces += [*control(PICTURE_MARKS[0]), piece, *control(PICTURE_MARKS[1])] if marked else [piece]
        return pieces


def finished(
    name: str, conversation: Conversation, turns: tuple[Turn, ...], pieces: list[Piece], prompt: bool
) -> list[Piece]:
    """Checks that a prompt ends with the user and anything else with the assistant."""
    last = turns[-1].role if turns else "nobody"
    if last != ("user" if prompt else "assistant"):
        raise ConversationError(
            f"conversation {conversation.id!r} ends with {last}; template {name} writes "
            + (
                "a prompt, which ends with the user"
                if prompt
                else "whole conversations, which end with an answer"
            )
        )
    return pieces


_VISION = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
_L3_END = "<|eot_id|>"


def _chat_of(who: str) -> str:
    return (
        f"A chat between a curious {who} and an artificial intelligence assistant. "
        f"The assistant gives helpful, detailed, and polite answers to the {who}'s questions."
    )


def _l3(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


_NAMED: dict[str, Callable[[], Template]] = {
    "plain": PlainTemplate,
    "v0": lambda: RoleTemplate(
        "v0", ("###",), _chat_of("human"),
        "", "\n\n### ", "Human: ", "\n### ", "Assistant:", " ", "\n###", " ",
    ),
    "vicuna_v1": lambda: RoleTemplate(
        "vicuna_v1", ("</s>",), _chat_of("user"),
        "", " ", "USER: ", " ", "ASSISTANT:", " ", "</s>", "",
    ),
    "llama_2": lambda: LlamaTwoTemplate("llama_2", ("</s>",), _VISION),
    "mistral": lambda: LlamaTwoTemplate("mistral", ("</s>",), ""),
    "chatml_direct": lambda: RoleTemplate(
        "chatml_direct", ("<|im_end|>",), "Answer the questions.",
        "<|im_start|>system\n", "<|im_end|>", "<|im_start|>user\n", "<|im_end|>", "<|im_start|>assistant\n", "",
        "<|im_end|>", "",
    ),
    "llama_3": lambda: RoleTemplate(
        "llama_3", (_L3_END,), _VISION, _l3("system"), _L3_END, _l3("user"), _L3_END, _l3("assistant"), "", _L3_END, "",
    ),
    "qwen": lambda: RoleTemplate(
        "qwen", ("<|im_end|>",), "You are a helpful assistant.",
        "<|im_start|>system\n", "<|im_end|>\n", "<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n", "",
        "<|im_end|>", "\n",
    ),
}  # fmt: skip


def template_names() -> list[str]:
    return [*_NAMED, "tokenizer"]


def get_template(name: str, tokenizer: Any = None) -> Template:
    """The template of this name; "tokenizer" is the chat template that `tokenizer` carries.

    With MARKED behind the name, pictures stand between PICTURE_MARKS.

    Raises LlavakitError for an unknown name, or when the tokenizer has no chat template that can be used.
    """
    if name.endswith(MARKED):
        return MarkedTemplate(get_template(name.removesuffix(MARKED), tokenizer))
    if name == "tokenizer":
        from llavakit.conversation.own_template import own_template

        return own_template(tokenizer)
    if name not in _NAMED:
        raise LlavakitError(f"there is no template {name!r}; the templates are {', '.join(template_names())}")
    return _NAMED[name]()


def arrange_pictures(conversation: Conversation, order: Order, rng: random.Random) -> Conversation:
    """Sets the picture of the first user's turn before or after its words (LLaVA, section 4.2).

    "first": before them; "random": before or after, each half of the time; on a line of its own either way. Only a
    first turn that shows exactly one picture and says something is rearranged; pictures of later turns stay.
    """
    at = next((number for number, turn in enumerate(conversation.turns) if turn.role == "user"), None)
    if order == "as_written" or at is None:
        return conversation
    turn = conversation.turns[at]
    shown = [part for part in turn.parts if isinstance(part, Picture)]
    words = turn.text.strip()
    if len(shown) != 1 or not words:
        return conversation
    ahead = order == "first" or rng.random() < 0.5
    parts = (shown[0], Text("\n" + words)) if ahead else (Text(words + "\n"), shown[0])
    turns = (*conversation.turns[:at], replace(turn, parts=parts), *conversation.turns[at + 1 :])
    return replace(conversation, turns=turns)
