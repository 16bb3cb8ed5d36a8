"""Whether what was written computes the same: logits of two models, at every position of the same prompts.

The prompts are a question about a picture, for pictures of several shapes, and a question without one. Each model makes
its prompt with its own tokenizer, template, image policy and pixels; prompts that differ count as an infinite
difference. All is computed in float32, so that what is told is the weights' and not the rounding's.

Knows models and folders. Does not print.

Shapes: T positions, K vocabulary, N tiles, C H W pixels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText

from llavakit.checkpoints.files import CheckpointError
from llavakit.conversation.record import Conversation, Part, Picture, Text, Turn
from llavakit.conversation.templates import get_template
from llavakit.conversation.tokenize import Encoded, encode
from llavakit.images.pixels import to_tiles
from llavakit.model.llava import Llava
from llavakit.model.packed import IMAGE_TOKEN_ID, Tiled, pack_conversations
from llavakit.model.sources import loading

# Width and height of the pictures, in tiles.
SHAPES = ((1.0, 1.0), (2.0, 1.0), (0.4, 0.7), (1.3, 3.1), (2.3, 1.7))
_QUESTION = "What is shown here?"

Size = tuple[int, int]


@dataclass(frozen=True)
class Comparison:
    """other: what a model was compared with. difference: the largest between two logits. prompts: of how many prompts.
    worst: of which of them."""

    other: str
    difference: float
    prompts: int
    worst: str


def compare_reopened(model: Llava, folder: Path, vision_tower: str | None = None) -> Comparison:
    """Compares a model, which is brought to float32, with what `folder` holds, as llavakit opens it.

    vision_tower: as Llava.from_pretrained takes it. Raises LlavakitError when the folder cannot be opened.
    """
    model.to(torch.float32)
    other = Llava.from_pretrained(folder, torch.float32, model.device, vision_tower=vision_tower)

    def theirs_TK(prompt: Encoded, tiled: list[Tiled], size: Size | None) -> Tensor | None:
        again, shown = _asked(other, size)
        return _logits(other, again, shown) if again.ids == prompt.ids else None

    return _compare(model, theirs_TK, "reopened by llavakit")


def compare_stock(model: Llava, folder: Path) -> Comparison:
    """Compares a model, which is brought to float32, with what `folder` holds, as stock transformers opens it.

    The tiles are llavakit's, for what the stock image processor makes depends on what else is installed. Raises
    CheckpointError when transformers does not find every weight.
    """
    model.to(torch.float32)
    opened: Any = AutoModelForImageTextToText
    with loading("checkpoint", str(folder)):
        other, info = opened.from_pretrained(
            str(folder), dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    odd = sorted({*info["missing_keys"], *info["unexpected_keys"]})
    if odd:
        raise CheckpointError(
            f"{folder}: stock transformers misses {len(odd)} weights, the first is {odd[0]}"
        )
    other = other.eval().to(model.device)
    tiling = model.settings.image_policy.tiling(1)

    @torch.no_grad()
    def theirs_TK(prompt: Encoded, tiled: list[Tiled], size: Size | None) -> Tensor | None:
        ids = torch.tensor([prompt.ids], device=model.device)
        ids = ids.masked_fill(ids == IMAGE_TOKEN_ID, other.config.image_token_id)
        shown: dict[str, Any] = {}
        if size is not None:
            tiles_NCHW = tiled[0].tiles_NCHW.to(model.device)
            shown["pixel_values"] = tiles_NCHW[None] if tiling else tiles_NCHW
            if tiling:
                shown["image_sizes"] = torch.tensor([size[::-1]])
        return other(input_ids=ids, **shown).logits[0]

    return _compare(model, theirs_TK, f"stock {type(other).__name__}")


def _compare(
    model: Llava, theirs_TK: Callable[[Encoded, list[Tiled], Size | None], Tensor | None], other: str
) -> Comparison:
    found = []
    for size in _sizes(model):
        prompt, tiled = _asked(model, size)
        mine, theirs = _logits(model, prompt, tiled), theirs_TK(prompt, tiled, size)
        name = "text alone" if size is None else "a picture of {}x{}".format(*size)
        same = theirs is not None and theirs.shape[0] == mine.shape[0] and theirs.shape[1] >= mine.shape[1]
        # the layouts of transformers have rows for <image> and a pad token behind the model's own
        gap = (
            float((mine - theirs[:, : mine.shape[1]]).abs().max())
            if same and theirs is not None
            else math.inf
        )
        found.append((math.inf if math.isnan(gap) else gap, name))
    difference, worst = max(found, key=lambda one: one[0])
    return Comparison(other, difference, len(found), worst)


def _sizes(model: Llava) -> Iterator[Size | None]:
    yield None
    for wide, high in SHAPES:
        side = model.geometry.image_size
        yield max(1, round(wide * side)), max(1, round(high * side))


def _asked(model: Llava, size: Size | None) -> tuple[Encoded, list[Tiled]]:
    """A question of this model's about a picture of this size, and the picture's tiles."""
    pictures = [] if size is None else [_noise(*size)]
    shown: list[Part] = [Picture(number) for number in range(len(pictures))]
    parts = (*shown, Text("\n" * len(pictures) + _QUESTION))
    names = tuple("picture" for _ in pictures)
    conversation = Conversation("parity", "parity", names, (Turn("user", parts),), {})
    # `plain` writes no question
    name = model.settings.template if model.settings.template != "plain" else "vicuna_v1"
    shapes = [model.image_layout(*picture.size) for picture in pictures]
    prompt = encode(
        conversation,
        get_template(name, model.tokenizer),
        model.tokenizer,
        [shape.tokens for shape in shapes],
        prompt=True,
    )
    tiles = [to_tiles(picture, model.settings.image_policy, model.pixels) for picture in pictures]
    return prompt, [Tiled(*both) for both in zip(tiles, shapes, strict=True)]


def _noise(width: int, height: int) -> Image.Image:
    generator = torch.Generator().manual_seed(width * 10007 + height)
    pixels = torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


@torch.no_grad()
def _logits(model: Llava, prompt: Encoded, tiled: list[Tiled]) -> Tensor:
    supervised = dataclasses.replace(prompt, labels=[-100] * len(prompt.ids))
    return model.logits(pack_conversations([supervised], tiled, ["parity"]))
