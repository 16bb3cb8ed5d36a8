"""The tokenizer's own chat template as one of ours.

A chat template is a Jinja program that only gives text. To know which of that text is the template's and which is data,
the program is run on placeholders alone, once for each sequence of roles: what stands between them is the template's.
Then it is run on the real words, and must give the same text with the words in their places. Where it writes words in
its own way (many trim them, some leave out an earlier answer's reasoning), what it makes of them is read off their
place. So the pieces are always what the program itself writes, and nothing that a user writes is ever taken for the
template's.

Supervised are the assistant's words, the special token that closes them, and what stands before them that a prompt does
not have, since the model must write it itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llavakit.conversation.record import Conversation, ConversationError, Picture, Turn
from llavakit.conversation.templates import Piece, Slot, Written, control, finished
from llavakit.errors import LlavakitError

_EDGES = range(0xE000, 0xF8FF)  # Unicode's private use area: no character of any script
_ROLES = ("user", "assistant")


@dataclass(frozen=True)
class _Skeleton:
    """What the template writes around turns: `fragments` before, between and after them. order: the numbers of the
    turns as they are met in the text."""

    fragments: tuple[str, ...]
    order: tuple[int, ...]

    def filled(self, words: Sequence[str]) -> str:
        parts = [self.fragments[0]]
        for number, fragment in zip(self.order, self.fragments[1:], strict=True):
            parts += [words[number], fragment]
        return "".join(parts)


@dataclass(frozen=True)
class OwnTemplate:
    """Writes with `tokenizer.apply_chat_template`. `end` is the token that closes an answer; `gap` stands between a
    prompt and its answer."""

    tokenizer: Any
    end: str
    gap: str = ""
    name: str = "tokenizer"
    _skeletons: dict[tuple[tuple[str, ...], bool], _Skeleton] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def stop(self) -> tuple[str, ...]:
        return (self.end,)

    def write(self, conversation: Conversation, *, prompt: bool = False) -> list[Piece]:
        """See `Template.write`. Raises ConversationError also when the template's own words depend on the turns'."""
        turns = conversation.turns
        finished(self.name, conversation, turns, [], prompt)
        roles = tuple(turn.role for turn in turns)
        skeleton = self._skeletons.get((roles, prompt))
        if skeleton is None:
            skeleton = self._skeletons[roles, prompt] = _skeleton(self.tokenizer, roles, prompt)
        edge = _free(turn.text for turn in turns)
        words = [_flat(turn, edge) for turn in turns]
        rendered = _render(self.tokenizer, roles, words, prompt)
        if rendered != skeleton.filled(words):
            words = [
                self._as_rendered(skeleton, roles, words, number, prompt) for number in range(len(turns))
            ]
            if rendered != skeleton.filled(words):
                raise ConversationError(
                    f"conversation {conversation.id!r}: the tokenizer's chat template writes it otherwise than turn by "
                    "turn, so what is learnt cannot be told; name another template"
                )
        pieces = control(skeleton.fragments[0])
        for number, following in zip(skeleton.order, skeleton.fragments[1:], strict=True):
            answered = roles[number] == "assistant"
            if answered and self.gap:
                pieces = _part_gap(pieces, self.gap)
            pieces += _content(words[number], edge, answered)
            learnt, rest = _after_answer(following, self.end) if answered else ("", following)
            pieces += control(learnt, True) + control(rest)
        return pieces

    def _as_rendered(
        self, skeleton: _Skeleton, roles: tuple[str, ...], words: list[str], number: int, prompt: bool
    ) -> str:
        """What the template makes of one turn's words, seen between placeholders for all others."""
        edge = _free(words)
        places = [f"{edge}{other}{edge}" for other in range(len(roles))]
        shown = _render(
            self.tokenizer, roles, [*places[:number], words[number], *places[number + 1 :]], prompt
        )
        before, _, after = skeleton.filled(places).partition(places[number])
        if not (
            shown.startswith(before) and shown.endswith(after) and len(shown) >= len(before) + len(after)
        ):
            raise ConversationError(
                f"the tokenizer's chat template changes its own words when it writes {words[number][:60]!r} for the "
                f"{roles[number]}, so what is learnt cannot be told; change these words or name another template"
            )
        return shown[len(before) : len(shown) - len(after)]


