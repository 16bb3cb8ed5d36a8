"""A causal language model alone, with those parts of a LLaVA that generation asks for.

It places tokens and scores them as `Llava` does, under the chat template of its own tokenizer, and sees no pictures.

Shapes: n positions, D width, K vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from llavakit.conversation.templates import get_template
from llavakit.errors import LlavakitError
from llavakit.model.language import apply_head, load_language_model, token_embedding


@dataclass(frozen=True, slots=True)
class TextSettings:
    """template: the chat template by which the model is spoken to."""

    template: str = "tokenizer"


class TextModel:
    """A language model and its tokenizer; `generation`, `reuse` and `stops` take it in place of a `Llava`."""

    training = False

    def __init__(self, language_model: PreTrainedModel, tokenizer: Any, template: str = "tokenizer") -> None:
        """Raises LlavakitError when there is no such template, or the tokenizer has none of its own."""
        get_template(template, tokenizer)
        self.language_model, self.tokenizer = language_model.eval(), tokenizer
        self.settings = TextSettings(template)

    @classmethod
    def open(cls, source: str, dtype: torch.dtype = torch.float32) -> TextModel:
        """Opens a source as `load_language_model` does: a folder, a hub name, a package's file, a GGUF file."""
        return cls(*load_language_model(source, dtype))

    @property
    def device(self) -> torch.device:
        return next(self.language_model.parameters()).device

    def place(self, ids: Tensor, rows_MD: Tensor | None) -> Tensor:
        """Token embeddings (..., D) of ids. Raises LlavakitError for rows of pictures."""
        if rows_MD is not None:
            raise LlavakitError("a language model alone sees no pictures; expected a prompt of text")
        return token_embedding(self.language_model)(ids)

    def head(self, hidden_nD: Tensor) -> Tensor:
        """Scores (n, K) of hidden states."""
        return apply_head(self.language_model, hidden_nD)
