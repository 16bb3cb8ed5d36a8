"""What is added to other weights: LoRA adapters, what was trained beside them, and the deltas of LLaVA v0.

All of it is arithmetic on tensors by name. How an adapter's own files are read is `adapter`'s. A delta adds itself to
the weight of the same name; rows that the base lacks (`<im_patch>` and the like) and the projector are whole in it.

Knows tensors, names and files. Knows no module.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from llavakit.checkpoints.adapter import AdapterFile, read_adapter
from llavakit.checkpoints.files import (
    CheckpointError,
    atomic_folder,
    read_tensors,
    read_weights_file,
    write_tensors,
)
from llavakit.checkpoints.original import DERIVED

PROJECTOR_FILE = "mm_projector.bin"
_BESIDE = "non_lora_trainables.bin"


def merge_folder(weights: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """`weights` with a folder's LoRA adapter merged and what was trained beside it put in their place.

    Raises CheckpointError, naming the file, when one is missing or does not fit.
    """
    merged = merge_adapter(weights, read_adapter(folder), str(folder))
    return merged | _unwrapped(read_weights_file(folder / _BESIDE))


def merge_adapter(weights: Mapping[str, Tensor], adapter: AdapterFile, where: str) -> dict[str, Tensor]:
    """`weights` with an adapter merged: W + scaling * B A, computed in float32 and rounded to W's type.

    What the adapter holds whole takes the place of the weight of its name.

    Raises CheckpointError, naming `where`, for a weight that is not there and a shape that does not fit.
    """
    merged = dict(weights)
    for name, low in adapter.low_rank.items():
        change = low.up_Or.float() @ low.down_rI.float()
        weight = _fitting(weights, f"{name}.weight", change, where)
        merged[f"{name}.weight"] = (weight.float() + low.scaling * change).to(weight.dtype)
    for name, tensor in adapter.whole.items():
        _fitting(weights, name, tensor, where)
        merged[name] = tensor
    return merged


def _fitting(weights: Mapping[str, Tensor], name: str, change: Tensor, where: str) -> Tensor:
    """The weight that a change of its shape belongs to."""
    if name not in weights:
        raise CheckpointError(
            f"{where}: the adapter changes {name}, which the base does not have; is it the base?"
        )
    if change.shape != weights[name].shape:
        raise CheckpointError(
            f"{where}: the adapter's {name} is of shape {tuple(change.shape)}, the base's of "
            f"{tuple(weights[name].shape)}; is it the base?"
        )
    return weights[name]


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that were trained beside an adapter, under the names they have without it."""
    bare = {name.removeprefix("base_model."): tensor for name, tensor in tensors.items()}
    if any(name.startswith("model.model.") for name in bare):
        bare = {name.removeprefix("model."): tensor for name, tensor in bare.items()}
    return bare


def add_delta(base: Mapping[str, Tensor], delta: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """base + delta for every name that both have, in the delta's type; what the delta alone has is whole in it.

    Raises CheckpointError, naming `where`, the delta, for a weight of the base that it lacks and for shapes that differ
    by more than rows at the end.
    """
    absent = sorted(name for name in base if name not in delta and not name.endswith(DERIVED))
    if absent:
        raise CheckpointError(
            f"{where}: {len(absent)} weights of the base have no delta, the first is {absent[0]}; is it the base?"
        )
    target = {name: tensor for name, tensor in delta.items() if not name.endswith(DERIVED)}
    for name, tensor in target.items():
        under = base.get(name)
        if under is None:
            continue
        if under.shape[1:] != tensor.shape[1:] or len(under) > len(tensor):
            raise CheckpointError(
                f"{where}: {name} is of shape {tuple(tensor.shape)}, the base's of {tuple(under.shape)}; is it the "
                "base?"
            )
        rows = len(under)
        target[name] = torch.cat([tensor[:rows] + under.to(tensor.dtype), tensor[rows:]])
    return target


def apply_delta(base: Path, delta: Path, target: Path) -> None:
    """Writes the folder `target`: the weights of the folder `base` plus those of `delta`, all else as in `delta`.

    The result is a folder of the original LLaVA. Raises CheckpointError as `add_delta` does; nothing is half-written.
    """
    tensors = add_delta(read_tensors(base, pickles=True), read_tensors(delta, pickles=True), str(delta))
    weights = (".bin", ".safetensors", ".index.json")
    with atomic_folder(target) as temporary:
        for path in sorted(delta.iterdir()):
            if path.is_file() and not path.name.endswith(weights):
                shutil.copy2(path, temporary / path.name)
        write_tensors(temporary, tensors)
