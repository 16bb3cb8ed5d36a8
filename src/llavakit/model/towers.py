"""Vision towers: loading any that `transformers` opens, and taking from it the features that LLaVA uses.

A tower is a `transformers` module that answers pixels with hidden states. LLaVA reads one of them, by default the last
but one, and drops the tokens that stand before the patches (a class token, registers). A folder that holds a whole
CLIP or SigLIP model gives its vision half.

Several layers may be read, their features side by side. Several towers may look at the same tile: see `fused`.

Knows towers, their configuration and the image processor's file beside them. Knows nothing of language models.

Shapes: N tiles, C H W pixels, R rows of a hidden state (prefix tokens, then patches), P features kept, V tower width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin

from llavakit.errors import LlavakitError
from llavakit.images.geometry import TowerGeometry
from llavakit.images.spec import PixelSpec
from llavakit.model.sources import load_pretrained, loading
from llavakit.recipe import resolve_source

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Where the layers of a family live, for the families whose layers may simply be run up to the one that is read.
_LAYERS = {
    "clip_vision_model": "encoder.layers",
    "siglip_vision_model": "encoder.layers",
    "siglip2_vision_model": "encoder.layers",
    "dinov2": "encoder.layer",
    "dinov2_with_registers": "encoder.layer",
}
# Families whose position table has one size, so that the tile's size is not free.
_FIXED_SIZE = ("clip_vision_model", "siglip_vision_model")
# Families that interpolate their positions whenever they run.
_ANY_SIZE = ("dinov2", "dinov2_with_registers", "siglip2_vision_model")
# Of these, those that take patches in rows instead of pixels in a square.
_PATCHED = ("siglip2_vision_model",)

Layers = int | Sequence[int]


def load_tower(
    source: str,
    *,
    image_size: int | None = None,
    vision_feature_layer: Layers = -2,
    vision_feature_select: str = "patch",
    dtype: torch.dtype = torch.float32,
) -> tuple[PreTrainedModel, PixelSpec, TowerGeometry]:
    """Opens the tower called `source`: a folder, a hub name or `package:PKG/path`.

    image_size: side of the tile, where it is not to be the tower's own; a table of positions is then interpolated.
    Returns the module, how it wants its pixels, and its geometry under the given feature layers and selection.
    Without an image processor's file beside it, the pixels are CLIP's at the size its configuration names.
    Raises LlavakitError when it is not there, is no vision model, or would need code of its own.
    """
    config, spec = tower_config(source)
    name = resolve_source(source)
    tower = load_pretrained(AutoModel, "vision tower", source, name, config=config, dtype=dtype)
    if image_size is not None and image_size != spec.image_size:
        tower = resize_positions(tower, image_size)
        spec = replace(spec, image_size=image_size, shortest_edge=image_size)
    check_feature_layers(config, vision_feature_layer)
    return tower, spec, tower_geometry(tower.config, spec, vision_feature_select)


def tower_config(source: str, **reading: Any) -> tuple[PretrainedConfig, PixelSpec]:
    """The configuration of the tower called `source` and how it wants its pixels; no weights are read.

    reading: for `transformers`, e.g. `local_files_only`. Raises LlavakitError when it is not there or no vision model.
    """
    name = resolve_source(source)
    with loading("vision tower", source):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **reading)
    config = vision_part(config)
    return config, pixel_spec(_processor_config(name, **reading), config)


@torch.no_grad()
def resize_positions(tower: PreTrainedModel, image_size: int) -> PreTrainedModel:
    """The tower for tiles of another size: its table of positions interpolated, bicubic, as its patches stand.

    A tower that does this by itself (DINOv2) is returned as it is. Raises LlavakitError where a table of another kind
    would have to be changed.
    """
    config = tower.config
    if config.model_type not in _FIXED_SIZE:
        if config.model_type in _ANY_SIZE:
            return tower
        raise LlavakitError(
            f"image_size is {image_size}, but how a tower of type {config.model_type} is made to read another size "
            "than its own is not known; leave image_size out"
        )
    prefix = prefix_tokens(config)
    state = tower.state_dict()
    name = next(key for key in state if key.endswith("position_embedding.weight"))
    before, grid = state[name][:prefix], state[name][prefix:]
    side, new_side = config.image_size // config.patch_size, image_size // config.patch_size
    plane = grid.float().T.view(1, -1, side, side)
    resized = nn.functional.interpolate(plane, size=(new_side, new_side), mode="bicubic", align_corners=False)
    state[name] = torch.cat([before, resized[0].flatten(1).T.to(grid.dtype)])
    config = type(config).from_dict({**config.to_dict(), "image_size": image_size})
    resized_tower = type(tower)(config).to(state[name].dtype)
    resized_tower.load_state_dict(state)
    return resized_tower.eval()


def vision_part(config: PretrainedConfig) -> PretrainedConfig:
    """The configuration of the vision tower in `config`: its vision half where it describes a two-sided model."""
    vision = getattr(config, "vision_config", None)
    config = config if vision is None else vision
    if config.model_type in _PATCHED:  # it names its size by the number of patches it was trained with
        config.image_size = math.isqrt(config.num_patches) * config.patch_size
    for key in ("hidden_size", "num_hidden_layers", "patch_size", "image_size"):
        if not isinstance(getattr(config, key, None), int):
            raise LlavakitError(
                f"vision tower: a model of type {config.model_type} has no single {key} in its configuration; "
                "expected a vision transformer such as CLIP, SigLIP or DINOv2"
            )
    return config


def pixel_spec(processor: dict[str, Any] | None, config: PretrainedConfig) -> PixelSpec:
    """How a tower wants its pixels, from its image processor's configuration or, without one, as CLIP would."""
    if processor is None:
        return PixelSpec(config.image_size, CLIP_MEAN, CLIP_STD)
    spec = PixelSpec.from_config(processor, config.image_size)
    if config.model_type in _FIXED_SIZE and spec.image_size != config.image_size:
        raise LlavakitError(
            f"vision tower: its image processor makes tiles of {spec.image_size} pixels but the tower reads "
            f"{config.image_size}; set the size in preprocessor_config.json"
        )
    return spec


