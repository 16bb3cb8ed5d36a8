"""Where an answer ends, and what its text is.

An answer ends at an id that the tokenizer, the checkpoint or the template names, or where its text holds a stop string
that is no token of its own (`###` of the v0 template). The text never contains the stop.

Knows a tokenizer and token ids. Knows no tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from llavakit.conversation.templates import get_template

if TYPE_CHECKING:
    from llavakit.model.llava import Llava

# Tokens decoded beyond a stop string's characters when looking for it, for tokens that are only part of a character.
_SLACK = 8


def stop_ids(model: Llava) -> frozenset[int]:
    """Every id at which an answer of this model ends, whatever was asked."""
    generation = getattr(model.language_model, "generation_config", None)
    found: set[int | None] = set()
    for value in (model.tokenizer.eos_token_id, getattr(generation, "eos_token_id", None)):
        found |= set(value) if isinstance(value, list | tuple) else {value}
    for text in template_stops(model):
        found.add(_own_token(model.tokenizer, text))
    return frozenset(token for token in found if token is not None)


def template_stops(model: Llava) -> tuple[str, ...]:
    """The texts at which the model's template ends an answer."""
    return get_template(model.settings.template, model.tokenizer).stop


def _own_token(tokenizer: Any, text: str) -> int | None:
    """The id of an added token whose text is exactly `text`."""
    return tokenizer.get_added_vocab().get(text)


def _byte_tokens(tokenizer: Any) -> frozenset[int]:
    """The ids of the tokens that stand for one byte each (`<0x0A>`), where a tokenizer has them."""
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    ids = tokenizer.convert_tokens_to_ids(names)
    return frozenset(
        token
        for name, token in zip(names, ids, strict=True)
        if token is not None and tokenizer.convert_ids_to_tokens(token) == name
    )


class Stopping:
    """The stops of one model, ready to be asked after every token."""

    def __init__(self, model: Llava, stop: Iterable[str] = ()) -> None:
        """stop: texts that end an answer besides those of the model's template."""
        self._tokenizer = model.tokenizer
        self.ids = stop_ids(model)
        texts = (*template_stops(model), *stop)
        self._strings = tuple(
            text for text in texts if text and _own_token(self._tokenizer, text) not in self.ids
        )
        self._bytes = _byte_tokens(self._tokenizer)
        self._tail = max((len(text) for text in self._strings), default=0) + _SLACK

    def ended(self, ids: Sequence[int]) -> bool:
        """Whether the answer that these ids make so far is over."""
        if ids and ids[-1] in self.ids:
            return True
        if not self._strings:
            return False
        tail = self._tokenizer.decode(ids[-self._tail :], skip_special_tokens=True)
        return any(text in tail for text in self._strings)

    def text(self, ids: Sequence[int]) -> str:
        """The answer that ids make: without special tokens, up to the first stop, without space around it."""
        return self._cut(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def sure_text(self, ids: Sequence[int]) -> str:
        """The part of `text(ids)` that no further token can change; for showing an answer while it is written."""
        known = len(ids)
        while known and ids[known - 1] in self._bytes:  # what bytes mean is known when the last of them is
            known -= 1
        text = self._tokenizer.decode(list(ids[:known]), skip_special_tokens=True)
        cut = self._cut(text)
        if cut == text:
            text = text.rstrip("\ufffd")
            for length in range(max((len(s) for s in self._strings), default=0), 0, -1):
                if any(stop.startswith(text[-length:]) for stop in self._strings):
                    text = text[:-length]
                    break
            cut = text
        return cut.strip()

    def _cut(self, text: str) -> str:
        places = [place for stop in self._strings if (place := text.find(stop)) >= 0]
        return text[: min(places)] if places else text
