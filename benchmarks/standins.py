"""What the shipped stand-ins can do by themselves, before LLaVA begins.

    python benchmarks/standins.py

Prints how well a linear reading of the tower's features finds the words of every thing, and how often the language
model answers exactly about scenes described as maps of words. Half of these scenes hold a pair of object and colour
that was held out of all training. A minute or two on one core.
"""

from __future__ import annotations

import random

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPVisionModel

from llavakit.quickstart import dialogues
from llavakit.quickstart import pretrain_language_model as language
from llavakit.quickstart import pretrain_tower as tower
from llavakit.quickstart.questions import CONVERSATION, detail
from llavakit.quickstart.scenes import Scene, draw_scene_plan, scenes
from llavakit.recipe import resolve_source

WEIGHTS = "package:llavakit/quickstart/weights"
SCENES = 300


def read_tower() -> str:
    """A linear layer on the features of 1,200 scenes, examined on scenes with a held-out pair."""
    model = CLIPVisionModel.from_pretrained(
        resolve_source(f"{WEIGHTS}/vision_tower"), dtype=torch.float32
    ).eval()

    def features(drawn: list[Scene]) -> torch.Tensor:
        with torch.no_grad():
            return model(tower.pixels(drawn), output_hidden_states=True).hidden_states[-2][:, 1:]

    torch.manual_seed(0)
    shown = [scene for scene, _ in scenes("benchmark/probe", 1200)]
    novel = [scene for scene, _ in scenes("benchmark/novel", SCENES, novel=True)]
    head = nn.Linear(model.config.hidden_size, len(tower.WORDS))
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-2)
    inputs, targets = features(shown), torch.stack([tower.word_targets(scene) for scene in shown])
    for _ in range(300):
        loss = nn.functional.binary_cross_entropy_with_logits(head(inputs), targets, reduction="sum") / len(
            shown
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        truth = torch.stack([tower.word_targets(scene) for scene in novel])
        return tower.word_accuracy(head(features(novel)), truth)


@torch.no_grad()
def ask_language_model(folder: str, task: str) -> float:
    """The share of exact answers of a task, each asked as the first question about a scene."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rng = random.Random(task)
    right, total = 0, 0
    for number in range(SCENES):
        scene = draw_scene_plan(rng, novel=number % 2 == 0)
        asked = (detail if task == "detail" else CONVERSATION[task])(scene.things, rng)
        if asked is None:
            continue
        batch = dialogues.batch_of([(scene.things, [asked])], tokenizer)
        logits_BTK = model(inputs_embeds=language.embed(model, batch)).logits
        targets_BT = batch.labels_BT[:, 1:]
        told_BT = targets_BT != -100
        right += bool((logits_BTK[:, :-1].argmax(-1)[told_BT] == targets_BT[told_BT]).all())
        total += 1
    return right / total


if __name__ == "__main__":
    print("tower, read linearly, scenes with held-out pairs:", read_tower())
    shipped = resolve_source(f"{WEIGHTS}/language_model")
    for one in ("detail", "counting", "at_place", "colour", "place", "presence", "relation"):
        print(f"language model, {one}: {ask_language_model(shipped, one):.3f}")
