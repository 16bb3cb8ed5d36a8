"""Folders that are written whole or not at all, and files of weights that are read whole or refused.

Weights are written as safetensors. They are read from safetensors, and from PyTorch's pickles where a layout was
published in no other form; no reading runs code from a file.

Knows paths, bytes and tensors by name. Knows nothing of what the tensors mean.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llavakit.errors import LlavakitError

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
PICKLES = "pytorch_model.bin"
PICKLES_INDEX = "pytorch_model.bin.index.json"
_UNSAFE_WEIGHTS = (PICKLES, PICKLES_INDEX, "model.pt", "model.pth", "model.ckpt")
_SHARD_BYTES = 4 * 2**30


class CheckpointError(LlavakitError):
    """A checkpoint folder that cannot be used; the sentence names the folder or file and what is wrong with it."""


@contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Yields a temporary folder beside `target` that takes its place, synced to disk, when the block ends well.

    A block that raises, or a process that dies, leaves whatever stood at `target` as it was. A folder that is
    replaced is moved aside first and deleted last.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file():
        raise CheckpointError(f"{target}: this is a file, expected a folder to save into")
    temporary = target.parent / f".{target.name}.saving-{os.getpid()}"
    aside = target.parent / f".{target.name}.replaced-{os.getpid()}"
    for leftover in (temporary, aside):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            _sync(path)
        _sync(temporary)
        if target.exists():
            target.rename(aside)
        temporary.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object, indented, keys in the order given."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; raises CheckpointError when the file is missing, cut short or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.parent}: no {path.name}; expected a complete checkpoint folder"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds a {type(value).__name__}, expected an object")
    return value


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], shard_bytes: int = _SHARD_BYTES) -> None:
    """Writes tensors as `model.safetensors`, or as several files and an index when they are larger than a shard."""
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + tensor.nbytes > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor.detach().to("cpu").contiguous()
        filled += tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / WEIGHTS, metadata={"format": "pt"})
        return
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / WEIGHTS_INDEX, {"metadata": {"total_size": total}, "weight_map": where})


def read_tensors(folder: Path, *, pickles: bool = False) -> dict[str, Tensor]:
    """Every tensor of a checkpoint folder by name, from its safetensors file or files.

    pickles: whether `pytorch_model.bin` will do where there are no safetensors. It will for the layouts that were
    published in no other form, those of the original LLaVA and of its parts; any other is safetensors alone.
    Raises CheckpointError when there are none, when the index names a file that is not there or a tensor that its file
    does not hold, or when a file is cut short.
    """
    forms = [(WEIGHTS_INDEX, WEIGHTS), *([(PICKLES_INDEX, PICKLES)] if pickles else [])]
    for index, single in forms:
        if (folder / index).exists():
            return _read_indexed(folder, index)
        if (folder / single).exists():
            return read_weights_file(folder / single)
    unsafe = [name for name in _UNSAFE_WEIGHTS if (folder / name).exists()]
    if unsafe:
        raise CheckpointError(
            f"{folder}: its weights are in {unsafe[0]}, which can run code when opened; convert them to {WEIGHTS} first"
        )
    raise CheckpointError(f"{folder}: no {WEIGHTS}; expected a complete checkpoint folder")


def _read_indexed(folder: Path, index: str) -> dict[str, Tensor]:
    where = read_json(folder / index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise CheckpointError(f"{folder / index}: no weight_map, expected tensor names and their files")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(where.values())):
        if Path(file).name != file:
            raise CheckpointError(f"{folder / index}: it names {file}, expected a file in its folder")
        tensors |= read_weights_file(folder / file)
    absent = sorted(set(where) - set(tensors))
    if absent:
        raise CheckpointError(
            f"{folder}: the index names {len(absent)} tensors that no file holds, the first is {absent[0]}"
        )
    return tensors


def read_weights_file(path: Path) -> dict[str, Tensor]:
    """Every tensor of one file by name: of a `.bin` file, which is a pickle, or of safetensors.

    A pickle is read by PyTorch's reader of weights alone, which knows tensors and containers and runs nothing else.
    Raises CheckpointError when the file is missing, damaged, or holds anything but named tensors.
    """
    try:
        if path.suffix == ".bin":
            return _read_pickle(path)
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent}: the file {path.name} is missing; copy it again") from error
    except (SafetensorError, OSError, ValueError, EOFError, RuntimeError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0][:200]
        raise CheckpointError(
            f"{path}: damaged or cut short, {path.stat().st_size} bytes are there ({reason}); copy it again"
        ) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    mapped = zipfile.is_zipfile(path)  # files of PyTorch before 1.6 cannot be
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (pickle.UnpicklingError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{path}: damaged, or it holds more than tensors, which could run code when opened; none was run; expected "
            "tensors by name"
        ) from error
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items()
    ):
        raise CheckpointError(f"{path}: holds a {type(found).__name__}, expected tensors by name")
    return {name: tensor.detach() for name, tensor in found.items()}
