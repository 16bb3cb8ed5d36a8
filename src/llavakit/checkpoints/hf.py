"""The layouts of `LlavaForConditionalGeneration` and `LlavaNextForConditionalGeneration`: what their tensors are called
and what their config.json says. They differ in the newline's row, and in pinpoints.

Pinpoints are written (height, width), as transformers reads them, in the order in which llavakit settles ties, so that
both choose the same grid for every picture.

The names written are always those of the LLaVA checkpoints on the hub (`language_model.model.*`,
`language_model.lm_head.weight`, `vision_tower.vision_model.*`, `multi_modal_projector.linear_1.*`), which every version
of transformers and other servers read; what transformers itself would write depends on how a model was loaded. All
three layouts that transformers 5 knows are read.

A projector of one layer is written as two, the second the identity under a linear activation, which computes the same.

Knows tensor names and configurations as dictionaries. The parts pass through it, each a dictionary of tensors under
the names its own module uses: `vision_tower`, `projector`, `newline`, `language_model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from llavakit.checkpoints.files import CheckpointError
from llavakit.images.geometry import Grid, ImagePolicy

MODEL_TYPE = "llava"
NEXT_MODEL_TYPE = "llava_next"
MODEL_TYPES = (MODEL_TYPE, NEXT_MODEL_TYPE)
ARCHITECTURES = {
    MODEL_TYPE: "LlavaForConditionalGeneration",
    NEXT_MODEL_TYPE: "LlavaNextForConditionalGeneration",
}
PARTS = ("vision_tower", "projector", "newline", "language_model")

Parts = dict[str, dict[str, Tensor]]

# Towers whose hub names have one more level.
_NESTED_TOWERS = ("clip_vision_model", "siglip_vision_model")
_NEST = "vision_model."

# The decoder inside a causal language model, and its head, as the module names them.
_DECODER = "model."
_HEAD = "lm_head."

# The two tensors with a row a token; the second is absent where it is tied to the first.
EMBEDDING = "model.embed_tokens.weight"
VOCABULARY_TENSORS = (EMBEDDING, "lm_head.weight")


def model_type(policy: ImagePolicy) -> str:
    """Which of the two layouts a model of this image policy is saved in."""
    return NEXT_MODEL_TYPE if policy.name == "anyres" else MODEL_TYPE


def why_not_expressible(
    *,
    projector: str,
    select: str,
    policy: ImagePolicy,
    prefix_tokens: int | None,
    plain_head: bool,
    language_names: list[str],
) -> str | None:
    """Says why a model does not fit its layout of transformers; None when it does.

    prefix_tokens: rows before the patches in the tower, None where several towers are fused. plain_head: the scores
    are the hidden state times a weight. language_names: the names of the language model's tensors.
    """
    if prefix_tokens is None:
        return "it has several vision towers"
    if policy.name == "anyres" and (policy.merge != "spatial_unpad" or policy.max_tiles is not None):
        most = (
            "" if policy.max_tiles is None else f" with at most {policy.max_tiles} tiles' worth of features"
        )
        return f"its tiles are merged as {policy.merge}{most}"
    if policy.name == "anyres" and select != "patch":
        return f"its tiles' features are {select}"
    if projector not in ("linear", "mlp2x_gelu"):
        return f"its projector is {projector}"
    if select == "patch" and prefix_tokens > 1:
        return f"its tower has {prefix_tokens} tokens before the patches, of which one can be dropped"
    if not plain_head:
        return "its language model scales, caps or biases its scores"
    if any(not name.startswith((_DECODER, _HEAD)) for name in language_names):
        return "its language model is not a decoder called model under a head called lm_head"
    return None


def select_strategy(select: str, prefix_tokens: int) -> str:
    """`default` drops the first row of a hidden state, `full` keeps all."""
    return "default" if select == "patch" and prefix_tokens == 1 else "full"


def hf_config(
    *,
    vision_config: dict[str, Any],
    text_config: dict[str, Any],
    projector: str,
    feature_layer: int | list[int],
    policy: ImagePolicy,
    image_size: int,
    strategy: str,
    image_token: int,
    image_length: int,
    tied: bool,
    dtype: str,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """config.json of the layout; `settings` are llavakit's own and stand under the key `llavakit`."""
    kind = model_type(policy)
    tiled = {"image_grid_pinpoints": pinpoints(policy, image_size)} if kind == NEXT_MODEL_TYPE else {}
    return {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        **tiled,
        "dtype": dtype,
        "image_token_index": image_token,
        "image_seq_length": image_length,
        "projector_hidden_act": "linear" if projector == "linear" else "gelu",
        "multimodal_projector_bias": True,
        "vision_feature_layer": feature_layer,
        "vision_feature_select_strategy": strategy,
        "tie_word_embeddings": tied,
        "text_config": text_config,
        "vision_config": vision_config,
        "llavakit": settings,
    }


def pinpoints(policy: ImagePolicy, image_size: int) -> list[list[int]]:
    """The grids of a policy as transformers writes them: [height, width] in pixels."""
    return [[grid.rows * image_size, grid.columns * image_size] for grid in policy.grids]


