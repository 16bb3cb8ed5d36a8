"""The numbers of a model that decide what its training costs, read from configurations alone.

What lives here: from the parts that a recipe names to widths, layers and parameters. A part is built without weights
(on the meta device) from its configuration, so that every family that `transformers` knows is counted as it is. It
knows configurations. It does not know stages, memory or time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PretrainedConfig

from llavakit.checkpoints import hf
from llavakit.checkpoints.files import read_json
from llavakit.errors import LlavakitError
from llavakit.images.geometry import TowerGeometry
from llavakit.model.opening import part_configs
from llavakit.model.projectors import build_projector, reduced_side
from llavakit.model.sources import loading
from llavakit.model.towers import feature_width, layers_run, prefix_tokens, vision_part
from llavakit.recipe import ModelRecipe
from llavakit.training.configurations import language_configuration, stored_half, tower_configuration

# What stands behind the layers of a tower, and is run without being read.
_BEHIND = ("post_layernorm", "layernorm", "head", "pooler")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True)
class Linear:
    """One linear layer: its own name, its widths before and behind it."""

    name: str
    before: int
    behind: int

    @property
    def weights(self) -> int:
        return self.before * self.behind


@dataclass(frozen=True, slots=True)
class Block:
    """One layer of a transformer. query, key_value: widths of all heads together. inner: width inside the MLP. gated:
    whether the MLP has a gate. rms: whether its norms are RMS norms, as language models have them, or layer norms.
    norms: how many are as wide as the layer. head_norms: whether query and key are normalised too. sigmoid: whether the
    activation is made of two operations (CLIP's `quick_gelu`)."""

    width: int
    heads: int
    query: int
    key_value: int
    inner: int
    gated: bool
    rms: bool
    norms: int
    head_norms: bool
    sigmoid: bool
    linears: tuple[Linear, ...]

    @property
    def weights(self) -> int:
        """Numbers in its linear layers."""
        return sum(linear.weights for linear in self.linears)


@dataclass(frozen=True, slots=True)
class Part:
    """A pretrained part. unread: numbers of what is not read. layers: how many are run. half: whether bfloat16 holds
    its weights as they are. origin: where its configuration comes from."""

    name: str
    parameters: int
    unread: int
    layers: int
    block: Block
    half: bool
    origin: str


@dataclass(frozen=True, slots=True)
class Tower:
    """A vision tower: rows of a hidden state, weights of its patch embedding, pixels of a tile's side."""

    part: Part
    rows: int
    patch_weights: int
    image_size: int


@dataclass(frozen=True, slots=True)
class Architecture:
    """All parts. projector: its matrices. geometry: of the (first) tower behind the projector. features: the width that
    the projector is given."""

    towers: tuple[Tower, ...]
    projector: tuple[Linear, ...]
    projector_parameters: int
    language: Part
    vocabulary: int
    tied: bool
    geometry: TowerGeometry
    features: int

    def parameters(self) -> dict[str, int]:
        """Numbers in each part, by the parts' names."""
        return {
            "vision_tower": sum(tower.part.parameters for tower in self.towers),
            "projector": self.projector_parameters,
            "newline": self.language.block.width,
            "language_model": self.language.parameters,
        }

    @property
    def head(self) -> int:
        """Weights of the head (and of the embedding)."""
        return self.vocabulary * self.language.block.width


def read_architecture(recipe: ModelRecipe) -> Architecture:
    """The numbers of the model that a recipe describes.

    Raises LlavakitError naming the part whose configuration cannot be had, or that is of a kind not counted.
    """
    if recipe.checkpoint is not None:
        return _saved(recipe.checkpoint)
    names = [recipe.vision_tower] if isinstance(recipe.vision_tower, str) else recipe.vision_tower
    found = [tower_configuration(name) for name in names]
    first = found[0].config
    size = recipe.image_size or found[0].image_size
    layers, select = recipe.vision_feature_layer, recipe.vision_feature_select
    language = language_configuration(recipe.language_model)
    towers = tuple(
        tower_numbers(
            one.config, size if one is found[0] else one.image_size, layers, name, one.half, one.origin
        )
        for name, one in zip(names, found, strict=True)
    )
    extra = prefix_tokens(first) if select == "cls_patch" else 0
    return architecture(
        towers,
        language_numbers(language.config, recipe.language_model, language.half, language.origin),
        language.config,
        projector=recipe.projector,
        features=sum(feature_width(one.config, layers) for one in found),
        geometry=TowerGeometry(size, first.patch_size, extra),
    )


def architecture(
    towers: tuple[Tower, ...],
    language: Part,
    config: PretrainedConfig,
    *,
    projector: str,
    features: int,
    geometry: TowerGeometry,
) -> Architecture:
    """Joins counted parts by the projector called `projector`. config: the language model's."""
    with torch.device("meta"):
        joint = build_projector(projector, features, language.block.width, geometry.side)
    return Architecture(
        towers=towers,
        projector=linears_of(joint),
        projector_parameters=_size(joint),
        language=language,
        vocabulary=int(config.vocab_size),
        tied=bool(config.tie_word_embeddings),
        geometry=replace(geometry, reduced_side=reduced_side(projector, geometry.side)),
        features=features,
    )


def tower_numbers(
    config: PretrainedConfig, image_size: int, layers: Any, name: str, half: bool, origin: str
) -> Tower:
    """Counts a tower by its configuration. layers: the hidden states that are read."""
    with loading("vision tower", name), torch.device("meta"):
        module = AutoModel.from_config(config)
    run = layers_run(config, layers)
    stack = _stack(module, config, name)
    unread = sum(_size(layer) for layer in stack[run:])
    unread += sum(_size(one) for name, one in module.named_children() if name in _BEHIND)
    patches = (image_size // config.patch_size) ** 2
    if (table := patches - (config.image_size // config.patch_size) ** 2) and image_size != config.image_size:
        unread -= table * config.hidden_size  # the table of positions is interpolated to the tile's own
    return Tower(
        Part(name, _size(module), max(unread, 0), run, _block(stack[0], config), half, origin),
        rows=prefix_tokens(config) + patches,
        patch_weights=3 * config.patch_size**2 * config.hidden_size,
        image_size=image_size,
    )


def language_numbers(config: PretrainedConfig, name: str, half: bool, origin: str) -> Part:
    """Counts a language model by its configuration."""
    if any((getattr(config, key, None) or 0) > 1 for key in _EXPERTS):
        raise LlavakitError(
            f"language model {name}: a mixture of experts of type {config.model_type}, whose cost is not counted here; "
            "name a dense model"
        )
    with loading("language model", name), torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config)
    stack = _stack(module, config, name)
    return Part(name, _size(module), 0, len(stack), _block(stack[0], config), half, origin)


def linears_of(module: nn.Module) -> tuple[Linear, ...]:
    """The linear layers in a module, under the last part of their names."""
    return tuple(
        Linear(path.rpartition(".")[2], one.in_features, one.out_features)
        for path, one in module.named_modules()
        if isinstance(one, nn.Linear)
    )


def _block(layer: nn.Module, config: PretrainedConfig) -> Block:
    width, heads = int(config.hidden_size), int(config.num_attention_heads)
    head = int(getattr(config, "head_dim", None) or width // heads)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    linears = linears_of(layer)
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    mlp = [linear for linear in linears if linear.before == inner or linear.behind in (inner, 2 * inner)]
    norms = [one for one in layer.modules() if type(one).__name__.endswith("Norm")]
    wide = [one for one in norms if _size(one) in (width, 2 * width)]
    return Block(
        width=width,
        heads=heads,
        query=heads * head,
        key_value=groups * head,
        inner=inner,
        gated=sum(linear.weights for linear in mlp) > 2.5 * inner * width,
        rms=not any(isinstance(one, nn.LayerNorm) for one in norms),
        norms=len(wide),
        head_norms=len(wide) < len(norms),
        sigmoid=getattr(config, "hidden_act", None) == "quick_gelu",
        linears=linears,
    )


def _stack(module: nn.Module, config: PretrainedConfig, name: str) -> list[nn.Module]:
    """The layers of a transformer."""
    for one in module.modules():
        if isinstance(one, nn.ModuleList) and len(one) == config.num_hidden_layers:
            return list(one)
    raise LlavakitError(
        f"{name}: a model of type {config.model_type} does not show its {config.num_hidden_layers} layers as a list, "
        "so its cost cannot be counted; name another part"
    )


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _saved(folder: str) -> Architecture:
    """The numbers of a saved LLaVA folder."""
    place = Path(folder).expanduser()
    if not (place / "config.json").is_file():
        raise LlavakitError(
            f"checkpoint {folder}: no config.json there; name the local folder of a saved LLaVA"
        )
    config = read_json(place / "config.json")
    if not isinstance(config.get("vision_config"), dict) or not isinstance(config.get("text_config"), dict):
        raise LlavakitError(
            f"checkpoint {folder}: its config.json is not that of a LLaVA; expected vision_config and text_config"
        )
    mine = config.get("llavakit") or {}
    towers, language = part_configs(config, folder)
    layers = mine.get("vision_feature_layer", config.get("vision_feature_layer", -2))
    half = stored_half(place)
    size = int((mine.get("pixels") or {}).get("image_size", towers[0].image_size))
    extra = prefix_tokens(towers[0]) if mine.get("vision_feature_select") == "cls_patch" else 0
    return architecture(
        tuple(
            tower_numbers(
                vision_part(one),
                size if number == 0 else one.image_size,
                layers,
                f"tower of {folder}",
                half,
                folder,
            )
            for number, one in enumerate(towers)
        ),
        language_numbers(language, f"language model of {folder}", half, folder),
        language,
        projector=mine.get("projector") or hf.projector_of(config, folder),
        features=sum(feature_width(one, layers) for one in towers),
        geometry=TowerGeometry(size, towers[0].patch_size, extra),
    )
