"""Saving a Llava as a folder.

A model that stock transformers can express is saved in one of its layouts (`checkpoints.hf`), any other in llavakit's
own (`checkpoints.native`). What the saved file needs beyond the model, rows for `<image>` and a pad token, is added to
the file alone; `opening` takes it away again.

Knows modules and the checkpoint room. Knows nothing of training.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from llavakit.checkpoints import companions, hf, native
from llavakit.checkpoints.chat_template import chat_template
from llavakit.checkpoints.files import atomic_folder, write_json, write_tensors
from llavakit.conversation.templates import get_template
from llavakit.errors import LlavakitError
from llavakit.model.adapters import has_adapters
from llavakit.model.fused import FusedTowers
from llavakit.model.language import head_is_plain
from llavakit.model.quantized import is_quantized
from llavakit.model.stops import stop_ids
from llavakit.model.towers import prefix_tokens

if TYPE_CHECKING:
    from llavakit.model.llava import Llava

FORMAT = 2  # of what stands under the key `llavakit` of config.json


def save(model: Llava, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Writes the model as a folder, whole or not at all. dtype: of the saved weights; as they are when None.

    Raises LlavakitError for a model with int8 weights, and for one with adapters that are not merged.
    """
    if is_quantized(model.language_model):
        raise LlavakitError(
            f"{folder}: a language model with int8 weights is not saved, because what was rounded is lost; save the "
            "model before it is quantized"
        )
    if has_adapters(model):
        raise LlavakitError(
            f"{folder}: the model holds adapters that are not merged; call merge_adapter first"
        )
    reason = why_not_stock(model)
    parts = part_states(model, dtype)
    llm = model.language_model
    tower, policy = model.vision_tower, model.settings.image_policy
    tower_config = fused_config(tower) if isinstance(tower, FusedTowers) else plain_config(tower.config)
    text_config = plain_config(llm.config)
    prefix = _prefix(model)
    saved_dtype = str(next(iter(parts["language_model"].values())).dtype).removeprefix("torch.")
    settings = _settings(model)
    processor = companions.image_processor_config(model.pixels, policy)
    with atomic_folder(folder) as temporary:
        if reason is None and prefix is not None:
            tokenizer, image_token = companions.exported_tokenizer(model.tokenizer)
            rows = max(model.vocabulary, len(tokenizer))
            _add_rows(parts["language_model"], rows)
            text_config["vocab_size"] = rows
            strategy = hf.select_strategy(model.settings.vision_feature_select, prefix)
            config = hf.hf_config(
                vision_config=tower_config,
                text_config=text_config,
                projector=model.settings.projector,
                feature_layer=_plain_layers(model.settings.vision_feature_layer),
                policy=policy,
                image_size=model.geometry.image_size,
                strategy=strategy,
                image_token=image_token,
                image_length=model.geometry.tokens,
                tied=_is_tied(llm),
                dtype=saved_dtype,
                settings=settings,
            )
            tensors = hf.to_hub(
                parts,
                tower_type=tower_config["model_type"],
                projector=model.settings.projector,
                newline=policy.newline,
            )
            companions.write_processor(
                temporary,
                processor,
                processor_class="LlavaNextProcessor" if policy.name == "anyres" else "LlavaProcessor",
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
                reason=str(reason),
            )
            tensors = native.to_native(parts)
            tokenizer = model.tokenizer
            companions.write_image_processor(temporary, processor)
            companions.write_tokenizer(temporary, tokenizer, None)
        companions.write_generation_config(temporary, tokenizer, stop_ids(model))
        write_tensors(temporary, tensors)
        write_json(temporary / "config.json", config)


def why_not_stock(model: Llava) -> str | None:
    """Says why the model cannot be saved in a layout of stock transformers; None when it can."""
    llm = model.language_model
    tied_head = _head_name(llm) if _is_tied(llm) else None
    names = [name for name in llm.state_dict() if name != tied_head]
    return hf.why_not_expressible(
        projector=model.settings.projector,
        select=model.settings.vision_feature_select,
        policy=model.settings.image_policy,
        prefix_tokens=_prefix(model),
        plain_head=head_is_plain(llm) and hf.EMBEDDING in names,
        language_names=names,
    )


def _prefix(model: Llava) -> int | None:
    """Rows before the patches in the tower; None where there are several towers."""
    tower = model.vision_tower
    return None if isinstance(tower, FusedTowers) else prefix_tokens(tower.config)


def part_states(model: Llava, dtype: torch.dtype | None) -> hf.Parts:
    """The tensors of every part under its module's names, without a head that is tied. dtype: as they are when None."""
    parts = {name: _state(part, dtype) for name, part in model.parts().items()}
    if _is_tied(model.language_model):
        parts["language_model"].pop(_head_name(model.language_model))
    return parts


def _settings(model: Llava) -> dict[str, Any]:
    return {
        "format": FORMAT,
        **dataclasses.asdict(model.settings),
        "pixels": dataclasses.asdict(model.pixels),
        "vocabulary": model.vocabulary,
    }


def _plain_layers(layers: int | tuple[int, ...]) -> int | list[int]:
    return layers if isinstance(layers, int) else list(layers)


def fused_config(tower: FusedTowers) -> dict[str, Any]:
    """The configurations and pixels of several towers, under a model type of llavakit's own."""
    return {
        "model_type": native.FUSED,
        "towers": [plain_config(one.config) for one in tower.each],
        "pixels": [dataclasses.asdict(spec) for spec in tower.specs],
    }


def _state(part: nn.Module, dtype: torch.dtype | None) -> dict[str, Tensor]:
    state = {name: tensor.detach().cpu() for name, tensor in part.state_dict().items()}
    if dtype is None:
        return state
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()
    }


def plain_config(config: PretrainedConfig) -> dict[str, Any]:
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
    for name in hf.VOCABULARY_TENSORS:
        tensor = language_model.get(name)
        if tensor is not None and len(tensor) < rows:
            mean = tensor.float().mean(dim=0, keepdim=True).to(tensor.dtype)
            language_model[name] = torch.cat([tensor, mean.expand(rows - len(tensor), -1)])


def _chat_template(model: Llava) -> str | None:
    return chat_template(get_template(model.settings.template, model.tokenizer), model.tokenizer)
