"""The small vision tower that stands in for CLIP: trained against the words of captions.

CLIP learns which caption belongs to which picture. In a few minutes of two cores that yields one vector a picture and
little about places, so this tower hears its words closer to where they hold: at every position a sigmoid loss
(SigLIP's, with words in the place of captions) says which words of the captions' phrases are true there. A phrase
holds at the position where the centre of its box lies. The result is an ordinary `CLIPVisionModel` folder, saved in
float16.

This room trains the tower alone. It knows nothing of language models or of LLaVA.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from llavakit.quickstart.scenes import (
    COLOURS,
    COLUMNS,
    NAMES,
    PICTURE_SIZE,
    ROWS,
    Scene,
    draw_scene_plan,
    paint,
)

# B pictures, P positions, K words, V width of the tower; N C H W pixels
PATCH = 16
SIDE = PICTURE_SIZE // PATCH
WORDS = (*NAMES, *COLOURS, "small", "large", *ROWS, *COLUMNS)
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor", "do_resize": True, "do_center_crop": True, "do_rescale": True,
    "do_normalize": True, "do_convert_rgb": True, "resample": 3, "rescale_factor": 1 / 255,
    "size": {"shortest_edge": PICTURE_SIZE}, "crop_size": {"height": PICTURE_SIZE, "width": PICTURE_SIZE},
    "image_mean": list(MEAN), "image_std": list(STD),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TowerTraining:
    steps: int = 5000
    pictures: int = 64
    width: int = 160
    layers: int = 5
    heads: int = 5
    muon: float = 0.02
    adam: float = 2e-3
    weight_decay: float = 0.02
    seed: int = 7


def tower_config(plan: TowerTraining) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=plan.width, intermediate_size=4 * plan.width, projection_dim=plan.width,
        num_hidden_layers=plan.layers, num_attention_heads=plan.heads, image_size=PICTURE_SIZE, patch_size=PATCH,
    )  # fmt: skip


def word_targets(scene: Scene) -> torch.Tensor:
    """Which words hold where: float (SIDE * SIDE, len(WORDS)), zeros except at the centre of every thing."""
    targets_PK = torch.zeros(SIDE * SIDE, len(WORDS))
    for thing in scene.things:
        x, y = thing.centre
        position = int(y // PATCH) * SIDE + int(x // PATCH)
        for word in (thing.name, thing.colour, thing.size, thing.row, thing.column):
            targets_PK[position, WORDS.index(word)] = 1
    return targets_PK


def batches(plan: TowerTraining) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless fresh pictures, normalised (B, 3, H, W), with their words (B, P, K)."""
    rng = random.Random(f"tower/{plan.seed}")
    while True:
        scenes = [draw_scene_plan(rng) for _ in range(plan.pictures)]
        yield pixels(scenes), torch.stack([word_targets(scene) for scene in scenes])


def pixels(scenes: Sequence[Scene]) -> torch.Tensor:
    """Pictures as the tower reads them: float (B, 3, H, W), normalised."""
    mean, std = (np.asarray(values, dtype=np.float32) * 255 for values in (MEAN, STD))
    painted = np.stack([(paint(scene) - mean) / std for scene in scenes]).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(painted))


