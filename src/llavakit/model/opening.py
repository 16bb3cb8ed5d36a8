"""Opening saved folders: llavakit's own, and those in the layout of transformers that llavakit did not write.

Every tensor that the configuration asks for must be there in its shape, and no other; what is wrong is told in one
sentence that names it.

Knows modules and the checkpoint room. Knows nothing of training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, LlavaConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

from llavakit.checkpoints import hf, native
from llavakit.checkpoints.chat_template import original_chat_template
from llavakit.checkpoints.files import CheckpointError, read_json, read_tensors
from llavakit.images.spec import PixelSpec
from llavakit.model.language import prepare_language_model, token_embedding
from llavakit.model.projectors import build_projector
from llavakit.model.sources import loading
from llavakit.model.towers import check_feature_layer, pixel_spec, prefix_tokens, tower_geometry, vision_part

if TYPE_CHECKING:
    from llavakit.model.llava import Llava


def load(
    cls: type[Llava], folder: str | Path, dtype: torch.dtype | None, device: str | torch.device | None
) -> Llava:
    """Opens a saved folder; see Llava.from_pretrained."""
    from llavakit.model.llava import LlavaSettings

    path = _found(str(folder))
    where = str(folder)
    config = read_json(path / "config.json")
    kind = config.get("model_type")
    if kind not in (hf.MODEL_TYPE, native.MODEL_TYPE):
        raise CheckpointError(
            f"{where}: a model of type {kind}, expected a LLaVA of type {hf.MODEL_TYPE} or {native.MODEL_TYPE}; "
            "to build a LLaVA from parts, name them in a recipe"
        )
    mine = config.get("llavakit")
    vision_config, text_config = _configs(config, where)
    with loading("tokenizer of", where):
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
    tokenizer.chat_template = original_chat_template(tokenizer.chat_template)
    if mine is None:
        settings, pixels = _foreign(config, path, vision_config, text_config, tokenizer)
        rows = None
    else:
        try:
            names = [field.name for field in dataclasses.fields(LlavaSettings)]
            settings = LlavaSettings(**{name: mine[name] for name in names})
            pixels = PixelSpec(
                **mine["pixels"] | {key: tuple(mine["pixels"][key]) for key in ("mean", "std")}
            )
            rows = int(mine["vocabulary"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{where}: the llavakit part of config.json is not complete ({error}); it was written by another "
                "version or edited"
            ) from error
    check_feature_layer(vision_config, settings.vision_feature_layer)
    tensors = read_tensors(path)
    if kind == hf.MODEL_TYPE:
        parts = hf.from_hub(tensors, projector=settings.projector, where=where)
    else:
        parts = native.from_native(tensors, where)
    if rows is not None and kind == hf.MODEL_TYPE:
        _drop_rows(parts["language_model"], rows, where)
        text_config.vocab_size = rows
    tower = _build(MODEL_MAPPING, vision_config, parts["vision_tower"], "vision_tower", where, dtype)
    llm = _build(
        MODEL_FOR_CAUSAL_LM_MAPPING, text_config, parts["language_model"], "language_model", where, dtype
    )
    projector = _projector(settings.projector, vision_config, llm, parts["projector"], where, dtype)
    if (path / "generation_config.json").exists():
        with loading("generation settings of", where):
            llm.generation_config = GenerationConfig.from_pretrained(str(path))
    prepare_language_model(llm, where)
    geometry = tower_geometry(vision_config, pixels, settings.vision_feature_select)
    model = cls(
        tower, projector, llm, tokenizer=tokenizer, pixels=pixels, geometry=geometry, settings=settings
    )
    return model if device is None else model.to(device)


def _found(name: str) -> Path:
    """The folder called `name`, or the local copy of the hub checkpoint of that name."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{name}: this is a file, expected a checkpoint folder")
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise CheckpointError(f"{name}: no such checkpoint folder")
    from huggingface_hub import snapshot_download

    with loading("checkpoint", name):
        patterns = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]
        return Path(snapshot_download(name, allow_patterns=patterns))


def _configs(config: dict[str, Any], where: str) -> tuple[PretrainedConfig, PretrainedConfig]:
    """The configurations of the tower and of the language model."""
    with loading("config.json of", where):
        if config["model_type"] == hf.MODEL_TYPE:
            whole: Any = LlavaConfig.from_dict(config)
            vision, text = whole.vision_config, whole.text_config
            if whole.tie_word_embeddings:
                text.tie_word_embeddings = True
        else:
            vision, text = (AutoConfig.for_model(**config[key]) for key in ("vision_config", "text_config"))
    return vision_part(vision), text


def _foreign(
    config: dict[str, Any],
    path: Path,
    vision_config: PretrainedConfig,
    text_config: PretrainedConfig,
    tokenizer: Any,
) -> tuple[Any, PixelSpec]:
    """Settings and pixels of a LLaVA folder that llavakit did not write, from what its files say."""
    from llavakit.model.llava import LlavaSettings

    where = str(path)
    layer = config.get("vision_feature_layer", -2)
    if not isinstance(layer, int):
        raise CheckpointError(f"{where}: it reads the tower's layers {layer}, expected one layer")
    strategy = config.get("vision_feature_select_strategy", "default")
    prefix = prefix_tokens(vision_config)
    if strategy == "default" and prefix != 1:
        raise CheckpointError(f"{where}: it drops one token before the patches, but its tower has {prefix}")
    processor: dict[str, Any] | None = None
    if (path / "preprocessor_config.json").exists():
        processor = read_json(path / "preprocessor_config.json")
    elif (path / "processor_config.json").exists():
        processor = read_json(path / "processor_config.json").get("image_processor")
    # LLaVA v1.5 is the one checkpoint family that was published without saying how it talks.
    own = text_config.model_type != "llama" and getattr(tokenizer, "chat_template", None) is not None
    settings = LlavaSettings(
        projector=hf.projector_of(config, where),
        vision_feature_layer=layer,
        vision_feature_select="cls_patch" if strategy == "full" and prefix else "patch",
        image_policy="pad" if (processor or {}).get("do_pad") else "square",
        template="tokenizer" if own else "vicuna_v1",
    )
    return settings, pixel_spec(processor, vision_config)


def _drop_rows(language_model: dict[str, Tensor], rows: int, where: str) -> None:
    for name in hf.VOCABULARY_TENSORS:
        tensor = language_model.get(name)
        if tensor is None:
            continue
        if len(tensor) < rows:
            raise CheckpointError(f"{where}: {name} has {len(tensor)} rows, config.json announces {rows}")
        language_model[name] = tensor[:rows]


def _build(
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
            dtype=dtype or _dtype_of(state),
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


def _projector(
    name: str,
    vision_config: PretrainedConfig,
    llm: Any,
    state: Mapping[str, Tensor],
    where: str,
    dtype: torch.dtype | None,
) -> nn.Module:
    projector = build_projector(name, vision_config.hidden_size, token_embedding(llm).embedding_dim)
    expected = projector.state_dict()
    _check(
        "projector",
        where,
        sorted(set(expected) - set(state)),
        sorted(set(state) - set(expected)),
        [
            (key, tuple(state[key].shape), tuple(expected[key].shape))
            for key in sorted(set(expected) & set(state))
            if state[key].shape != expected[key].shape
        ],
    )
    projector.to(dtype or _dtype_of(state)).load_state_dict(state)
    return projector


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


def _dtype_of(state: Mapping[str, Tensor]) -> torch.dtype:
    return next((t.dtype for t in state.values() if t.is_floating_point()), torch.float32)
