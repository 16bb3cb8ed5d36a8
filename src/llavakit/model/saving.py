"""Saving a Llava as a folder, and opening such folders again.

A model that stock transformers can express is saved in its layout (`checkpoints.hf`), any other in llavakit's own
(`checkpoints.native`); both are opened, and so is a LLaVA folder in the layout of transformers that llavakit did not
write. What the saved file needs beyond the model, rows for `<image>` and a pad token, is added to the file alone and
taken away on opening.

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

from llavakit.checkpoints import companions, hf, native
from llavakit.checkpoints.chat_template import chat_template, original_chat_template
from llavakit.checkpoints.files import (
    CheckpointError,
    atomic_folder,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from llavakit.conversation.templates import get_template
from llavakit.images.spec import PixelSpec
from llavakit.model.language import head_is_plain, prepare_language_model, token_embedding
from llavakit.model.projectors import build_projector
from llavakit.model.sources import loading
from llavakit.model.stops import stop_ids
from llavakit.model.towers import check_feature_layer, pixel_spec, prefix_tokens, tower_geometry, vision_part

if TYPE_CHECKING:
    from llavakit.model.llava import Llava

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_FORMAT = 1


def save(model: Llava, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Writes the model as a folder, whole or not at all. dtype: of the saved weights; as they are when None."""
    parts = {name: _state(part, dtype) for name, part in model.parts().items()}
    llm = model.language_model
    tied = _is_tied(llm)
    if tied:
        parts["language_model"].pop(_head_name(llm))
    tower_config = _plain(model.vision_tower.config)
    text_config = _plain(llm.config)
    prefix = prefix_tokens(model.vision_tower.config)
    reason = hf.why_not_expressible(
        projector=model.settings.projector,
        select=model.settings.vision_feature_select,
        prefix_tokens=prefix,
        plain_head=head_is_plain(llm) and _EMBEDDING in parts["language_model"],
        language_names=list(parts["language_model"]),
    )
    saved_dtype = str(next(iter(parts["language_model"].values())).dtype).removeprefix("torch.")
    settings = _settings(model)
    processor = companions.image_processor_config(model.pixels, model.settings.image_policy)
    with atomic_folder(folder) as temporary:
        if reason is None:
            tokenizer, image_token = companions.exported_tokenizer(model.tokenizer)
            rows = max(model.vocabulary, len(tokenizer))
            _add_rows(parts["language_model"], rows)
            text_config["vocab_size"] = rows
            strategy = hf.select_strategy(model.settings.vision_feature_select, prefix)
            config = hf.hf_config(
                vision_config=tower_config,
                text_config=text_config,
                projector=model.settings.projector,
                feature_layer=model.settings.vision_feature_layer,
                strategy=strategy,
                image_token=image_token,
                image_length=model.geometry.tokens,
                tied=tied,
                dtype=saved_dtype,
                settings=settings,
            )
            tensors = hf.to_hub(
                parts, tower_type=tower_config["model_type"], projector=model.settings.projector
            )
            companions.write_processor(
                temporary,
                processor,
                patch_size=model.geometry.patch_size,
                strategy=strategy,
                prefix_tokens=prefix,
            )
            companions.write_tokenizer(temporary, tokenizer, _chat_template(model))
        else:
            config = native.native_config(
                vision_config=tower_config,
                text_config=text_config,
                dtype=saved_dtype,
                settings=settings,
                reason=reason,
            )
            tensors = native.to_native(parts)
            tokenizer = model.tokenizer
            companions.write_image_processor(temporary, processor)
            companions.write_tokenizer(temporary, tokenizer, None)
        companions.write_generation_config(temporary, tokenizer, stop_ids(model))
        write_tensors(temporary, tensors)
        write_json(temporary / "config.json", config)


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


def _settings(model: Llava) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        **dataclasses.asdict(model.settings),
        "pixels": dataclasses.asdict(model.pixels),
        "vocabulary": model.vocabulary,
    }


def _state(part: nn.Module, dtype: torch.dtype | None) -> dict[str, Tensor]:
    state = {name: tensor.detach().cpu() for name, tensor in part.state_dict().items()}
    if dtype is None:
        return state
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()
    }


def _plain(config: PretrainedConfig) -> dict[str, Any]:
    """A part's configuration as a dictionary, without what only says where it came from."""
    unwanted = ("_name_or_path", "transformers_version", "architectures", "auto_map", "quantization_config")
    return {key: value for key, value in config.to_dict().items() if key not in unwanted}


def _is_tied(llm: Any) -> bool:
    return llm.get_output_embeddings().weight is llm.get_input_embeddings().weight


def _head_name(llm: Any) -> str:
    head = llm.get_output_embeddings()
    return next(f"{name}.weight" for name, module in llm.named_modules() if module is head)


def _add_rows(language_model: dict[str, Tensor], rows: int) -> None:
    """Extends embedding and head to `rows` by their mean row, which no greedy answer would choose."""
    for name in (_EMBEDDING, _HEAD):
        tensor = language_model.get(name)
        if tensor is not None and len(tensor) < rows:
            mean = tensor.float().mean(dim=0, keepdim=True).to(tensor.dtype)
            language_model[name] = torch.cat([tensor, mean.expand(rows - len(tensor), -1)])


def _drop_rows(language_model: dict[str, Tensor], rows: int, where: str) -> None:
    for name in (_EMBEDDING, _HEAD):
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


def _chat_template(model: Llava) -> str | None:
    return chat_template(get_template(model.settings.template, model.tokenizer), model.tokenizer)