def _processor_config(name: str, **reading: Any) -> dict[str, Any] | None:
    try:
        processor, _ = ImageProcessingMixin.get_image_processor_dict(name, **reading)
    except OSError:
        return None
    return processor


def prefix_tokens(config: PretrainedConfig) -> int:
    """How many rows of a hidden state stand before the patches: a class token, registers."""
    known = {"siglip_vision_model": 0, "siglip2_vision_model": 0, "deit": 2}
    return known.get(config.model_type, 1) + int(getattr(config, "num_register_tokens", 0) or 0)


def tower_geometry(config: PretrainedConfig, spec: PixelSpec, select: str) -> TowerGeometry:
    """The geometry of a tower under a selection: `patch` keeps the patches, `cls_patch` the prefix tokens too."""
    if select not in ("patch", "cls_patch"):
        raise LlavakitError(f"vision_feature_select {select!r} is unknown; expected 'patch' or 'cls_patch'")
    extra = prefix_tokens(config) if select == "cls_patch" else 0
    return TowerGeometry(spec.image_size, config.patch_size, extra)


def layer_list(layers: Layers) -> tuple[int, ...]:
    """The layers that are read, as they are named."""
    return (layers,) if isinstance(layers, int) else tuple(layers)


def check_feature_layers(config: PretrainedConfig, layers: Layers) -> list[int]:
    """The indices of the hidden states that are named, counting the embeddings as 0; raises when there is none."""
    states = config.num_hidden_layers + 1
    named = layer_list(layers)
    for layer in named:
        if not -states <= layer < states:
            raise LlavakitError(
                f"vision_feature_layer is {layer}, but a tower of {config.num_hidden_layers} layers has hidden states "
                f"-{states} to {states - 1}"
            )
    if not named:
        raise LlavakitError("vision_feature_layer is an empty list; expected at least one layer")
    return [layer % states for layer in named]


