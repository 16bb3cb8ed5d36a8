"""Folders are written whole or not at all; safetensors are read whole or refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.checkpoints.files import (
    PICKLES,
    WEIGHTS,
    WEIGHTS_INDEX,
    CheckpointError,
    atomic_folder,
    read_json,
    read_tensors,
    write_tensors,
)

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(5, dtype=torch.bfloat16), "c": torch.tensor(7)}


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_appears_only_when_its_block_ends_well(tmp_path):
    target = tmp_path / "runs" / "one"
    with atomic_folder(target) as temporary:
        (temporary / "file").write_text("first")
        (temporary / "sub").mkdir()
        (temporary / "sub" / "file").write_text("second")
        assert not target.exists()
    assert contents(target) == {"file": "first", "sub/file": "second"}


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    target = tmp_path / "one"
    with atomic_folder(target) as temporary:
        (temporary / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as temporary:
        (temporary / "new").write_text("new")
        raise KeyboardInterrupt
    assert contents(tmp_path) == {"one/old": "old"}
    with atomic_folder(target) as temporary:
        (temporary / "new").write_text("new")
    assert contents(tmp_path) == {"one/new": "new"}


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "one").write_text("precious")
    with pytest.raises(CheckpointError, match="this is a file"), atomic_folder(tmp_path / "one"):
        pass
    assert (tmp_path / "one").read_text() == "precious"


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=8), shard=st.integers(1, 60))
def test_any_shard_size_reads_back_the_same(tmp_path_factory, sizes, shard):
    folder = tmp_path_factory.mktemp("tensors")
    tensors = {f"t{number}": torch.full((size,), float(number)) for number, size in enumerate(sizes)}
    write_tensors(folder, tensors, shard_bytes=shard)
    found = read_tensors(folder)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_types_and_shapes_are_kept(tmp_path):
    write_tensors(tmp_path, TENSORS)
    found = read_tensors(tmp_path)
    assert all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        for name, tensor in TENSORS.items()
    )
    assert not (tmp_path / WEIGHTS_INDEX).exists()


def test_shards_that_are_missing_cut_short_or_lack_a_tensor_are_named(tmp_path):
    write_tensors(tmp_path, TENSORS, shard_bytes=20)
    shards = sorted(path.name for path in tmp_path.glob("model-*.safetensors"))
    assert len(shards) == 2
    index = json.loads((tmp_path / WEIGHTS_INDEX).read_text())
    for where, words in [
        ({"d": shards[0]}, "1 tensors that no file holds, the first is d"),
        ({"d": "../outside.safetensors"}, "names ../outside.safetensors"),
    ]:
        changed = index | {"weight_map": index["weight_map"] | where}
        (tmp_path / WEIGHTS_INDEX).write_text(json.dumps(changed))
        with pytest.raises(CheckpointError, match=words):
            read_tensors(tmp_path)
    (tmp_path / WEIGHTS_INDEX).write_text('{"weight_map": {}}')
    with pytest.raises(CheckpointError, match="no weight_map"):
        read_tensors(tmp_path)
    (tmp_path / WEIGHTS_INDEX).write_text(json.dumps(index))
    whole = (tmp_path / shards[1]).read_bytes()
    (tmp_path / shards[1]).write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=f"{shards[1]}: damaged or cut short, {len(whole) - 1} bytes"):
        read_tensors(tmp_path)
    (tmp_path / shards[1]).unlink()
    with pytest.raises(CheckpointError, match=f"the file {shards[1]} is missing"):
        read_tensors(tmp_path)


def test_weights_that_could_run_code_are_not_opened(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(CheckpointError, match=f"can run code when opened; convert them to {WEIGHTS}"):
        read_tensors(tmp_path)


def test_json_that_is_not_an_object_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="holds a list, expected an object"):
        read_json(tmp_path / "config.json")


class Malice:
    """A pickle of this makes a folder when it is opened without care."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_read_where_they_are_wanted_and_run_nothing(tmp_path, zipped):
    file = tmp_path / PICKLES
    torch.save(TENSORS, file, _use_new_zipfile_serialization=zipped)
    found = read_tensors(tmp_path, pickles=True)
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    whole = file.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=f"{PICKLES}: damaged"):
            read_tensors(tmp_path, pickles=True)
    torch.save(
        {"a": torch.ones(1), "b": Malice(tmp_path / "ran")}, file, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(
        CheckpointError, match="holds more than tensors, which could run code when opened; none was"
    ):
        read_tensors(tmp_path, pickles=True)
    assert not (tmp_path / "ran").exists()
    for other in ([torch.ones(1)], {"a": 1}, {1: torch.ones(1)}):
        torch.save(other, file, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match="expected tensors by name"):
            read_tensors(tmp_path, pickles=True)


def test_safetensors_come_before_pickles(tmp_path):
    write_tensors(tmp_path, TENSORS)
    (tmp_path / PICKLES).write_bytes(b"nothing")
    assert read_tensors(tmp_path, pickles=True).keys() == TENSORS.keys()
