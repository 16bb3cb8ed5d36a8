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
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    LlavaConfig,
    LlavaNextConfig,
    PretrainedConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

from llavakit.checkpoints import hf, native
from llavakit.checkpoints.chat_template import original_chat_template
from llavakit.checkpoints.files import CheckpointError, read_json, read_tensors
from llavakit.images.geometry import Grid, ImagePolicy
from llavakit.images.spec import PixelSpec
from llavakit.model.fused import FusedTowers
from llavakit.model.language import prepare_language_model, token_embedding
from llavakit.model.projectors import build_projector, reduced_side
from llavakit.model.sources import loading
from llavakit.model.towers import (
    check_feature_layers,
    feature_width,
    pixel_spec,
    prefix_tokens,
    tower_geometry,
    vision_part,
)

if TYPE_CHECKING:
    from llavakit.model.llava import Llava


def load(
    cls: type[Llava], folder: str | Path, dtype: torch.dtype | None, device: str | torch.device | None
) -> Llava:
    """Opens a saved folder; see Llava.from_pretrained."""
    from llavakit.model.llava import LlavaSettings

    path = find_folder(str(folder))
    where = str(folder)
    config = read_json(path / "config.json")
    kind = config.get("model_type")
    if kind not in (*hf.MODEL_TYPES, native.MODEL_TYPE):
        known = f"{', '.join(hf.MODEL_TYPES)} or {native.MODEL_TYPE}"
        raise CheckpointError(
            f"{where}: a model of type {kind}, expected a LLaVA of type {known}; "
            "to build a LLaVA from parts, name them in a recipe"
        )
    mine = config.get("llavakit")
    vision_configs, text_config = _configs(config, where)
    with loading("tokenizer of", where):
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
    tokenizer.chat_template = original_chat_template(tokenizer.chat_template)
    if mine is None:
        settings, pixels = _foreign(config, path, vision_configs[0], text_config, tokenizer)
        rows = None
    else:
        try:
            names = [field.name for field in dataclasses.fields(LlavaSettings)]
            settings = _settings({name: mine[name] for name in names})
            pixels = _pixels(mine["pixels"])
            rows = int(mine["vocabulary"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{where}: the llavakit part of config.json is not complete ({error}); it was written by another "
                "version or edited"
            ) from error
    for vision_config in vision_configs:
        check_feature_layers(vision_config, settings.vision_feature_layer)
    tensors = read_tensors(path)
    if kind in hf.MODEL_TYPES:
        parts = hf.from_hub(tensors, projector=settings.projector, where=where)
    else:
        parts = native.from_native(tensors, where)
    if rows is not None and kind in hf.MODEL_TYPES:
        _drop_rows(parts["language_model"], rows, where)
        text_config.vocab_size = rows
    tower = _tower(config, vision_configs, parts["vision_tower"], where, dtype)
    llm = _build(
        MODEL_FOR_CAUSAL_LM_MAPPING, text_config, parts["language_model"], "language_model", where, dtype
    )
    geometry = tower_geometry(vision_configs[0], pixels, settings.vision_feature_select)
    width = sum(feature_width(one, settings.vision_feature_layer) for one in vision_configs)
    joint = build_projector(settings.projector, width, token_embedding(llm).embedding_dim, geometry.side)
    projector = _filled(joint, parts["projector"], "projector", where, dtype)
    newline = _newline(settings, token_embedding(llm), parts["newline"], where, dtype)
    geometry = dataclasses.replace(geometry, reduced_side=reduced_side(settings.projector, geometry.side))
    if (path / "generation_config.json").exists():
        with loading("generation settings of", where):
            llm.generation_config = GenerationConfig.from_pretrained(str(path))
    prepare_language_model(llm, where)
    model = cls(
        tower,
        projector,
        newline,
        llm,
        tokenizer=tokenizer,
        pixels=pixels,
        geometry=geometry,
        settings=settings,
    )
    return model if device is None else model.to(device)


def _settings(saved: dict[str, Any]) -> Any:
    """LlavaSettings as they were saved."""
    from llavakit.model.llava import LlavaSettings

    policy = dict(saved["image_policy"])
    policy["grids"] = tuple(Grid(*grid) for grid in policy["grids"])
    layers = saved["vision_feature_layer"]
    return LlavaSettings(
        **saved
        | {
            "image_policy": ImagePolicy(**policy),
            "vision_feature_layer": layers if isinstance(layers, int) else tuple(layers),
        }
    )


def _pixels(saved: dict[str, Any]) -> PixelSpec:
    return PixelSpec(**saved | {key: tuple(saved[key]) for key in ("mean", "std")})


def _tower(
    config: dict[str, Any],
    vision_configs: list[PretrainedConfig],
    state: dict[str, Tensor],
    where: str,
    dtype: torch.dtype | None,
) -> Any:
    """The vision tower, or the several towers, with exactly these tensors."""
    if config["vision_config"].get("model_type") != native.FUSED:
        return _build(MODEL_MAPPING, vision_configs[0], state, "vision_tower", where, dtype)
    strange = [name for name in state if not name.startswith("towers.")]
    if strange:
        raise CheckpointError(f"{where}: unexpected tensor vision_tower.{strange[0]}")
    towers = []
    for number, vision_config in enumerate(vision_configs):
        start = f"towers.{number}."
        mine = {name.removeprefix(start): t for name, t in state.items() if name.startswith(start)}
        towers.append(_build(MODEL_MAPPING, vision_config, mine, f"vision_tower {number}", where, dtype))
    specs = [_pixels(one) for one in config["vision_config"]["pixels"]]
    return FusedTowers(towers, specs)


def _newline(
    settings: Any,
    embedding: nn.Embedding,
    state: dict[str, Tensor],
    where: str,
    dtype: torch.dtype | None,
) -> Any:
    """The newline's row; fresh where a checkpoint that never used one holds none."""
    from llavakit.model.llava import Newline

    if state or settings.image_policy.newline:
        return _filled(Newline(embedding.embedding_dim), state, "newline", where, dtype)
    return Newline(embedding.embedding_dim).to(embedding.weight.dtype)


def find_folder(name: str) -> Path:
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


def _configs(config: dict[str, Any], where: str) -> tuple[list[PretrainedConfig], PretrainedConfig]:
    """The configurations of the tower (one, or several that are fused) and of the language model."""
    with loading("config.json of", where):
        if config["model_type"] in hf.MODEL_TYPES:
            kind = LlavaConfig if config["model_type"] == hf.MODEL_TYPE else LlavaNextConfig
            whole: Any = kind.from_dict(config)
            if whole.tie_word_embeddings:
                whole.text_config.tie_word_embeddings = True
            return [vision_part(whole.vision_config)], whole.text_config
        vision = config["vision_config"]
        several = vision["towers"] if vision["model_type"] == native.FUSED else [vision]
        text = AutoConfig.for_model(**config["text_config"])
        return [vision_part(AutoConfig.for_model(**one)) for one in several], text


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
    layers = config.get("vision_feature_layer", -2)
    strategy = config.get("vision_feature_select_strategy", "default")
    prefix = prefix_tokens(vision_config)
    if strategy == "default" and prefix != 1:
        raise CheckpointError(f"{where}: it drops one token before the patches, but its tower has {prefix}")
    processor: dict[str, Any] | None = None
    if (path / "preprocessor_config.json").exists():
        processor = read_json(path / "preprocessor_config.json")
    elif (path / "processor_config.json").exists():
        processor = read_json(path / "processor_config.json").get("image_processor")
    pixels = pixel_spec(processor, vision_config)
    if config["model_type"] == hf.NEXT_MODEL_TYPE:
        grids = hf.grids_of(config, pixels.image_size, where)
        policy = ImagePolicy("anyres", grids, several="anyres")  # transformers cuts every picture into tiles
    else:
        policy = ImagePolicy("pad" if (processor or {}).get("do_pad") else "square")
    # LLaVA v1.5 is the one checkpoint family that was published without saying how it talks.
    own = text_config.model_type != "llama" and getattr(tokenizer, "chat_template", None) is not None
    settings = LlavaSettings(
        projector=hf.projector_of(config, where),
        vision_feature_layer=layers if isinstance(layers, int) else tuple(layers),
        vision_feature_select="cls_patch" if strategy == "full" and prefix else "patch",
        image_policy=policy,
        template="tokenizer" if own else "vicuna_v1",
    )
    return settings, pixels


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


def _filled(
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
    module.to(dtype or _dtype_of(state)).load_state_dict(state)
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


def _dtype_of(state: Mapping[str, Tensor]) -> torch.dtype:
    return next((t.dtype for t in state.values() if t.is_floating_point()), torch.float32)
