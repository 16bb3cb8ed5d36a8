"""The files that stand beside the weights: tokenizer, image processor, processor and generation settings.

They are what lets stock transformers prepare a picture and a question for the weights as llavakit does. Both
`processor_config.json` and `preprocessor_config.json` are written, since not every reader knows the first.

Knows a tokenizer by its public methods, and dictionaries. Knows no weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from llavakit.checkpoints.files import write_json
from llavakit.checkpoints.hf import pinpoints
from llavakit.images.geometry import ImagePolicy
from llavakit.images.spec import PixelSpec

IMAGE_TOKEN = "<image>"
PAD_TOKEN = "<pad>"


def exported_tokenizer(tokenizer: Any) -> tuple[Any, int]:
    """A copy of the tokenizer that has `<image>` and a pad token, and the id of `<image>`.

    Batches are padded on the left, which generation needs. The tokenizer given is not changed.
    """
    exported = copy.deepcopy(tokenizer)
    exported.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    if exported.pad_token is None:
        exported.add_special_tokens({"pad_token": AddedToken(PAD_TOKEN, special=True, normalized=False)})
    exported.padding_side = "left"
    return exported, int(exported.convert_tokens_to_ids(IMAGE_TOKEN))


def image_processor_config(pixels: PixelSpec, policy: ImagePolicy) -> dict[str, Any]:
    """The configuration of the stock image processor that makes the same tiles as a policy does."""
    side = {"height": pixels.image_size, "width": pixels.image_size}
    config: dict[str, Any] = {
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": pixels.resample,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(pixels.mean),
        "image_std": list(pixels.std),
    }
    if policy.name == "anyres":
        return {
            "image_processor_type": "LlavaNextImageProcessor",
            "image_grid_pinpoints": pinpoints(policy, pixels.image_size),
            "do_pad": True,
            "size": {"shortest_edge": pixels.image_size},
            "do_center_crop": True,
            "crop_size": side,
        } | config
    if policy.name == "pad":
        edge = {"shortest_edge": pixels.image_size}
        return {
            "image_processor_type": "LlavaImageProcessor",
            "do_pad": True,
            "size": edge,
            "do_center_crop": True,
            "crop_size": side,
        } | config
    if pixels.crop:
        edge = {"shortest_edge": pixels.shortest_edge}
        crop = {"size": edge, "do_center_crop": True, "crop_size": side}
        return {"image_processor_type": "CLIPImageProcessor"} | crop | config
    return {"image_processor_type": "SiglipImageProcessor", "size": side} | config


def write_processor(
    folder: Path,
    image_processor: Mapping[str, Any],
    *,
    processor_class: str,
    patch_size: int,
    strategy: str,
    prefix_tokens: int,
) -> None:
    """Writes the processor of the layout of transformers, whose count of positions must agree with ours.

    strategy: `default` or `full`; the stock processor adds `prefix_tokens` to the patches and, under `default`,
    takes one away.
    """
    processor = {
        "processor_class": processor_class,
        "image_token": IMAGE_TOKEN,
        "patch_size": patch_size,
        "vision_feature_select_strategy": strategy,
        "num_additional_image_tokens": prefix_tokens,
        "image_processor": dict(image_processor),
    }
    write_json(folder / "processor_config.json", processor)
    write_image_processor(folder, image_processor, processor_class)


def write_image_processor(
    folder: Path, image_processor: Mapping[str, Any], processor_class: str = "LlavaProcessor"
) -> None:
    """Writes the image processor's own file."""
    write_json(
        folder / "preprocessor_config.json", dict(image_processor) | {"processor_class": processor_class}
    )


def write_tokenizer(folder: Path, tokenizer: Any, chat_template: str | None) -> None:
    """Writes the tokenizer's files, with `chat_template` as the folder's chat template when one is given."""
    tokenizer.save_pretrained(folder)
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")


def write_generation_config(folder: Path, tokenizer: Any, stop_ids: Iterable[int]) -> None:
    """Writes at which ids an answer ends, so that stock generation stops where llavakit does."""
    config = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": sorted(set(stop_ids)),
        "pad_token_id": tokenizer.pad_token_id,
    }
    write_json(
        folder / "generation_config.json",
        {key: value for key, value in config.items() if value not in (None, [])},
    )
