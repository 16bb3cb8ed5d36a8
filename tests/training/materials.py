"""What the training tests train: a tower and a language model of a few thousand numbers, and a few coloured squares."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from llavakit.recipe import Recipe

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220), "yellow": (230, 220, 40)}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte: no training, nothing unknown."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1, **{letter: number + 2 for number, letter in enumerate(letters)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def make_parts(root: Path, dropout: float = 0.0) -> dict[str, str]:
    """Folders of a CLIP tower (16 pixels, 4 patches) and a Llama (tied embeddings), both random."""
    torch.manual_seed(7)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    tokenizer = byte_tokenizer()
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        attention_dropout=dropout,
        bos_token_id=0,
        eos_token_id=1,
    )
    CLIPVisionModel(vision).save_pretrained(root / "tower")
    LlamaForCausalLM(text).save_pretrained(root / "lm")
    tokenizer.save_pretrained(root / "lm")
    return {"vision_tower": str(root / "tower"), "language_model": str(root / "lm")}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A LLaVA JSON file."""
    path.write_text(json.dumps(rows))
    return path


def row(number: int, image: str | None, question: str, answer: str) -> dict[str, Any]:
    """One exchange about at most one picture."""
    asked = question if image is None else f"<image>\n{question}"
    said = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
    return {"id": f"s{number}", "conversations": said} | ({} if image is None else {"image": image})


def make_data(root: Path, count: int = 40, seed: int = 0) -> Path:
    """Questions about the colour of squares; every fifth is text only."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        name = draw.choice(list(COLOURS))
        if number % 5 == 4:
            rows.append(row(number, None, f"Say {name} {number} times", f"{name} " * draw.randint(1, 6)))
            continue
        picture = f"{seed}-{number}.png"
        Image.new("RGB", (draw.randint(10, 40), draw.randint(10, 40)), COLOURS[name]).save(root / picture)
        rows.append(
            row(number, picture, "What colour is it?", f"It is {name}." + " Yes." * draw.randint(0, 4))
        )
    return write_rows(root / f"data-{seed}.json", rows)


def make_recipe(parts: dict[str, str], data: Path, **changes: Any) -> Recipe:
    """Two stages, projector then projector and language model. `changes` go into every stage, or (`workers`, `seed`,
    `precision`) where they belong."""
    top = {key: changes.pop(key) for key in ("workers", "seed") if key in changes}
    precision = changes.pop("precision", "float32")
    common = {
        "data": [{"path": str(data)}],
        "template": "mistral",
        "batch": {"tokens": 400, "pack": 200},
        "max_length": 200,
        **changes,
    }
    return Recipe.model_validate(
        {
            "name": "tiny",
            "tensorboard": False,
            "model": {**parts, "precision": precision},
            "stages": [
                {**common, "name": "align", "learning_rate": {"projector": 1e-2}},
                {
                    **common,
                    "name": "tune",
                    "template": "vicuna_v1",
                    "max_length": 400,
                    "batch": {"tokens": 1600, "pack": 800},
                    "picture_order": "random",
                    "learning_rate": {"projector": 1e-2, "language_model": 1e-2},
                    **{
                        key: value
                        for key, value in changes.items()
                        if key in ("batch", "template", "max_length")
                    },
                },
            ],
            **top,
        }
    )
