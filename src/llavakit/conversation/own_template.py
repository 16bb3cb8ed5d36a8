"""The tokenizer's own chat template as one of ours.

A chat template is a Jinja program that only gives text. To know which of that text is the template's and which is
data, the program is run on placeholders alone, once for each sequence of roles, and the real words are put in their
places afterwards. So nothing that a user writes is ever seen by the program, and the mark of a picture is never text at
all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from llavakit.conversation.record import Conversation, ConversationError
from llavakit.conversation.templates import Piece, Written, content, control, finished
from llavakit.errors import LlavakitError

_PLACE = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True)
class OwnTemplate:
    """Writes with `tokenizer.apply_chat_template`. `end` is the special token that closes an answer."""

    tokenizer: Any
    end: str
    name: str = "tokenizer"
    _skeletons: dict[tuple[tuple[str, ...], bool], list[str]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def stop(self) -> tuple[str, ...]:
        return (self.end,)

    def write(self, conversation: Conversation, *, prompt: bool = False) -> list[Piece]:
        turns = conversation.turns
        finished(self.name, conversation, turns, [], prompt)
        key = tuple(turn.role for turn in turns), prompt
        fragments = self._skeletons.get(key)
        if fragments is None:
            fragments = self._skeletons[key] = _PLACE.split(_render(self.tokenizer, [*key[0]], prompt))
        if [int(number) for number in fragments[1::2]] != list(range(len(turns))):
            raise ConversationError(
                f"conversation {conversation.id!r} cannot be written: the tokenizer's chat template leaves out, "
                "repeats or reorders turns; name another template"
            )
        pieces = control(fragments[0])
        for turn, following in zip(turns, fragments[2::2], strict=True):
            answered = turn.role == "assistant"
            pieces += content(turn, answered)
            learnt, rest = _after_answer(following, self.end) if answered else ("", following)
            pieces += control(learnt, True) + control(rest)
        return pieces


def own_template(tokenizer: Any) -> OwnTemplate:
    """Raises LlavakitError when the tokenizer has no chat template, or one that ends answers with no special token."""
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        raise LlavakitError(
            'template "tokenizer" needs a tokenizer that carries a chat template, and this one has none; name a '
            "template such as vicuna_v1 or qwen instead"
        )
    skeleton = _render(tokenizer, ["user", "assistant"], False)
    fragments = _PLACE.split(skeleton)
    if fragments[1::2] != ["0", "1"]:
        raise LlavakitError(
            "the tokenizer's chat template leaves out, repeats or reorders turns; name another template"
        )
    following = fragments[4]
    marks = sorted(
        (following.index(token), -len(token), token)
        for token in special_tokens(tokenizer)
        if token in following
    )
    if not marks:
        raise LlavakitError(
            "the tokenizer's chat template puts no special token after an answer, so a model could not learn to stop; "
            "name another template"
        )
    return OwnTemplate(tokenizer, marks[0][2])


def special_tokens(tokenizer: Any) -> list[str]:
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]


def _after_answer(following: str, end: str) -> tuple[str, str]:
    before, mark, after = following.partition(end)
    return (before + mark, after) if mark else ("", following)


def _render(tokenizer: Any, roles: list[str], prompt: bool) -> str:
    messages = [{"role": role, "content": f"\ue000{number}\ue001"} for number, role in enumerate(roles)]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    except Exception as error:  # the Jinja program may raise anything; its own words say what it wants
        raise ConversationError(
            f"the tokenizer's chat template cannot write turns of {', '.join(roles)}: {error}; name another template"
        ) from error
    return str(text)


__all__ = ["OwnTemplate", "Written", "own_template", "special_tokens"]