def grids_of(config: Mapping[str, Any], image_size: int, where: str) -> tuple[Grid, ...]:
    """The grids that a config.json's pinpoints, [height, width], mean for tiles of this size."""
    points = config.get("image_grid_pinpoints")
    if not isinstance(points, list) or not points:
        raise CheckpointError(
            f"{where}: image_grid_pinpoints is {points}, expected a list of [height, width]"
        )
    grids = []
    for point in points:
        if (
            not isinstance(point, list)
            or len(point) != 2
            or any(side % image_size or side < 1 for side in point)
        ):
            raise CheckpointError(
                f"{where}: the pinpoint {point} is no multiple of the tower's {image_size} pixels; these pinpoints "
                "belong to another tower"
            )
        grids.append(Grid(point[1] // image_size, point[0] // image_size))
    return tuple(grids)


def to_hub(parts: Parts, *, tower_type: str, projector: str, newline: bool) -> dict[str, Tensor]:
    """The tensors of the parts under their hub names; the newline's only where the layout has it."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in parts["language_model"].items():
        tensors[f"language_model.{name}"] = tensor
    nest = _NEST if tower_type in _NESTED_TOWERS else ""
    for name, tensor in parts["vision_tower"].items():
        tensors[f"vision_tower.{nest}{name.removeprefix(nest)}"] = tensor
    if newline:
        tensors["image_newline"] = parts["newline"]["weight"]
    return tensors | projector_to_hub(parts["projector"], projector)


def projector_to_hub(mine: Mapping[str, Tensor], projector: str) -> dict[str, Tensor]:
    """The tensors of a projector under their hub names, as two layers."""
    tensors: dict[str, Tensor] = {}
    first, second = ("", "second") if projector == "linear" else ("0.", "2.")
    for kind in ("weight", "bias"):
        tensors[f"multi_modal_projector.linear_1.{kind}"] = mine[first + kind]
        if projector != "linear":
            tensors[f"multi_modal_projector.linear_2.{kind}"] = mine[second + kind]
    if projector == "linear":
        bias = mine["bias"]
        tensors["multi_modal_projector.linear_2.weight"] = torch.eye(len(bias), dtype=bias.dtype)
        tensors["multi_modal_projector.linear_2.bias"] = torch.zeros_like(bias)
    return tensors


def in_memory(part: str, name: str) -> str:
    """What the classes of transformers 5 call, in memory, a module or tensor of the tower or the language model."""
    if part == "vision_tower":
        return f"model.vision_tower.{name}"
    return f"model.language_model.{name.removeprefix(_DECODER)}" if name.startswith(_DECODER) else name


def from_hub(tensors: Mapping[str, Tensor], *, projector: str, where: str) -> Parts:
    """Sorts the tensors of a checkpoint, in any of the three layouts, into the parts under their modules' names.

    Tower names keep or lack the level `vision_model`, as they were found. Raises CheckpointError, naming `where`, for
    a tensor that belongs to no part and for a projector that is not the one announced.
    """
    parts: Parts = {part: {} for part in PARTS}
    layers: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        place = part_of(name)
        if place is None:
            raise CheckpointError(f"{where}: unexpected tensor {name}; it belongs to no part of a LLaVA")
        part, inner = place
        (layers if part == "projector" else parts[part])[inner] = tensor
    parts["projector"] = _projector(layers, projector, where)
    return parts


def part_of(name: str) -> tuple[str, str] | None:
    """The part that a tensor of any of the three layouts belongs to, and its name there; None where there is none.

    A projector's layers keep the names linear_1 and linear_2.
    """
    key = name.removeprefix("model.")
    if key == "image_newline":
        return "newline", "weight"
    if key.startswith(_HEAD):
        return "language_model", key
    part, _, inner = key.partition(".")
    if part == "multi_modal_projector":
        return "projector", inner
    if part == "language_model" and not inner.startswith((_DECODER, _HEAD)):
        return part, _DECODER + inner
    return (part, inner) if part in ("vision_tower", "language_model") else None


def _projector(layers: dict[str, Tensor], projector: str, where: str) -> dict[str, Tensor]:
    known = {f"linear_{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")}
    strange = sorted(set(layers) - known)
    if strange:
        raise CheckpointError(f"{where}: unexpected tensor multi_modal_projector.{strange[0]}")
    absent = sorted(known - set(layers))
    if absent:
        raise CheckpointError(f"{where}: the tensor multi_modal_projector.{absent[0]} is missing")
    if projector == "linear":
        weight, bias = layers["linear_2.weight"], layers["linear_2.bias"]
        same = weight.dim() == 2 and torch.equal(weight, torch.eye(len(weight), dtype=weight.dtype))
        if not same or bool(bias.any()):
            raise CheckpointError(
                f"{where}: its projector is announced as linear, but its second layer is not the identity"
            )
        return {kind: layers[f"linear_1.{kind}"] for kind in ("weight", "bias")}
    return {
        f"{place}.{kind}": layers[f"linear_{number}.{kind}"]
        for number, place in ((1, 0), (2, 2))
        for kind in ("weight", "bias")
    }


def projector_of(config: Mapping[str, Any], where: str) -> str:
    """Which of llavakit's projectors a config.json of the layout announces."""
    act = config.get("projector_hidden_act", "gelu")
    if act == "gelu" and config.get("multimodal_projector_bias", True):
        return "mlp2x_gelu"
    if act == "linear":
        return "linear"
    raise CheckpointError(
        f"{where}: its projector has activation {act} and bias {config.get('multimodal_projector_bias', True)}; "
        "expected gelu, or linear, with a bias"
    )
