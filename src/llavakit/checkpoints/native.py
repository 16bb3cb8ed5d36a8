"""llavakit's own layout, for models that `LlavaForConditionalGeneration` cannot express.

The files are of the same kinds; tensors are named `vision_tower.*`, `projector.*` and `language_model.*`, each under
the names of its own module, and config.json holds the tower's and the language model's configurations whole. Only
llavakit opens it.

Knows tensor names and configurations as dictionaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from llavakit.checkpoints.files import CheckpointError
from llavakit.checkpoints.hf import PARTS, Parts

MODEL_TYPE = "llavakit_llava"
FUSED = "llavakit_fused"  # the type of a vision_config that holds several towers


def native_config(
    *,
    vision_config: dict[str, Any],
    text_config: dict[str, Any],
    dtype: str,
    settings: dict[str, Any],
    reason: str,
) -> dict[str, Any]:
    """config.json of the layout; `reason` says why the model is not in the layout of transformers."""
    return {
        "model_type": MODEL_TYPE,
        "dtype": dtype,
        "why_this_layout": reason,
        "text_config": text_config,
        "vision_config": vision_config,
        "llavakit": settings,
    }


def to_native(parts: Parts) -> dict[str, Tensor]:
    """The tensors of the three parts, each name behind its part's."""
    return {f"{part}.{name}": tensor for part in PARTS for name, tensor in parts[part].items()}


def from_native(tensors: Mapping[str, Tensor], where: str) -> Parts:
    """Sorts tensors into the parts; raises CheckpointError for one that belongs to none."""
    parts: Parts = {part: {} for part in PARTS}
    for name, tensor in tensors.items():
        part, _, inner = name.partition(".")
        if part not in parts or not inner:
            raise CheckpointError(f"{where}: unexpected tensor {name}; it belongs to no part of a LLaVA")
        parts[part][inner] = tensor
    return parts