def own_template(tokenizer: Any) -> OwnTemplate:
    """Raises LlavakitError when the tokenizer has no chat template, or one that ends answers with no added token."""
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        raise LlavakitError(
            'template "tokenizer" needs a tokenizer that carries a chat template, and this one has none; name a '
            "template such as vicuna_v1 or qwen instead"
        )
    answered = _skeleton(tokenizer, _ROLES, False)
    following = answered.fragments[2]
    marks = [
        (not token.special, following.index(token.content), -len(token.content), token.content)
        for token in tokenizer.added_tokens_decoder.values()
        if token.content.strip() and token.content in following
    ]
    if not marks:
        raise LlavakitError(
            "the tokenizer's chat template puts no special token after an answer, so a model could not learn to stop; "
            "name another template"
        )
    asked = _skeleton(tokenizer, _ROLES[:1], True).fragments[1]
    between = answered.fragments[1]
    gap = between[len(asked) :] if between.startswith(asked) else ""
    return OwnTemplate(tokenizer, min(marks)[3], gap)


def _skeleton(tokenizer: Any, roles: tuple[str, ...], prompt: bool) -> _Skeleton:
    edge = chr(_EDGES[0])
    text = _render(tokenizer, roles, [f"{edge}{number}{edge}" for number in range(len(roles))], prompt)
    parts = re.split(f"{edge}(\\d+){edge}", text)
    order = tuple(int(number) for number in parts[1::2])
    if sorted(order) != list(range(len(roles))):
        raise ConversationError(
            f"the tokenizer's chat template leaves out or repeats turns of {', '.join(roles)}; name another template"
        )
    return _Skeleton(tuple(parts[0::2]), order)


def _free(texts: Any) -> str:
    """A private character that none of the texts holds."""
    held = "".join(texts)
    edge = next((chr(code) for code in _EDGES if chr(code) not in held), None)
    if edge is None:
        raise ConversationError(
            "a text holds every private character of Unicode, so nothing is left to mark with"
        )
    return edge


def _flat(turn: Turn, edge: str) -> str:
    """A turn's words with marks where pictures stand."""
    return "".join(f"{edge}{p.index}{edge}" if isinstance(p, Picture) else p.text for p in turn.parts)


def _content(words: str, edge: str, supervised: bool) -> list[Piece]:
    """The pieces of what `_flat` wrote."""
    pieces: list[Piece] = []
    for number, part in enumerate(words.split(edge)):
        if number % 2:
            pieces.append(Slot(int(part)))
        elif part:
            pieces.append(Written(part, False, supervised))
    return pieces


def _part_gap(pieces: list[Piece], gap: str) -> list[Piece]:
    """The pieces with the gap at their end, if it is there, as one of its own that is supervised."""
    last = pieces[-1] if pieces else None
    if not isinstance(last, Written) or not last.control or not last.text.endswith(gap):
        return pieces
    return [*pieces[:-1], *control(last.text.removesuffix(gap), last.supervised), *control(gap, True)]


def _after_answer(following: str, end: str) -> tuple[str, str]:
    before, mark, after = following.partition(end)
    return (before + mark, after) if mark else ("", following)


def _render(tokenizer: Any, roles: Sequence[str], words: Sequence[str], prompt: bool) -> str:
    messages = [{"role": role, "content": text} for role, text in zip(roles, words, strict=True)]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    except Exception as error:  # the Jinja program may raise anything; its own words say what it wants
        raise ConversationError(
            f"the tokenizer's chat template cannot write turns of {', '.join(roles)}: {error}; name another template"
        ) from error
    return str(text)
