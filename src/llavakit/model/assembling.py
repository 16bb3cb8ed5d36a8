"""From tensors sorted by part to a Llava: modules that hold exactly the tensors they ask for.

Every tensor that a configuration asks for must be there in its shape, and no other; what is wrong is told in one
sentence that names it. Every layout is opened through here.

Knows modules, configurations and tensors by their modules' names. Knows neither layouts nor what files are called,
save for the generation settings beside the weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PretrainedConfig

from llavakit.checkpoints.files import CheckpointError
from llavakit.images.spec import PixelSpec
from llavakit.model.arrange import Newline
from llavakit.model.language import prepare_language_model, token_embedding
from llavakit.model.projectors import build_projector, reduced_side
from llavakit.model.sources import loading
from llavakit.model.towers import feature_width, tower_geometry

if TYPE_CHECKING:
    from llavakit.model.llava import Llava, LlavaSettings


def assemble(
    cls: type[Llava],
    tower: Any,
    vision_configs: Sequence[PretrainedConfig],
    language_model: Any,
    *,
    projector: Mapping[str, Tensor],
    newline: Mapping[str, Tensor],
    settings: LlavaSettings,
    pixels: PixelSpec,
    tokenizer: Any,
    folder: Path,
    where: str,
    dtype: torch.dtype | None,
) -> Llava:
    """A Llava of a tower, a language model and the tensors of projector and newline.

    vision_configs: of the tower, or of each that is fused. folder: may hold generation settings. where: what a message
    calls the checkpoint. Raises CheckpointError when projector or newline do not fit.
    """
    geometry = tower_geometry(vision_configs[0], pixels, settings.vision_feature_select)
    width = sum(feature_width(one, settings.vision_feature_layer) for one in vision_configs)
    embedding = token_embedding(language_model)
    fresh = build_projector(settings.projector, width, embedding.embedding_dim, geometry.side)
    joint = filled(fresh, projector, "projector", where, dtype)
    line = _newline(settings, embedding, newline, where, dtype)
    geometry = dataclasses.replace(geometry, reduced_side=reduced_side(settings.projector, geometry.side))
    if (folder / "generation_config.json").exists():
        with loading("generation settings of", where):
            language_model.generation_config = GenerationConfig.from_pretrained(str(folder))
    prepare_language_model(language_model, where)
    return cls(
        tower,
        joint,
        line,
        language_model,
        tokenizer=tokenizer,
        pixels=pixels,
        geometry=geometry,
        settings=settings,
    )


def _newline(
    settings: LlavaSettings,
    embedding: nn.Embedding,
    state: Mapping[str, Tensor],
    where: str,
    dtype: torch.dtype | None,
) -> Any:
    """The newline's row; fresh where a checkpoint that never used one holds none."""

    if state or settings.image_policy.newline:
        return filled(Newline(embedding.embedding_dim), state, "newline", where, dtype)
    return Newline(embedding.embedding_dim).to(embedding.weight.dtype)


def build(
    mapping: Any,
    config: PretrainedConfig,
    state: dict[str, Tensor],
    part: str,
    where: str,
    dtype: torch.dtype | None,
) -> Any:
    """A module of transformers with exactly these tensors in it."""
    if not state:
        raise CheckpointError(f"{where}: it holds no tensor of the {part}")
    try:
        kind = mapping[type(config)]
    except KeyError as error:
        raise CheckpointError(
            f"{where}: transformers has no {part} for a configuration of type {config.model_type}"
        ) from error
    kind = kind[0] if isinstance(kind, tuple) else kind
    with loading(part, where):
        module, info = kind.from_pretrained(
            None,
            config=config,
            state_dict=state,
            dtype=dtype or dtype_of(state),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    _check(
        part,
        where,
        sorted(info["missing_keys"]),
        sorted(info["unexpected_keys"]),
        sorted((name, tuple(found), tuple(expected)) for name, found, expected in info["mismatched_keys"]),
    )
    return module


def filled(
    module: nn.Module, state: Mapping[str, Tensor], part: str, where: str, dtype: torch.dtype | None
) -> Any:
    """A module of ours with exactly these tensors in it."""
    expected = module.state_dict()
    _check(
        part,
        where,
        sorted(set(expected) - set(state)),
        sorted(set(state) - set(expected)),
        [
            (key, tuple(state[key].shape), tuple(expected[key].shape))
            for key in sorted(set(expected) & set(state))
            if state[key].shape != expected[key].shape
        ],
    )
    module.to(dtype or dtype_of(state)).load_state_dict(state)
    return module


def _check(
    part: str,
    where: str,
    missing: list[str],
    unexpected: list[str],
    misshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]],
) -> None:
    """Raises CheckpointError unless a part's tensors are exactly those it needs."""
    if missing:
        raise CheckpointError(
            f"{where}: {len(missing)} tensors of the {part} are missing, the first is {missing[0]}; copy the "
            "checkpoint again"
        )
    if unexpected:
        raise CheckpointError(
            f"{where}: {len(unexpected)} tensors do not belong to the {part} that config.json describes, the first "
            f"is {unexpected[0]}"
        )
    if misshaped:
        name, found, expected = misshaped[0]
        raise CheckpointError(
            f"{where}: the tensor {name} of the {part} is of shape {found}, config.json asks for {expected}"
        )


def dtype_of(state: Mapping[str, Tensor]) -> torch.dtype:
    """The type of the first of these tensors that holds fractions; float32 when none does."""
    return next((t.dtype for t in state.values() if t.is_floating_point()), torch.float32)
