"""The folder of a LoRA adapter as PEFT writes it: adapter_config.json and adapter_model.safetensors.

The names in the file are those of the base model that the adapter was trained on, behind `base_model.model.`; this file
takes that prefix away and puts it back, and does not know which modules the rest names. Plain LoRA is read and written;
a variant that computes something else (DoRA and its like) is refused in words.

The original LLaVA's adapters are the same, with their weights in adapter_model.bin.

Knows tensor names and files. Knows no modules, and does not need the package peft.

Shapes: r rank, I and O the widths in and out of a linear layer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from llavakit.checkpoints.files import CheckpointError, read_json, read_weights_file, write_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLED_WEIGHTS = "adapter_model.bin"
_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_DEFAULT = ".default.weight"  # PEFT's name of a model's only adapter, which older files kept

# Keys of adapter_config.json under which something else than `alpha / r * B A` is computed.
_VARIANTS = (
    "use_dora", "use_bdlora", "use_qalora", "lora_bias", "fan_in_fan_out", "layer_replication", "target_parameters",
    "trainable_token_indices", "alora_invocation_tokens", "arrow_config", "velora_config", "monteclora_config",
    "kasa_config",
)  # fmt: skip
# First weights that leave the base model's weights as they are.
_HARMLESS_INIT = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to the weight (O, I) of a linear layer: `scaling * up_Or @ down_rI`."""

    down_rI: Tensor
    up_Or: Tensor
    scaling: float


@dataclass(frozen=True)
class AdapterFile:
    """An adapter by the names of its base model. low_rank: by module. whole: tensors saved as they are, by tensor
    (PEFT's `modules_to_save`)."""

    low_rank: dict[str, LowRank]
    whole: dict[str, Tensor]


def read_adapter(folder: Path) -> AdapterFile:
    """Reads an adapter.

    Raises CheckpointError when a file is missing or damaged, when half of a pair is missing, and for an adapter that
    is not plain LoRA.
    """
    config = read_json(folder / CONFIG)
    _refuse_variants(config, folder)
    pickled = not (folder / WEIGHTS).exists() and (folder / _PICKLED_WEIGHTS).exists()
    file = folder / (_PICKLED_WEIGHTS if pickled else WEIGHTS)
    tensors = {_bare(name): tensor for name, tensor in read_weights_file(file).items()}
    down = {name.removesuffix(_DOWN): t for name, t in tensors.items() if name.endswith(_DOWN)}
    up = {name.removesuffix(_UP): t for name, t in tensors.items() if name.endswith(_UP)}
    if odd := sorted(down.keys() ^ up.keys()):
        raise CheckpointError(f"{file}: of {odd[0]} only one of lora_A and lora_B is there")
    low_rank = {}
    for name, down_rI in down.items():
        if down_rI.dim() != 2 or up[name].dim() != 2 or len(down_rI) != up[name].shape[1]:
            shapes = f"{tuple(down_rI.shape)} and {tuple(up[name].shape)}"
            raise CheckpointError(f"{file}: {name}: {shapes} do not make a pair of matrices")
        low_rank[name] = LowRank(down_rI, up[name], _scaling(config, name, len(down_rI), folder))
    whole = {name: t for name, t in tensors.items() if not name.endswith((_DOWN, _UP))}
    if strange := sorted(name for name in whole if ".lora_" in name):
        raise CheckpointError(f"{file}: unexpected tensor {strange[0]}, expected plain LoRA")
    return AdapterFile(low_rank, whole)


def write_adapter(
    folder: Path,
    adapter: AdapterFile,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: str,
    modules_to_save: list[str],
    base: str | None,
) -> None:
    """Writes an adapter into a folder, which is made.

    targets: a regular expression that matches the names of the adapted modules and no other; a list of short names
    would match the vision tower's layers too. base: where the model that the adapter belongs to lies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{_PREFIX}{name}": tensor for name, tensor in adapter.whole.items()}
    for name, low in adapter.low_rank.items():
        tensors[f"{_PREFIX}{name}{_DOWN}"] = low.down_rI
        tensors[f"{_PREFIX}{name}{_UP}"] = low.up_Or
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(ready, folder / WEIGHTS, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": dropout,
        "bias": "none",
        "target_modules": targets,
        "modules_to_save": modules_to_save or None,
        "inference_mode": True,
    }
    write_json(folder / CONFIG, config)


def _bare(name: str) -> str:
    """A tensor's name behind what PEFT puts before it, and without the name of the only adapter."""
    bare = name.removeprefix(_PREFIX)
    return bare.removesuffix(_DEFAULT) + ".weight" if ".lora_" in bare and bare.endswith(_DEFAULT) else bare


def _refuse_variants(config: Mapping[str, Any], folder: Path) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{folder / CONFIG}: an adapter of type {kind}, expected LORA")
    odd = [key for key in _VARIANTS if config.get(key)]
    odd += ["bias"] if config.get("bias", "none") != "none" else []
    odd += ["init_lora_weights"] if config.get("init_lora_weights") not in _HARMLESS_INIT else []
    if odd:
        raise CheckpointError(
            f"{folder / CONFIG}: {odd[0]} is {config[odd[0]]!r}, which is more than plain LoRA; merge this adapter "
            "with peft and open the merged model"
        )


def _scaling(config: Mapping[str, Any], name: str, rank: int, folder: Path) -> float:
    """`alpha / r`, or `alpha / sqrt(r)` under rsLoRA; alpha may differ by module (alpha_pattern)."""
    try:
        patterns = config.get("alpha_pattern") or {}
        own = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", name))
        alpha = float(next(own, config["lora_alpha"]))
    except (KeyError, TypeError, ValueError, AttributeError, re.error) as error:
        raise CheckpointError(
            f"{folder / CONFIG}: lora_alpha or alpha_pattern is not a number ({error})"
        ) from error
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
