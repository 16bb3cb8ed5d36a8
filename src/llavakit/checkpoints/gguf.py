"""GGUF files as llama.cpp reads them: typed keys, then tensors.

The one file that touches the package `gguf`. Tensors are converted and written one at a time, so that no second copy of
a model is ever in memory. What the keys and tensors mean is the business of `gguf_language`, `gguf_tokenizer` and
`gguf_vision`.

A number type is chosen for a file as a whole: `f32`, `f16` or `q8_0` (blocks of 32 numbers of 8 bits under a scale of
16). Vectors, and the tensors that the reader wants exact, stay in 32 bits whatever it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llavakit.checkpoints.files import CheckpointError

OUTTYPES = ("f32", "f16", "q8_0")

Value = bool | int | float | str | list[str] | list[int] | list[float]

_BLOCK = 32  # numbers in a block of q8_0
_BLOCK_BYTES = 34
_LARGEST_F16 = 65504.0

# The numbers of `general.file_type` (llama.h, llama_ftype).
_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}
_QUANTIZATION_VERSION = 2


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF file holds.

    architecture: llama.cpp's name of it. keys: by full name; an int is written as uint32, a float as float32, lists of
    them as arrays of int32 and float32. tensors: by name, in the order in which they are written. exact: names of
    tensors that stay in 32 bits. notes: what a reader of the file should know, a sentence each.
    """

    architecture: str
    keys: Mapping[str, Value]
    tensors: Mapping[str, Tensor]
    exact: frozenset[str] = frozenset()
    notes: tuple[str, ...] = field(default=())


def check_outtype(outtype: str) -> None:
    """Raises CheckpointError for a number type that is not one of OUTTYPES."""
    if outtype not in OUTTYPES:
        raise CheckpointError(f"GGUF number type {outtype!r} is unknown; expected {', '.join(OUTTYPES)}")


def write_gguf(path: Path, file: GgufFile, outtype: str) -> tuple[str, ...]:
    """Writes a GGUF file and returns its notes, with a sentence on tensors that `q8_0` could not hold.

    A matrix whose rows are no multiple of 32 long is written as f16 under `q8_0`. Raises CheckpointError when the
    package `gguf` is not there, for an unknown number type, and for a tensor whose numbers the type cannot hold.
    """
    check_outtype(outtype)
    package = _package()
    types = {name: _type_of(name, tensor, file, outtype) for name, tensor in file.tensors.items()}
    writer = package.GGUFWriter(path, file.architecture)
    for key, value in file.keys.items():
        _add_key(writer, key, value)
    writer.add_file_type(_FILE_TYPES[outtype])
    if outtype == "q8_0":
        writer.add_quantization_version(_QUANTIZATION_VERSION)
    numbers = {kind: package.GGMLQuantizationType[kind.upper()] for kind in OUTTYPES}
    for name, tensor in file.tensors.items():
        shape, width, kind = list(tensor.shape), 4 if types[name] == "f32" else 2, types[name]
        # A row of q8_0 is described by its bytes.
        byte_shape = [*shape[:-1], shape[-1] // _BLOCK * _BLOCK_BYTES] if kind == "q8_0" else shape
        size = torch.Size(byte_shape).numel() * (1 if kind == "q8_0" else width)
        dtype = {"f32": "float32", "f16": "float16", "q8_0": "uint8"}[kind]
        writer.add_tensor_info(name, byte_shape, _numpy_type(dtype), size, raw_dtype=numbers[kind])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in file.tensors.items():
            _check_range(name, tensor, types[name])
            array = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
            writer.write_tensor_data(package.quants.quantize(array, numbers[types[name]]))
    finally:
        writer.close()
    matrices = [name for name, tensor in file.tensors.items() if tensor.dim() > 1 and name not in file.exact]
    left = [name for name in matrices if outtype == "q8_0" and types[name] != "q8_0"]
    if not left:
        return file.notes
    return (
        *file.notes,
        f"{len(left)} of {len(matrices)} matrices of {path.name} are f16, not q8_0, because their rows are no multiple "
        f"of {_BLOCK} long; the first is {left[0]}",
    )


def _type_of(name: str, tensor: Tensor, file: GgufFile, outtype: str) -> str:
    if tensor.dim() < 2 or name in file.exact or outtype == "f32":
        return "f32"
    return "q8_0" if outtype == "q8_0" and tensor.shape[-1] % _BLOCK == 0 else "f16"


def _check_range(name: str, tensor: Tensor, kind: str) -> None:
    largest = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
    if not largest < float("inf"):
        raise CheckpointError(f"tensor {name}: holds {largest}, expected numbers alone; the model is damaged")
    if kind != "f32" and largest > _LARGEST_F16:
        raise CheckpointError(
            f"tensor {name}: its largest number is {largest:g}, more than {kind} can hold; choose the number type f32"
        )


def _add_key(writer: Any, key: str, value: Value) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _numpy_type(name: str) -> Any:
    import numpy as np

    return np.dtype(name)


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise CheckpointError("writing GGUF files needs the package gguf; pip install gguf") from error
    return gguf
