"""The loader: a pack is a pure function of plan and number, and what cannot be loaded is named."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from llavakit.data.index import open_index
from llavakit.data.loader import LoadedPack, PackDataset, load_packs
from llavakit.data.plan import plan_stage
from llavakit.errors import LlavakitError
from llavakit.images.spec import PixelSpec
from llavakit.model.packed import IMAGE_TOKEN_ID, Pack
from tests.data.conftest import stage, writing_of
from tests.training.materials import make_data, row, write_rows


def dataset(data: Path, tokenizer: Any, seed: int = 0, epochs: float = 2.0, **changes: Any) -> PackDataset:
    chosen = stage(data, picture_order="random", template="vicuna_v1", max_length=256, **changes)
    writing = writing_of(chosen, tokenizer)
    index, shelf = open_index(chosen.data, writing)
    plan = plan_stage(
        index.lengths, pack=chosen.batch.pack, batch=chosen.batch.tokens, epochs=epochs, seed=seed
    )
    pixels = PixelSpec(image_size=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    return PackDataset(plan.packs, index, shelf, writing, pixels, seed)


def same(one: Pack | None, other: Pack | None) -> bool:
    if one is None or other is None:
        return one is other
    tiles = (
        one.tiles_NCHW is None and other.tiles_NCHW is None
        if one.tiles_NCHW is None or other.tiles_NCHW is None
        else torch.equal(one.tiles_NCHW, other.tiles_NCHW)
    )
    return (
        tiles
        and torch.equal(one.ids_T, other.ids_T)
        and torch.equal(one.labels_T, other.labels_T)
        and torch.equal(one.positions_T, other.positions_T)
        and one.cu_seqlens == other.cu_seqlens
        and one.sample_ids == other.sample_ids
    )


def loaded(packs: PackDataset, workers: int = 0) -> list[LoadedPack]:
    return list(load_packs(packs, range(len(packs)), workers))


def test_one_result_whatever_the_number_of_workers(tmp_path: Path, tokenizer: Any) -> None:
    packs = dataset(make_data(tmp_path, 30), tokenizer)
    alone = loaded(packs)
    assert len(alone) > 10
    for workers in (1, 3):
        together = loaded(packs, workers)
        assert [one.number for one in together] == [one.number for one in alone]
        assert all(same(a.pack, b.pack) for a, b in zip(alone, together, strict=True))


def test_a_pack_does_not_depend_on_the_packs_before_it(tmp_path: Path, tokenizer: Any) -> None:
    packs = dataset(make_data(tmp_path, 12), tokenizer)
    later = [packs[number] for number in reversed(range(len(packs)))]
    torch.manual_seed(5)
    assert all(same(a.pack, b.pack) for a, b in zip(loaded(packs), reversed(later), strict=True))


def test_loading_draws_nothing_from_the_common_generators(tmp_path: Path, tokenizer: Any) -> None:
    packs = dataset(make_data(tmp_path, 5), tokenizer)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    loaded(packs)
    assert torch.equal(before, torch.get_rng_state())


def test_packs_hold_what_was_planned_and_no_more_than_fits(tmp_path: Path, tokenizer: Any) -> None:
    packs = dataset(make_data(tmp_path, 30), tokenizer, epochs=1.0)
    names: list[str] = []
    for one in loaded(packs):
        assert one.pack is not None and one.pack.sample_ids == packs.sample_names(one.number)
        assert one.pack.cu_seqlens[-1] <= 256
        pictures = int((one.pack.ids_T == IMAGE_TOKEN_ID).sum()) // 4
        assert pictures == (0 if one.pack.tiles_NCHW is None else len(one.pack.tiles_NCHW))
        names += one.pack.sample_ids
    assert len(names) == len(set(names)) == 30


def test_the_random_order_of_a_picture_changes_from_epoch_to_epoch_and_with_the_seed(
    tmp_path: Path, tokenizer: Any
) -> None:
    data = make_data(tmp_path, 16)

    def orders(seed: int) -> list[dict[str, bool]]:
        """For each epoch, whether a sample's picture stands before its question."""
        packs = dataset(data, tokenizer, seed=seed)
        epochs: list[dict[str, bool]] = [{}, {}]
        for one in loaded(packs):
            assert one.pack is not None
            for name, start, end in zip(
                one.pack.sample_ids, one.pack.cu_seqlens, one.pack.cu_seqlens[1:], strict=False
            ):
                ids = one.pack.ids_T[start:end].tolist()
                if IMAGE_TOKEN_ID in ids:
                    before = tokenizer.decode(ids[: ids.index(IMAGE_TOKEN_ID)])
                    epochs[packs.packs[one.number].epoch][name] = "What colour" not in before
        return epochs

    first, second = orders(0)
    assert set(first.values()) == {True, False} and first != second
    assert orders(0) == [first, second] and orders(1)[0] != first


def test_a_picture_that_cannot_be_decoded_leaves_with_its_conversation_and_is_named(
    tmp_path: Path, tokenizer: Any
) -> None:
    Image.effect_noise((200, 200), 90).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:3000])
    rows = [row(i, "cut.jpg" if i in (3, 7) else "whole.jpg", f"What {i}?", "Noise.") for i in range(9)]
    packs = dataset(write_rows(tmp_path / "rows.json", rows), tokenizer, epochs=1.0)
    assert len(packs.index.rows) == 9, "their headers are fine"
    for workers in (0, 2):
        every = loaded(packs, workers)
        dropped = [one for each in every for one in each.dropped]
        assert sorted(one.sample[-4:-1] for one in dropped) == [" s3", " s7"]
        assert all("cut.jpg" in one.reason for one in dropped)
        kept = [name for each in every if each.pack is not None for name in each.pack.sample_ids]
        assert len(kept) == 7 and not any("s3" in name or "s7" in name for name in kept)


def test_a_pack_of_nothing_but_unreadable_pictures_is_none(tmp_path: Path, tokenizer: Any) -> None:
    data = make_data(tmp_path, 2)
    packs = dataset(data, tokenizer)
    for picture in tmp_path.glob("*.png"):
        picture.unlink()
    every = loaded(packs)
    assert all(one.pack is None and one.dropped for one in every)


def test_a_mistake_found_in_a_worker_is_the_same_sentence(tmp_path: Path, tokenizer: Any) -> None:
    from dataclasses import replace

    packs = dataset(make_data(tmp_path, 4), tokenizer)
    packs.index.rows[:] = [replace(one, length=1) for one in packs.index.rows]
    for workers in (0, 1):
        with pytest.raises(LlavakitError, match=r"row \d .*took 1 when it was indexed") as caught:
            loaded(packs, workers)
        assert "\n" not in str(caught.value), "one sentence, without the worker's traceback"


class Dying(PackDataset):
    """A data set whose second pack kills the process that makes it."""

    def __getitem__(self, number: int) -> LoadedPack:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(number)


def test_a_worker_that_dies_is_a_clear_error(tmp_path: Path, tokenizer: Any) -> None:
    packs = dataset(make_data(tmp_path, 8), tokenizer)
    packs.__class__ = Dying
    with pytest.raises(LlavakitError, match=r"data worker process \(pid [\d, ]+\) died.*lower `workers`"):
        loaded(packs, 1)
