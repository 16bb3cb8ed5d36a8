"""Adapters in the course of a run: attached where a stage begins, taken up from a state, merged where it ends.

While a stage with `lora` is at work the language model carries adapters and its own weights are frozen. When the stage
has ended they are merged, so that what comes after, the checkpoint and the next stage, sees an ordinary model; the
adapters alone are written beside it. It knows the model's adapters, stages and states. It does not know steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from llavakit.checkpoints.adapter import AdapterFile
from llavakit.data.plan import mix64
from llavakit.model.adapters import (
    adapter_file,
    attach_adapters,
    has_adapters,
    lora_layers,
    merge_adapters,
    require_peft,
    write_adapter,
)
from llavakit.model.llava import Llava
from llavakit.model.saving import why_not_stock
from llavakit.recipe import Lora, Recipe, Stage
from llavakit.training.optimizer import ADAPTERS, to_float32
from llavakit.training.state import SavedState, load_weights

FOLDER = "adapter"
"""Where, in the checkpoint of a stage with `lora`, its adapters lie in PEFT's form."""


@dataclass(frozen=True, slots=True)
class EndedAdapter:
    """The adapters of a stage that has ended, as they were before they were merged. `parts` trained beside them."""

    file: AdapterFile
    lora: Lora
    parts: tuple[str, ...]
    stock: bool

    def write(self, folder: Path, base: str | None) -> None:
        """Writes them as a PEFT folder. base: where the model lies that the stage began with, if it is saved."""
        write_adapter(folder, self.file, self.lora, self.parts, self.stock, base)

    @property
    def unknown_to_peft(self) -> bool:
        """Whether something trained that the folder holds and peft leaves out when it opens it."""
        return self.stock and "newline" in self.parts


def check_peft(recipe: Recipe) -> None:
    """Raises LlavakitError, before anything is opened, when a stage needs the package peft and it is not there."""
    if any(stage.lora is not None for stage in recipe.stages):
        require_peft()


def check_targets(model: Llava, recipe: Recipe) -> None:
    """Raises LlavakitError, before anything is trained, when a stage would adapt layers that the model has not."""
    for stage in recipe.stages:
        if stage.lora is not None:
            lora_layers(model, stage.lora)


def begin_adapters(model: Llava, stage: Stage, seed: int) -> None:
    """Attaches fresh adapters where the stage asks for them and none came from a state. seed: the stage's own."""
    if stage.lora is not None and not has_adapters(model):
        attach_adapters(model, stage.lora, mix64(seed, 5) >> 1)


def take_up(saved: SavedState, model: Llava, recipe: Recipe, ended: bool, device: torch.device) -> None:
    """Puts the weights of a state into a fresh model.

    ended: its stage is over and its adapters are merged, on the device on which the run merged them.
    """
    begin_adapters(model, recipe.stages[saved.stage - 1], seed=0)  # their weights come from the state
    load_weights(saved, model)
    if ended:
        model.parts()["language_model"].to(device)
        _merge(model)


def end_adapters(model: Llava, stage: Stage) -> EndedAdapter | None:
    """Merges the adapters of a stage and returns what they were; None for a stage without."""
    if stage.lora is None:
        return None
    parts = tuple(part for part in stage.learning_rate.trained if part != "language_model")
    stock = why_not_stock(model) is None
    ended = EndedAdapter(adapter_file(model, parts, stock), stage.lora, parts, stock)
    _merge(model)
    return ended


def _merge(model: Llava) -> None:
    """Merges into float32 weights, as those of every trained part are: in bfloat16 small changes would be lost."""
    if has_adapters(model):
        to_float32(model.language_model.parameters())
        merge_adapters(model)


def kept_parts(model: Llava, recipe: Recipe, number: int) -> tuple[str, ...]:
    """What a state in stage `number` (from 1) must hold: all that has trained so far in the run.

    Of a language model that only the adapters of this stage have changed, those alone.
    """
    before, stage = recipe.stages[: number - 1], recipe.stages[number - 1]
    kept = []
    for part in model.part_names:
        earlier = any(getattr(one.learning_rate, part) is not None for one in before)
        if earlier or getattr(stage.learning_rate, part) is not None:
            adapted = part == "language_model" and stage.lora is not None and not earlier
            kept.append(ADAPTERS if adapted else part)
    return tuple(kept)
