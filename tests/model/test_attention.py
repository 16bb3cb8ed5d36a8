"""Packed attention against a plain softmax written out with a mask."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from llavakit.errors import LlavakitError
from llavakit.model.attention import packed_attention

HEADS, GROUPS, WIDTH = 4, 2, 8


def tensors(length: int, queries: int | None = None, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (HEADS, queries or length), (GROUPS, length), (GROUPS, length)
    return [torch.randn(1, heads, n, WIDTH, generator=generator) for heads, n in shapes]


def by_hand(query, key, value, allowed, scale=WIDTH**-0.5, softcap=None):
    """(1, Q, H, E) from scores in full and a boolean mask (Q, L)."""
    key, value = (t.repeat_interleave(HEADS // GROUPS, dim=1) for t in (key, value))
    scores = query @ key.transpose(2, 3) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return (scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ value).transpose(1, 2)


def allowed(bounds: list[int], window: int | None = None) -> torch.Tensor:
    position = torch.arange(bounds[-1])
    document = torch.bucketize(position, torch.tensor(bounds[1:]), right=True)
    behind = position[:, None] - position[None, :]
    mask = (behind >= 0) & (document[:, None] == document[None, :])
    return mask if window is None else mask & (behind < window)


@pytest.mark.parametrize("window", [None, 1, 3, 9, 50])
@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_each_conversation_of_a_row_attends_to_itself(window, softcap, as_tensor):
    bounds = [0, 1, 10, 12, 20]
    query, key, value = tensors(20)
    given = torch.tensor(bounds, dtype=torch.int32) if as_tensor else bounds
    found, weights = packed_attention(
        nn.Module(),
        query,
        key,
        value,
        None,
        cu_seqlens=given,
        sliding_window=window,
        softcap=softcap,
        scaling=0.4,
    )
    expected = by_hand(query, key, value, allowed(bounds, window), 0.4, softcap)
    assert weights is None
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("queries", [1, 3, 11])
def test_with_a_cache_the_last_queries_see_all_keys_before_them(queries, window):
    query, key, value = tensors(11, queries)
    found, _ = packed_attention(nn.Module(), query, key, value, None, sliding_window=window)
    expected = by_hand(query, key, value, allowed([0, 11], window)[-queries:])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_query_and_key_take_the_type_of_value():
    query, key, value = tensors(6)
    found, _ = packed_attention(nn.Module(), query, key, value.bfloat16(), None, cu_seqlens=[0, 2, 6])
    assert found.dtype == torch.bfloat16


def test_what_it_would_get_wrong_is_refused():
    query, key, value = tensors(6)
    module = nn.Module()
    with pytest.raises(LlavakitError, match="mask"):
        packed_attention(module, query, key, value, torch.ones(1, 1, 6, 6))
    with pytest.raises(LlavakitError, match="s_aux"):
        packed_attention(module, query, key, value, None, s_aux=torch.ones(4))
    with pytest.raises(LlavakitError, match="not causal"):
        packed_attention(module, query, key, value, None, is_causal=False)
    with pytest.raises(LlavakitError, match="7 positions by its boundaries"):
        packed_attention(module, query, key, value, None, cu_seqlens=[0, 7])