def optimizers(
    module: nn.Module, *, muon: float, adam: float, weight_decay: float, hidden: Callable[[str], bool]
) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for embeddings, heads, norms and biases."""
    named = list(module.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and hidden(name)]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=muon, weight_decay=weight_decay, adjust_lr_fn="original"),
        torch.optim.AdamW(rest, lr=adam, weight_decay=0.0, betas=(0.9, 0.98), fused=True),
    ]


def rate(step: int, steps: int, level: float = 0.4) -> float:
    """Warm-up over 2 % of the steps, level up to a share of them, then down a line to zero: a factor in 0..1."""
    done = step / steps
    return min(1.0, done / 0.02, (1 - done) / (1 - level))


def train_tower(plan: TowerTraining, folder: Path, say: Callable[[str], None]) -> None:
    """Train on fresh scenes without any held-out pair and save the tower at `folder` with its image processor."""
    torch.manual_seed(plan.seed)
    tower = CLIPVisionModel(tower_config(plan))
    head = nn.Linear(plan.width, len(WORDS))
    nn.init.constant_(head.bias, -4.0)
    both = nn.ModuleDict({"tower": tower, "head": head})
    optims = optimizers(
        both, muon=plan.muon, adam=plan.adam, weight_decay=plan.weight_decay,
        hidden=lambda name: "layers" in name,
    )  # fmt: skip
    rates = [[group["lr"] for group in optim.param_groups] for optim in optims]
    started = time.monotonic()
    for step, (pixels_NCHW, targets_BPK) in enumerate(batches(plan)):
        if step == plan.steps:
            break
        for optim, base in zip(optims, rates, strict=True):
            for group, lr in zip(optim.param_groups, base, strict=True):
                group["lr"] = lr * rate(step, plan.steps)
        with torch.autocast("cpu", torch.bfloat16):
            states = tower(pixels_NCHW, output_hidden_states=True).hidden_states
            norm = post_norm(tower)
            # LLaVA reads the layer before the last, so that one is taught to speak in words as well.
            logits = [head(norm(states[layer])[:, 1:]).float() for layer in (-1, -2)]
        losses = [
            nn.functional.binary_cross_entropy_with_logits(said, targets_BPK, reduction="sum")
            for said in logits
        ]
        loss = torch.stack(losses).sum()
        (loss / (2 * plan.pictures)).backward()
        for optim in optims:
            optim.step()
            optim.zero_grad()
        if step % 100 == 0 or step == plan.steps - 1:
            found = [word_accuracy(said, targets_BPK) for said in logits]
            say(
                f"tower step {step} loss {loss.item() / (2 * plan.pictures):.3f} last {found[0]} before it {found[1]} "
                f"{time.monotonic() - started:.0f}s"
            )
            if step % 1000 == 0:
                tower.save_pretrained(folder)
    settle(tower, batches(plan))
    tower.half().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=1) + "\n", "utf-8")


@torch.no_grad()
def settle(tower: CLIPVisionModel, pictures: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Divide everything that is written into the residual stream by its spread at the layer that LLaVA reads.

    Every block reads the stream through a layer norm, which does not care about its scale, so the tower computes the
    same up to that scale; its features then come out of unit size, as a projector expects them.
    """
    pixels_NCHW, _ = next(pictures)
    spread = tower(pixels_NCHW, output_hidden_states=True).hidden_states[-2].std()
    for name, parameter in tower.named_parameters():
        if "pre_layrnorm" in name or "out_proj" in name or "fc2" in name:
            parameter.div_(spread)


def post_norm(tower: nn.Module) -> nn.Module:
    return next(module for name, module in tower.named_modules() if name.endswith("post_layernorm"))


def word_accuracy(logits_BPK: torch.Tensor, targets_BPK: torch.Tensor) -> str:
    """Of the things shown: the share named right, coloured right, and found at their place without false alarms."""
    there_BP = targets_BPK.sum(-1) > 0
    at_SK, truth_SK = logits_BPK[there_BP], targets_BPK[there_BP]
    names, colours = slice(0, len(NAMES)), slice(len(NAMES), len(NAMES) + len(COLOURS))
    named = (at_SK[:, names].argmax(-1) == truth_SK[:, names].argmax(-1)).float().mean()
    coloured = (at_SK[:, colours].argmax(-1) == truth_SK[:, colours].argmax(-1)).float().mean()
    seen_BP = logits_BPK[..., names].amax(-1) > 0
    exact = (seen_BP == there_BP).all(-1).float().mean()
    return f"name {named:.3f} colour {coloured:.3f} place {exact:.3f}"