def layers_run(config: PretrainedConfig, layers: Layers) -> int:
    """How many of the tower's layers are run when these hidden states are read."""
    deepest = max(check_feature_layers(config, layers))
    return max(deepest, 1) if config.model_type in _LAYERS else int(config.num_hidden_layers)


def feature_width(config: PretrainedConfig, layers: Layers) -> int:
    """The width of a tower's features: its own, as many times as layers are read."""
    return int(config.hidden_size) * len(layer_list(layers))


def tower_features(tower: PreTrainedModel, tiles_NCHW: Tensor, layers: Layers, select: str) -> Tensor:
    """Runs the tower as far as it is read and returns its features (N, P, V), those of several layers side by side.

    Raises LlavakitError when the tower answers with another number of rows than its prefix tokens and patches.
    """
    config = tower.config
    indices = check_feature_layers(config, layers)
    prefix = prefix_tokens(config)
    parameter = next(tower.parameters())
    height, width = (side // config.patch_size for side in tiles_NCHW.shape[-2:])
    tiles_NCHW = tiles_NCHW.to(parameter.device, parameter.dtype)
    with _only_layers(tower, max(indices)):
        inputs = (
            _patches(tiles_NCHW, config.patch_size)
            if config.model_type in _PATCHED
            else {"pixel_values": tiles_NCHW}
        )
        states = tower(**inputs, output_hidden_states=True).hidden_states
    rows = prefix + height * width
    if states is None or states[indices[0]].dim() != 3 or states[indices[0]].shape[1] != rows:
        found = None if states is None else tuple(states[indices[0]].shape)
        raise LlavakitError(
            f"vision tower of type {config.model_type}: a hidden state is of shape {found}, expected "
            f"{prefix} prefix tokens and {height}x{width} patches of each tile"
        )
    read = [states[index] for index in indices]
    features_NRV = read[0] if len(read) == 1 else torch.cat(read, dim=-1)
    return features_NRV[:, prefix:] if select == "patch" else features_NRV


def _patches(tiles_NCHW: Tensor, patch_size: int) -> dict[str, Tensor]:
    """Tiles as SigLIP 2 of any shape takes pictures: patches in rows, with their grid and a mask that hides nothing."""
    tiles, channels, height, width = tiles_NCHW.shape
    rows, columns = height // patch_size, width // patch_size
    whole = tiles_NCHW[:, :, : rows * patch_size, : columns * patch_size]
    cut = whole.reshape(tiles, channels, rows, patch_size, columns, patch_size)
    patches = cut.permute(0, 2, 4, 3, 5, 1).reshape(tiles, rows * columns, -1)
    shape = torch.tensor([[rows, columns]], device=tiles_NCHW.device).expand(tiles, 2)
    mask = torch.ones(tiles, rows * columns, dtype=torch.int32, device=tiles_NCHW.device)
    return {"pixel_values": patches, "pixel_attention_mask": mask, "spatial_shapes": shape}


@contextmanager
def _only_layers(tower: PreTrainedModel, count: int) -> Iterator[None]:
    """Within it, the tower has only its first `count` layers (one at least), where its family allows that."""
    path = _LAYERS.get(tower.config.model_type)
    if path is None:
        yield
        return
    parent_path, name = path.split(".")
    parent = tower.get_submodule(parent_path)
    layers = parent.get_submodule(name)
    assert isinstance(layers, nn.ModuleList)
    setattr(parent, name, nn.ModuleList(list(layers)[: max(count, 1)]))
    try:
        yield
    finally:
        setattr(parent, name, layers)
