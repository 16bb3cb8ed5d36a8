"""What the original LLaVA (folders of `liuhaotian/*` and of LLaVA-NeXT) calls its tensors.

The language model's names are its own. What a tower of SigLIP has behind the layer that is read, the original deletes.

Knows tensor names, and the parts as `hf` does. What config.json says is `original_config`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from llavakit.checkpoints.files import CheckpointError
from llavakit.checkpoints.hf import PARTS, Parts

CLIP, SIGLIP = "clip_vision_model", "siglip_vision_model"
TOWERS = (CLIP, SIGLIP)
DERIVED = ("rotary_emb.inv_freq", "embeddings.position_ids")  # computed, but saved by older versions

_TOWER = "model.vision_tower.vision_tower."
_NEST = "vision_model."
_PROJECTOR = "mm_projector."
_NEWLINE = "model.image_newline"
_LANGUAGE_MODEL = ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head.")


def from_original(tensors: Mapping[str, Tensor], where: str) -> Parts:
    """Sorts the tensors of a folder into the parts; raises CheckpointError for one that belongs to none.

    Tables that older versions of transformers computed and saved are left.
    """
    parts: Parts = {part: {} for part in PARTS}
    for name, tensor in tensors.items():
        if name.endswith(DERIVED):
            continue
        if name.startswith(_TOWER):
            parts["vision_tower"][name.removeprefix(_TOWER)] = tensor
        elif name.startswith("model." + _PROJECTOR):
            parts["projector"][name.removeprefix("model." + _PROJECTOR)] = tensor
        elif name == _NEWLINE:
            parts["newline"]["weight"] = tensor
        elif name.startswith(_LANGUAGE_MODEL):
            parts["language_model"][name] = tensor
        else:
            raise CheckpointError(f"{where}: unexpected tensor {name}; it belongs to no part of a LLaVA")
    return parts


def projector_tensors(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors of a projector's own file (`mm_projector.bin`) under the names of its module.

    Raises CheckpointError for a file that holds none, or something else beside them.
    """
    strange = [name for name in tensors if _PROJECTOR not in name]
    if strange or not tensors:
        found = f"the tensor {strange[0]}" if strange else "no tensor"
        raise CheckpointError(f"{where}: holds {found}, expected those of a projector alone (mm_projector.*)")
    return {name.partition(_PROJECTOR)[2]: tensor for name, tensor in tensors.items()}


def to_original(parts: Parts, *, tower: bool, newline: bool, unread: Sequence[str] = ()) -> dict[str, Tensor]:
    """The tensors of the parts under their names in the dialect.

    tower, newline: whether theirs are written. unread: beginnings of the tower's names that the original deletes.
    """
    tensors = dict(parts["language_model"])
    tensors |= {f"model.{_PROJECTOR}{name}": tensor for name, tensor in parts["projector"].items()}
    if newline:
        tensors[_NEWLINE] = parts["newline"]["weight"]
    if tower:
        for name, tensor in bare_tower(parts["vision_tower"]).items():
            if not name.startswith(tuple(_NEST + start for start in unread)):
                tensors[_TOWER + name] = tensor
    return tensors


def bare_tower(tower: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A tower's tensors under the names of its own checkpoint, which have the level `vision_model`."""
    return {_NEST + name.removeprefix(_NEST): tensor for name, tensor in tower.items()}


def unread_of(tower_type: str, layers: int) -> tuple[str, ...]:
    """Beginnings of the names in a tower of so many layers that the original deletes: SigLIP's last layer and head."""
    return (f"encoder.layers.{layers - 1}.", "head.") if tower_type == SIGLIP else ()
