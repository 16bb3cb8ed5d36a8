"""The loss in chunks is the loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llavakit.model.loss import chunk_size, chunked_cross_entropy


@pytest.mark.parametrize("chunk", [1, 3, 7, 10, 100])
def test_any_chunk_gives_the_sum_and_the_gradients_of_plain_cross_entropy(chunk):
    torch.manual_seed(0)
    head = nn.Linear(6, 11)
    hidden = torch.randn(10, 6, requires_grad=True)
    targets = torch.randint(11, (10,))
    plain = F.cross_entropy(head(hidden), targets, reduction="sum")
    expected = torch.autograd.grad(plain, [hidden, *head.parameters()])
    found = chunked_cross_entropy(hidden, head, targets, chunk)
    torch.testing.assert_close(found, plain)
    for mine, reference in zip(
        torch.autograd.grad(found, [hidden, *head.parameters()]), expected, strict=True
    ):
        torch.testing.assert_close(mine, reference)


def test_scores_of_one_chunk_at_most_are_made_at_once():
    sizes = []

    def head(hidden):
        sizes.append(len(hidden))
        return hidden

    chunked_cross_entropy(torch.randn(10, 4, requires_grad=True), head, torch.zeros(10, dtype=torch.long), 4)
    assert sizes == [4, 4, 2]


def test_the_sum_is_float32_whatever_the_head_makes():
    head = nn.Linear(4, 5).bfloat16()
    for chunk in (2, 10):
        found = chunked_cross_entropy(
            torch.randn(6, 4).bfloat16(), head, torch.zeros(6, dtype=torch.long), chunk
        )
        assert found.dtype == torch.float32


def test_no_positions_give_a_zero_that_can_be_differentiated():
    hidden = torch.randn(0, 4, requires_grad=True)
    loss = chunked_cross_entropy(hidden, nn.Linear(4, 5), torch.zeros(0, dtype=torch.long), 4)
    loss.backward()
    assert float(loss.detach()) == 0.0


def test_chunks_are_smaller_for_larger_vocabularies():
    assert chunk_size(1000) > chunk_size(32_000) > chunk_size(10_000_000) == 256
