"""A pack is only a way of laying conversations out: each is computed as if it were alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from llavakit.conversation.tokenize import Encoded
from llavakit.errors import LlavakitError
from llavakit.model.llava import Llava
from llavakit.model.packed import IGNORE_INDEX, Tiled, pack_conversations

from .conftest import PATCHES, item, tile


def mixed() -> tuple[list[Encoded], list[list[Tiled]]]:
    """One picture, text only, two pictures, one picture again."""
    items = [item(1, 1), item(2, 0, 20), item(3, 2, 9), item(4, 1, 15)]
    tiles = [[tile(1)], [], [tile(2), tile(3)], [tile(4)]]
    return items, tiles


def together(items: list[Encoded], tiles: list[list[Tiled]]):
    return pack_conversations(
        items, [t for mine in tiles for t in mine], [f"s{i}" for i in range(len(items))]
    )


def gradients(model: Llava) -> dict[str, torch.Tensor | None]:
    return {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2_registers"])
@pytest.mark.parametrize("language_model", ["llama", "llama_tied", "qwen", "mistral"])
def test_packed_equals_one_at_a_time_in_loss_and_every_gradient(parts, tower, language_model):
    model = Llava.compose(vision_tower=parts[tower], language_model=parts[language_model])
    items, tiles = mixed()
    packed = model(together(items, tiles))
    packed.loss_sum.backward()
    whole = gradients(model)
    model.zero_grad()
    losses = [model(together([i], [t])) for i, t in zip(items, tiles, strict=True)]
    total = torch.stack([loss.loss_sum for loss in losses]).sum()
    total.backward()
    alone = gradients(model)
    assert packed.supervised == sum(loss.supervised for loss in losses)
    torch.testing.assert_close(packed.loss_sum, total, rtol=1e-5, atol=1e-5)
    reached = {name.split(".")[0] for name, grad in whole.items() if grad is not None}
    assert reached == {"vision_tower", "projector", "language_model"}
    largest = max(float(grad.abs().max()) for grad in alone.values() if grad is not None)
    for name in whole:
        assert (whole[name] is None) == (alone[name] is None), name
        if whole[name] is not None:
            torch.testing.assert_close(whole[name], alone[name], rtol=1e-4, atol=1e-6 * largest, msg=name)


def test_changing_one_conversation_leaves_its_neighbours_bit_for_bit(llava):
    items, tiles = mixed()
    before = llava.logits(together(items, tiles)).detach()
    changed = list(items)
    changed[1] = replace(items[1], ids=[(n + 1) % 400 for n in items[1].ids])
    pictures = [list(t) for t in tiles]
    pictures[2][0] = tile(99)
    after = llava.logits(together(changed, pictures)).detach()
    bounds = together(items, tiles).cu_seqlens
    for sample, same in enumerate([True, False, False, True]):
        a, b = bounds[sample], bounds[sample + 1]
        assert torch.equal(before[a:b], after[a:b]) == same


def test_a_pack_of_text_never_touches_the_tower(llava):
    def refuse(*args, **kwargs):
        raise AssertionError("the tower was run")

    llava.vision_tower.forward = refuse
    loss = llava(together([item(1), item(2)], [[], []]))
    loss.loss_sum.backward()
    assert all(p.grad is None for p in llava.vision_tower.parameters())
    assert all(p.grad is None for p in llava.projector.parameters())


def test_a_frozen_tower_runs_without_autograd_and_the_projector_still_learns(llava):
    llava.vision_tower.requires_grad_(False)
    llava.language_model.requires_grad_(False)
    llava(together(*mixed())).loss_sum.backward()
    assert all(p.grad is None for p in llava.vision_tower.parameters())
    assert all(float(p.grad.abs().sum()) > 0 for p in llava.projector.parameters())


def test_checkpointed_activations_give_the_same_gradients(llava):
    llava.train()
    pack = together(*mixed())
    llava(pack).loss_sum.backward()
    plain = gradients(llava)
    llava.zero_grad()
    llava.checkpoint_activations()
    llava(pack).loss_sum.backward()
    for name, grad in gradients(llava).items():
        if plain[name] is not None:
            torch.testing.assert_close(grad, plain[name], msg=name)


def test_autocast_to_bfloat16_stays_near_float32(llava):
    pack = together(*mixed())
    plain = llava(pack)
    with torch.autocast("cpu", torch.bfloat16):
        cast = llava(pack)
    assert cast.loss_sum.dtype == torch.float32
    torch.testing.assert_close(cast.loss_sum, plain.loss_sum, rtol=2e-2, atol=0)
    cast.loss_sum.backward()
    assert all(p.grad is not None for p in llava.projector.parameters())


def test_labels_are_shifted_within_each_conversation():
    first, second = Encoded([1, 2, 3], [-100, 2, 3], [], 0), Encoded([4, 5], [4, 5], [], 0)
    pack = pack_conversations([first, second], [], ["a", 7])
    assert pack.labels_T.tolist() == [2, 3, IGNORE_INDEX, 5, IGNORE_INDEX]
    assert pack.positions_T.tolist() == [0, 1, 2, 0, 1]
    assert (pack.cu_seqlens, pack.sample_ids, pack.supervised) == ([0, 3, 5], ["a", "7"], 3)


def test_a_pack_without_supervision_has_a_loss_of_zero(llava):
    silent = replace(item(1), labels=[-100] * 12)
    loss = llava(pack_conversations([silent], [], ["a"]))
    assert (float(loss.loss_sum.detach()), loss.supervised) == (0.0, 0)


def test_pictures_and_positions_that_do_not_match_are_named(llava):
    with pytest.raises(LlavakitError, match="sample late: it places 1 pictures but only 0"):
        pack_conversations([item(1, 1), item(2, 1)], [tile(1)], ["early", "late"])
    with pytest.raises(LlavakitError, match="1 pictures are placed but 2 were given"):
        pack_conversations([item(1, 1)], [tile(1), tile(2)], ["a"])
    short = item(2, 1, features=PATCHES - 1)
    with pytest.raises(
        LlavakitError,
        match=f"sample wrong: {PATCHES - 1} positions are kept for its picture 0, whose 1 tiles take",
    ):
        pack_conversations([item(1, 1), short], [tile(1), tile(2)], ["right", "wrong"])
    counted_otherwise = tile(2, features=PATCHES - 1)
    with pytest.raises(
        LlavakitError, match=rf"wrong \({PATCHES - 1} picture positions, 1 tiles of {PATCHES}"
    ) as error:
        llava(pack_conversations([item(1, 1), short], [tile(1), counted_otherwise], ["right", "wrong"]))
    assert "right" not in str(error.value).split(";")[0]
    lying = replace(item(3, 1), ids=[5] * len(item(3, 1).ids))
    with pytest.raises(LlavakitError, match="sample b: 0 picture positions"):
        pack_conversations([lying], [tile(1)], ["b"])
