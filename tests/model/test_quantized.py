"""Weights of eight bits: close to the whole ones, the same by either way of multiplying, and not to be trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from llavakit.errors import LlavakitError
from llavakit.model.generation import generate
from llavakit.model.llava import Llava
from llavakit.model.packed import pack_conversations
from llavakit.model.quantized import Int8Linear
from llavakit.model.reuse import feed
from llavakit.model.session import ChatSession

from .conftest import item, tile
from .test_generation import mixed


@pytest.mark.parametrize(("inputs", "outputs", "bias"), [(512, 300, False), (33, 7, True), (24, 32, True)])
def test_a_layer_is_off_by_at_most_half_a_step_a_weight(inputs: int, outputs: int, bias: bool) -> None:
    torch.manual_seed(inputs)
    linear = nn.Linear(inputs, outputs, bias)
    small = Int8Linear(linear)
    weight = small.integers.float() * small.scale.float()[:, None]
    step = linear.weight.abs().amax(dim=1, keepdim=True) / 127
    assert bool(((weight - linear.weight).abs() <= 0.51 * step + 127 * step * 2**-8).all())
    assert small.integers.abs().amax() <= 127
    rows = torch.randn(40, inputs)
    with torch.no_grad():
        expected = rows @ weight.T + (linear.bias if bias else 0)
        torch.testing.assert_close(small(rows), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 16])
@pytest.mark.parametrize(("inputs", "outputs"), [(512, 300), (32, 7), (64, 1)])
def test_the_kernel_gives_what_the_plain_product_gives_of_rows_in_bfloat16(
    rows: int, inputs: int, outputs: int
) -> None:
    torch.manual_seed(rows)
    small = Int8Linear(nn.Linear(inputs, outputs, bias=False))
    exact = torch.randn(rows, inputs).bfloat16().float()
    expected = small.many(exact)
    torch.testing.assert_close(small.few(exact), expected, rtol=2**-7, atol=2**-7)
    with torch.no_grad():
        assert torch.equal(small(exact), small.few(exact))
        many = small(exact.expand(20, rows, inputs))[0]
        torch.testing.assert_close(many, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inputs", [1, 16, 24, 33, 48])
def test_rows_that_the_kernel_would_read_past_their_end_are_not_given_to_it(inputs: int) -> None:
    small = Int8Linear(nn.Linear(inputs, 32))
    assert not small.takes_kernel(torch.zeros(1, inputs))


@pytest.mark.parametrize("name", ["llama", "llama_tied", "qwen"])
def test_scores_differ_little_and_the_tied_embedding_stays_whole(parts: dict[str, str], name: str) -> None:
    model = Llava.compose(vision_tower=parts["clip"], language_model=parts[name])
    pack = pack_conversations([item(1, 1), item(2)], [tile(1)], "ab")
    embedding = model.language_model.get_input_embeddings().weight.clone()
    with torch.no_grad():
        whole = model.logits(pack)
        done = model.quantize_int8()
        small = model.logits(pack)
        one = model.head(torch.randn(1, 32))
    assert done.layers == 2 * 7 + 1 and 0.3 < done.share < 0.95
    assert torch.equal(model.language_model.get_input_embeddings().weight, embedding)
    assert 0 < float((small - whole).square().mean().sqrt()) < 0.05 * float(whole.std())
    assert one.shape == (1, model.vocabulary)


def test_a_step_of_an_answer_and_the_reading_of_a_prompt_agree(llava: Llava) -> None:
    from transformers import DynamicCache

    llava.quantize_int8()
    embeddings = torch.randn(1, 40, 32)
    with torch.no_grad():
        at_once = llava.head(feed(llava, embeddings, DynamicCache()))
        cache = DynamicCache()
        feed(llava, embeddings[:, :39], cache)
        stepped = llava.head(feed(llava, embeddings[:, 39:], cache))
    assert float((at_once - stepped).square().mean().sqrt()) < 0.03 * float(at_once.std())


def test_it_answers_alone_in_a_batch_and_in_a_chat(llava: Llava) -> None:
    llava.quantize_int8()
    answers = generate(llava, mixed(), max_new_tokens=6)
    assert len(answers) == len(mixed()) and all(isinstance(answer, str) for answer in answers)
    session = ChatSession(llava, max_new_tokens=4)
    assert isinstance(session.ask("What is this?"), str)


def test_it_can_be_neither_trained_nor_saved_nor_quantized_again(llava: Llava, tmp_path) -> None:
    llava.quantize_int8()
    pack = pack_conversations([item(1, 1)], [tile(1)], "a")
    for trained in ("projector", "language_model"):
        for name, part in llava.parts().items():
            part.requires_grad_(name == trained)
        with pytest.raises(LlavakitError, match="int8 weights, and nothing can be learnt through them"):
            llava(pack)
    with torch.no_grad():
        assert llava(pack).supervised > 0
    with pytest.raises(LlavakitError, match="int8 weights is not saved"):
        llava.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    with pytest.raises(LlavakitError, match="has int8 weights already"):
        llava.quantize_int8()
