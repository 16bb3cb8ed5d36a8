"""Attention that cannot cross a conversation, for any language model of `transformers`.

`transformers` lets a model look its attention up by name; importing this file registers the name `llavakit_packed`,
both as an attention function and as a mask that is never built. A packed row of many conversations is cut at
`cu_seqlens` and each conversation attends causally to itself alone, so no T x T mask exists and no time is spent on
blocks that would be masked. Without `cu_seqlens` it is plain causal attention over sequences of equal length, with or
without a key-value cache, which is what generation needs; sequences of other lengths share a batch by `seen`.

Knows query, key and value tensors and the keyword arguments that models hand down. Knows nothing of pictures.

Shapes: B batch, Q query positions, L key positions, H query heads, G key-value heads, E width of a head, T packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from llavakit.errors import LlavakitError

ATTENTION_NAME = "llavakit_packed"

# Keyword arguments that change what attention computes and that this implementation does not compute.
_UNSUPPORTED = ("s_aux", "sinks", "position_bias", "alibi", "cache")


def packed_attention(
    module: nn.Module,
    query_BHQE: Tensor,
    key_BGLE: Tensor,
    value_BGLE: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seqlens: Sequence[int] | Tensor | None = None,
    seen: Tensor | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each conversation of a packed row; returns (B, Q, H, E) and no weights.

    cu_seqlens: the boundaries of the conversations in the packed row, `[0, ..., T]`; then B is 1 and Q equals L.
    seen: which of the L positions each of the last Q may see, (B, 1, Q, L), where rows begin with empty positions.
    sliding_window: a position sees at most this many positions, itself included.
    softcap: scores become `softcap * tanh(score / softcap)` before the softmax.
    Raises LlavakitError for an attention that is not causal or that this implementation would get wrong.
    """
    if attention_mask is not None:
        raise LlavakitError(
            f"{type(module).__name__}: an attention mask was given, but packed attention takes none; "
            "pass sequences of equal length, or a packed row with cu_seqlens"
        )
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if not causal:
        raise LlavakitError(
            f"{type(module).__name__}: its attention is not causal, and only causal models can be packed"
        )
    for name in _UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise LlavakitError(
                f"{type(module).__name__}: its attention uses {name}, which llavakit cannot compute"
            )
    if sliding_window is None:
        sliding_window = getattr(module, "sliding_window", None)

    # Rotary embeddings leave query and key in float32 under autocast while value is already bfloat16.
    query_BHQE, key_BGLE = query_BHQE.to(value_BGLE.dtype), key_BGLE.to(value_BGLE.dtype)
    scale = query_BHQE.shape[-1] ** -0.5 if scaling is None else scaling

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _causal(query, key, value, scale, dropout, sliding_window, softcap, seen)

    if cu_seqlens is None:
        return attend(query_BHQE, key_BGLE, value_BGLE).transpose(1, 2).contiguous(), None

    bounds = cu_seqlens.tolist() if isinstance(cu_seqlens, Tensor) else list(cu_seqlens)
    positions = query_BHQE.shape[2]
    if query_BHQE.shape[0] != 1 or key_BGLE.shape[2] != positions or bounds[-1] != positions:
        raise LlavakitError(
            f"a packed row holds {bounds[-1]} positions by its boundaries but attention was given "
            f"{query_BHQE.shape[0]} rows of {positions} queries and {key_BGLE.shape[2]} keys"
        )
    # split, not slices: its backward pass joins the pieces once, where each slice would fill a tensor of its own.
    lengths = [end - start for start, end in pairwise(bounds)]
    half_on_cpu = value_BGLE.device.type == "cpu" and value_BGLE.dtype in (torch.bfloat16, torch.float16)
    if half_on_cpu:  # there the backward pass in float32 is several times faster
        query_BHQE, key_BGLE, value = query_BHQE.float(), key_BGLE.float(), value_BGLE.float()
    else:
        value = value_BGLE
    with torch.autocast("cpu", enabled=False) if half_on_cpu else nullcontext():
        pieces = zip(*(tensor.split(lengths, dim=2) for tensor in (query_BHQE, key_BGLE, value)), strict=True)
        output = torch.cat([attend(*piece) for piece in pieces], dim=2)
    return output.transpose(1, 2).to(value_BGLE.dtype).contiguous(), None


def _causal(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    dropout: float,
    window: int | None,
    softcap: float | None,
    seen: Tensor | None,
) -> Tensor:
    """Causal attention of the last Q of L positions to all L; shapes (B, H, Q, E), (B, G, L, E) -> (B, H, Q, E)."""
    queries, keys = query.shape[2], key.shape[2]
    if window is not None and keys <= window:
        window = None
    if softcap is None and window is None and seen is None and (queries == keys or queries == 1):
        grouped = query.shape[1] != key.shape[1]
        return F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, scale=scale, is_causal=queries > 1, enable_gqa=grouped
        )
    positions = torch.arange(keys, device=query.device)
    behind = positions[keys - queries :, None] - positions
    if seen is None:
        seen = behind >= 0
    if window is not None:
        seen = seen & (behind < window)
    groups = query.shape[1] // key.shape[1]
    # CUDA's kernel that takes a mask takes no groups; on CPU groups are an order of magnitude faster than copies.
    grouped = groups > 1 and softcap is None and query.device.type != "cuda"
    if groups > 1 and not grouped:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if softcap is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, dropout_p=dropout, scale=scale, enable_gqa=grouped
        )
    scores = softcap * torch.tanh(query @ key.transpose(2, 3) * (scale / softcap))
    weights = scores.masked_fill(~seen, float("-inf")).softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return F.dropout(weights, dropout) @ value


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The mask of packed attention: none, since the boundaries say everything."""
    return None


AttentionInterface.register(ATTENTION_NAME, packed_attention)
AttentionMaskInterface.register(ATTENTION_NAME, _no_mask)
