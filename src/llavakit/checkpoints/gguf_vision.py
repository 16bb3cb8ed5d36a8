"""A vision tower and a projector as llama.cpp's second file of a LLaVA, its `mmproj`.

llama.cpp's projector type `mlp` is two linear layers with GELU between them. `mlp2x_gelu` is that. `linear` is written
as that too, exactly: the first layer gives x and -x, and the second takes GELU(x) - GELU(-x), which is x.

llama.cpp puts CLIP's class token behind the patches while the positions count it before them, so that its features of
a CLIP tower are wrong; nothing in a file can mend that, and such a tower is written only when forced. Of SigLIP it
computes what transformers does, save that on a CPU it rounds pixels and patch weights to 16 bits and takes GELU, in its
tanh form, from a table of such numbers.

The tower is written as far as it is read. Knows tensors by name and configurations. Knows no module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llavakit.checkpoints.files import CheckpointError
from llavakit.checkpoints.gguf import GgufFile, Value
from llavakit.images.geometry import ImagePolicy
from llavakit.images.spec import BICUBIC, PixelSpec

PROJECTORS = ("mlp2x_gelu", "linear")

_PAD_COLOUR = (122, 116, 104)  # what llama.cpp puts behind a picture that is no square

_OUTER = {
    "embeddings.class_embedding": "v.class_embd",
    "embeddings.patch_embedding.weight": "v.patch_embd.weight",
    "embeddings.patch_embedding.bias": "v.patch_embd.bias",
    "embeddings.position_embedding.weight": "v.position_embd.weight",
    "pre_layrnorm.weight": "v.pre_ln.weight",
    "pre_layrnorm.bias": "v.pre_ln.bias",
}
_INNER = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
# Behind the hidden state that is read.
_UNREAD = ("post_layernorm.", "head.", "embeddings.position_ids")

# The tower's activation by the key that chooses it; without one it is quick GELU.
_ACTIVATIONS: dict[str, dict[str, Value]] = {
    "gelu_pytorch_tanh": {"clip.use_gelu": True},
    "gelu": {"clip.use_gelu": True},
    "silu": {"clip.use_silu": True},
    "quick_gelu": {},
}


def check_tower(model_type: str, force: bool) -> tuple[str, ...]:
    """Notes on a tower of this type; raises CheckpointError for one that cannot be written, or only when forced."""
    if model_type == "siglip_vision_model":
        return ()
    if model_type != "clip_vision_model":
        raise CheckpointError(
            f"vision tower of type {model_type}: it cannot be written as GGUF; expected a siglip_vision_model"
        )
    why = (
        "llama.cpp puts the class token of a CLIP tower behind the patches, while their positions count it before "
        "them, so its features are wrong"
    )
    if not force:
        raise CheckpointError(
            f"vision tower of type {model_type}: {why}; train with a SigLIP tower, or force the export for a reader "
            "that does it right"
        )
    return (why,)


def vision_file(
    *,
    config: Mapping[str, Any],
    tower: Mapping[str, Tensor],
    projector: str,
    projector_tensors: Mapping[str, Tensor],
    layers: Sequence[int],
    pixels: PixelSpec,
    policy: ImagePolicy,
    name: str,
    force: bool,
) -> GgufFile:
    """The GGUF file of a tower and a projector.

    config, tower: of the tower, as transformers has them. projector: one of PROJECTORS, its tensors under the names of
    its own module. layers: indices of the hidden states that are read, the embeddings being 0. pixels, policy: how the
    model was shown pictures, from which the notes say where llama.cpp differs.
    Raises CheckpointError for what llama.cpp's reader does not have.
    """
    notes = [*check_tower(config["model_type"], force), *_picture_notes(pixels, policy)]
    if list(layers) != sorted(set(layers)):
        raise CheckpointError(
            f"vision_feature_layer: layers {list(layers)} are read in this order, expected ascending"
        )
    act = config["hidden_act"]
    if act not in _ACTIVATIONS:
        raise CheckpointError(
            f"vision tower: its activation is {act}, expected one of {', '.join(_ACTIVATIONS)}"
        )
    if act == "gelu":
        notes.append(
            "the tower's exact GELU becomes its tanh form in llama.cpp; features differ by about 1e-3"
        )
    count = max(layers[-1], 1)
    joint = _joint(projector, projector_tensors)
    keys: dict[str, Value] = {
        "general.type": "mmproj",
        "general.name": name,
        "clip.has_vision_encoder": True,
        "clip.has_llava_projector": True,
        "clip.projector_type": "mlp",
        **_ACTIVATIONS[act],
        "clip.vision.image_size": pixels.image_size,
        "clip.vision.patch_size": int(config["patch_size"]),
        "clip.vision.embedding_length": int(config["hidden_size"]),
        "clip.vision.feed_forward_length": int(config["intermediate_size"]),
        "clip.vision.block_count": count,
        "clip.vision.projection_dim": len(joint["mm.2.weight"]),
        "clip.vision.attention.head_count": int(config["num_attention_heads"]),
        "clip.vision.attention.layer_norm_epsilon": float(config["layer_norm_eps"]),
        "clip.vision.image_mean": list(pixels.mean),
        "clip.vision.image_std": list(pixels.std),
        "clip.vision.feature_layer": list(layers),
    }
    named = ((_name(key.removeprefix("vision_model."), count), tensor) for key, tensor in tower.items())
    tensors = {key: tensor for key, tensor in named if key is not None}
    exact = frozenset({"v.position_embd.weight"})
    return GgufFile("clip", keys, tensors | joint, exact, tuple(notes))


def _name(key: str, count: int) -> str | None:
    """llama.cpp's name of a tower's tensor; None where it lies behind what is read."""
    if key in _OUTER:
        return _OUTER[key]
    match = _LAYER.fullmatch(key)
    if match is not None and match.group(2) in _INNER:
        number = int(match.group(1))
        return f"v.blk.{number}.{_INNER[match.group(2)]}.{match.group(3)}" if number < count else None
    if key.startswith(_UNREAD):
        return None
    raise CheckpointError(f"vision tower: llama.cpp has no place for the tensor {key}")


def _joint(projector: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if projector == "mlp2x_gelu":
        return {f"mm.{key}": tensor for key, tensor in tensors.items()}
    if projector != "linear":
        raise CheckpointError(
            f"projector {projector!r}: llama.cpp's LLaVA has two layers with GELU between them; expected "
            f"{' or '.join(PROJECTORS)}"
        )
    weight, bias = tensors["weight"], tensors["bias"]
    one = torch.eye(len(bias), dtype=bias.dtype)
    return {
        "mm.0.weight": torch.cat([weight, -weight]),
        "mm.0.bias": torch.cat([bias, -bias]),
        "mm.2.weight": torch.cat([one, -one], dim=1),
        "mm.2.bias": torch.zeros_like(bias),
    }


def _picture_notes(pixels: PixelSpec, policy: ImagePolicy) -> list[str]:
    """How llama.cpp shows pictures otherwise than the model saw them in training."""
    if policy.name not in ("square", "pad"):
        raise CheckpointError(
            f"image_policy {policy.name}: GGUF export cannot express its tiles; expected a model of the policy pad or "
            "square"
        )
    notes = []
    if policy.name == "square":
        how = "cut its middle out" if pixels.crop else "squeezed it to the tile"
        notes.append(
            f"llama.cpp pads a picture that is no square, where training {how} (image_policy square)"
        )
    elif pixels.mean_colour != _PAD_COLOUR:
        notes.append(
            f"llama.cpp pads a picture that is no square with the colour {_PAD_COLOUR}, training padded with "
            f"{pixels.mean_colour}; give it square pictures, or pad them first"
        )
    if pixels.resample != BICUBIC:
        notes.append(
            f"llama.cpp scales pictures by a bicubic filter, training by PIL's filter {pixels.resample}"
        )
    return notes
