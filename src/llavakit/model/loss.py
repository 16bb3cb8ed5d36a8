"""The loss: cross-entropy at the supervised positions only, summed, a chunk of positions at a time.

The scores of one position are as wide as the vocabulary, so all of them at once are the largest tensor of a training
step. Here they exist for one chunk of positions and are computed again in the backward pass.

Knows hidden states, a head and targets. Does not normalise: that needs the count over a whole global batch.

Shapes: S supervised positions, D width of the LLM, K vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Scores that may exist at once when no chunk is given: 2**25 float32 are 128 MiB.
_SCORES_AT_ONCE = 2**25
_SMALLEST_CHUNK = 256


def chunk_size(vocabulary: int) -> int:
    """Positions in a chunk so that their scores stay near 128 MiB in float32, and never fewer than 256."""
    return max(_SMALLEST_CHUNK, _SCORES_AT_ONCE // max(vocabulary, 1))


def chunked_cross_entropy(
    hidden_SD: Tensor, head: Callable[[Tensor], Tensor], targets_S: Tensor, chunk: int
) -> Tensor:
    """The sum over S of the cross-entropy of `head(hidden)` against the targets, as a float32 scalar.

    head: from hidden states (n, D) to scores (n, K). chunk: positions scored at once; with more than one chunk the
    scores are not kept but computed again in the backward pass. No positions give a zero that still has a gradient.
    """
    if hidden_SD.shape[0] == 0:
        return hidden_SD.sum().float()

    def scored(hidden_nD: Tensor, targets_n: Tensor) -> Tensor:
        return F.cross_entropy(head(hidden_nD).float(), targets_n, reduction="sum")

    if hidden_SD.shape[0] <= chunk:
        return scored(hidden_SD, targets_S)
    total = torch.zeros((), dtype=torch.float32, device=hidden_SD.device)
    for hidden_nD, targets_n in zip(hidden_SD.split(chunk), targets_S.split(chunk), strict=True):
        total = total + checkpoint(scored, hidden_nD, targets_n, use_reentrant=False)
    return total
