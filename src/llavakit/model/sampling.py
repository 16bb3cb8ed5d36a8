"""Choosing the next token from scores: the best one, or one drawn from the likely ones.

Draws come from numbers made ahead, a row of them for each answer, so that an answer does not depend on which others
were computed beside it.

Shapes: B answers, K vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llavakit.errors import LlavakitError


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. temperature: 0 takes the best token. top_p: only the likeliest tokens that together reach
    this probability are drawn from. seed: of the draws."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise LlavakitError(f"temperature is {self.temperature}, expected 0 (no chance) or more")
        if not 0 < self.top_p <= 1:
            raise LlavakitError(f"top_p is {self.top_p}, expected more than 0 and at most 1")

    def draws(self, answer: int, tokens: int) -> Tensor:
        """Uniform numbers for the tokens of the answer of this number, on the CPU."""
        if self.temperature == 0:
            return torch.zeros(tokens)
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + answer) % 2**63)
        return torch.rand(tokens, generator=generator)

    def choose(self, logits_BK: Tensor, draws_B: Tensor) -> Tensor:
        """The next token ids (B,) given one draw each."""
        if self.temperature == 0:
            return logits_BK.argmax(dim=-1)
        probabilities_BK = (logits_BK.float() / self.temperature).softmax(dim=-1)
        sorted_BK, ids_BK = probabilities_BK.sort(dim=-1, descending=True)
        before_BK = sorted_BK.cumsum(dim=-1) - sorted_BK
        kept_BK = sorted_BK * (before_BK < self.top_p)
        reached_BK = kept_BK.cumsum(dim=-1)
        target_B1 = draws_B.to(reached_BK.device)[:, None] * reached_BK[:, -1:]
        place_B1 = (reached_BK <= target_B1).sum(dim=-1, keepdim=True)
        last_B1 = (kept_BK > 0).sum(dim=-1, keepdim=True) - 1
        return ids_BK.gather(-1, place_B1.minimum(last_B1)).squeeze(-1)
