"""Opening saved folders: llavakit's own, and those in the layout of transformers that llavakit did not write.

Folders of the original LLaVA are handed to `opening_original`.

Knows modules and the checkpoint room. Knows nothing of training.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    LlavaConfig,
    LlavaNextConfig,
    PretrainedConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

from llavakit.checkpoints import hf, native, original_config
from llavakit.checkpoints.chat_template import original_chat_template
from llavakit.checkpoints.files import CheckpointError, read_json, read_tensors
from llavakit.conversation.templates import get_template
from llavakit.images.geometry import Grid, ImagePolicy
from llavakit.images.spec import PixelSpec
from llavakit.model.assembling import assemble, build
from llavakit.model.fused import FusedTowers
from llavakit.model.opening_original import load_original
from llavakit.model.saving import FORMAT
from llavakit.model.sources import checkpoint_folder, loading
from llavakit.model.towers import (
    check_feature_layers,
    pixel_spec,
    prefix_tokens,
    vision_part,
)

if TYPE_CHECKING:
    from llavakit.model.llava import Llava


def load(
    cls: type[Llava],
    folder: str | Path,
    dtype: torch.dtype | None,
    device: str | torch.device | None,
    *,
    base: str | None = None,
    vision_tower: str | None = None,
    template: str | None = None,
) -> Llava:
    """Opens a saved folder; see Llava.from_pretrained."""
    path = checkpoint_folder(str(folder))
    where = str(folder)
    config = read_json(path / "config.json")
    if original_config.announced(config):
        model = load_original(
            cls, path, where, config, base=base, vision_tower=vision_tower, template=template, dtype=dtype
        )
    else:
        for name, given in (("base", base), ("vision_tower", vision_tower)):
            if given is not None:
                raise CheckpointError(
                    f"{where}: {name} is {given}, but this folder holds every part; leave {name} out"
                )
        model = _load_whole(cls, path, where, config, dtype)
        if template is not None:
            model.settings = dataclasses.replace(model.settings, template=template)
    if template is not None:
        get_template(template, model.tokenizer)  # a wrong name is told now
    return model if device is None else model.to(device)


def _load_whole(
    cls: type[Llava], path: Path, where: str, config: dict[str, Any], dtype: torch.dtype | None
) -> Llava:
    """Opens a folder in llavakit's own layout or in one of those of transformers."""
    from llavakit.model.llava import LlavaSettings

    kind = config.get("model_type")
    if kind not in (*hf.MODEL_TYPES, native.MODEL_TYPE):
        known = f"{', '.join(hf.MODEL_TYPES)} or {native.MODEL_TYPE}"
        raise CheckpointError(
            f"{where}: a model of type {kind}, expected a LLaVA of type {known}; "
            "to build a LLaVA from parts, name them in a recipe"
        )
    mine = config.get("llavakit")
    vision_configs, text_config = part_configs(config, where)
    with loading("tokenizer of", where):
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
    tokenizer.chat_template = original_chat_template(tokenizer.chat_template)
    if mine is None:
        settings, pixels = _foreign(config, path, vision_configs[0], text_config, tokenizer)
        rows = None
    else:
        found = mine.get("format") if isinstance(mine, dict) else None
        if found != FORMAT:
            raise CheckpointError(
                f"{where}: the llavakit part of config.json is of format {found}, this version reads "
                f"{FORMAT}; delete the key `llavakit` to open the folder as one of stock transformers"
            )
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
    llm = build(
        MODEL_FOR_CAUSAL_LM_MAPPING, text_config, parts["language_model"], "language_model", where, dtype
    )
    return assemble(
        cls,
        tower,
        vision_configs,
        llm,
        projector=parts["projector"],
        newline=parts["newline"],
        settings=settings,
        pixels=pixels,
        tokenizer=tokenizer,
        folder=path,
        where=where,
        dtype=dtype,
    )


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
        return build(MODEL_MAPPING, vision_configs[0], state, "vision_tower", where, dtype)
    strange = [name for name in state if not name.startswith("towers.")]
    if strange:
        raise CheckpointError(f"{where}: unexpected tensor vision_tower.{strange[0]}")
    towers = []
    for number, vision_config in enumerate(vision_configs):
        start = f"towers.{number}."
        mine = {name.removeprefix(start): t for name, t in state.items() if name.startswith(start)}
        towers.append(build(MODEL_MAPPING, vision_config, mine, f"vision_tower {number}", where, dtype))
    specs = [_pixels(one) for one in config["vision_config"]["pixels"]]
    return FusedTowers(towers, specs)


def part_configs(config: dict[str, Any], where: str) -> tuple[list[PretrainedConfig], PretrainedConfig]:
    """The configurations of the tower (one, or several that are fused) and of the language model in a config.json."""
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
