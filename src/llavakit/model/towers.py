"""Vision towers: loading any that `transformers` opens, and taking from it the features that LLaVA uses.

A tower is a `transformers` module that answers pixels with hidden states. LLaVA reads one of them, by default the last
but one, and drops the tokens that stand before the patches (a class token, registers). A folder that holds a whole
CLIP or SigLIP model gives its vision half.

Knows towers, their configuration and the image processor's file beside them. Knows nothing of language models.

Shapes: N tiles, C H W pixels, R rows of a hidden state (prefix tokens, then patches), P features kept, V tower width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    "dinov2": "encoder.layer",
    "dinov2_with_registers": "encoder.layer",
}
# Families whose position table has one size, so that the tile's size is not free.
_FIXED_SIZE = ("clip_vision_model", "siglip_vision_model")


def load_tower(
    source: str,
    *,
    vision_feature_layer: int = -2,
    vision_feature_select: str = "patch",
    dtype: torch.dtype = torch.float32,
) -> tuple[PreTrainedModel, PixelSpec, TowerGeometry]:
    """Opens the tower called `source`: a folder, a hub name or `package:PKG/path`.

    Returns the module, how it wants its pixels, and its geometry under the given feature layer and selection.
    Without an image processor's file beside it, the pixels are CLIP's at the size its configuration names.
    Raises LlavakitError when it is not there, is no vision model, holds no safetensors, or would need its own code.
    """
    name = resolve_source(source)
    with loading("vision tower", source):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    config = vision_part(config)
    tower = load_pretrained(AutoModel, "vision tower", source, name, config=config, dtype=dtype)
    spec = pixel_spec(_processor_config(name), config)
    check_feature_layer(config, vision_feature_layer)
    return tower, spec, tower_geometry(config, spec, vision_feature_select)


def vision_part(config: PretrainedConfig) -> PretrainedConfig:
    """The configuration of the vision tower in `config`: its vision half where it describes a two-sided model."""
    vision = getattr(config, "vision_config", None)
    config = config if vision is None else vision
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


def _processor_config(name: str) -> dict[str, Any] | None:
    try:
        processor, _ = ImageProcessingMixin.get_image_processor_dict(name)
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


def check_feature_layer(config: PretrainedConfig, layer: int) -> int:
    """The index of the hidden state that `layer` names, counting the embeddings as 0; raises when there is none."""
    states = config.num_hidden_layers + 1
    if not -states <= layer < states:
        raise LlavakitError(
            f"vision_feature_layer is {layer}, but a tower of {config.num_hidden_layers} layers has hidden states "
            f"-{states} to {states - 1}"
        )
    return layer % states


def select_features(hidden_states: Sequence[Tensor], layer: int, select: str, prefix_tokens: int) -> Tensor:
    """The features of a tile: hidden state `layer` (N, R, V), without the prefix tokens when select is `patch`."""
    hidden_NRV = hidden_states[layer]
    return hidden_NRV[:, prefix_tokens:] if select == "patch" else hidden_NRV


def tower_features(tower: PreTrainedModel, tiles_NCHW: Tensor, layer: int, select: str) -> Tensor:
    """Runs the tower as far as it is read and returns its features (N, P, V).

    Raises LlavakitError when the tower answers with another number of rows than its prefix tokens and patches.
    """
    config = tower.config
    index = check_feature_layer(config, layer)
    prefix = prefix_tokens(config)
    parameter = next(tower.parameters())
    with _only_layers(tower, index):
        states = tower(
            tiles_NCHW.to(parameter.device, parameter.dtype), output_hidden_states=True
        ).hidden_states
    height, width = (side // config.patch_size for side in tiles_NCHW.shape[-2:])
    if states is None or states[index].dim() != 3 or states[index].shape[1] != prefix + height * width:
        found = None if states is None else tuple(states[index].shape)
        raise LlavakitError(
            f"vision tower of type {config.model_type}: a hidden state is of shape {found}, expected "
            f"{prefix} prefix tokens and {height}x{width} patches of each tile"
        )
    return select_features(states, index, select, prefix)


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
