"""What a run will take, told ahead: steps, arithmetic, hours and disk, stage by stage, beside its memory.

What lives here: pure functions from a recipe, the numbers of its model and what is known of its data to an estimate. It
knows recipes, architectures and `memory`. It reads no files and does not print.

Floating point operations: a multiplication with an addition is two. The forward pass through a matrix is 2 for each
weight and position; the backward pass is as much again for the gradient of its input, where something before it
learns, and once more for its own, where it learns itself. What is computed a second time (activation checkpointing,
scores of the head) is not counted, as in the usual sense of model FLOP utilisation (MFU).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from llavakit.data.plan import FULL as FILL
from llavakit.data.plan import plan_stage
from llavakit.recipe import Recipe, Stage
from llavakit.training.activations import Load, Way, adapters, kept_bytes
from llavakit.training.advice import Alternative, alternatives
from llavakit.training.architecture import Architecture
from llavakit.training.expected_data import Data
from llavakit.training.memory import Memory, stage_memory
from llavakit.training.stage import stage_seed
from llavakit.training.state import KEPT

RESERVE = 1_500_000_000
"""Bytes of a GPU that are not a run's: CUDA's context, workspaces, what an allocator cannot use. A guess."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run is planned for. memory: bytes of a GPU; None: not said. tflops: 1e12 operations a second of a GPU in
    bfloat16, at its best (312 is an A100's). mfu: the share of that which is reached."""

    gpus: int = 1
    memory: int | None = None
    tflops: float = 312.0
    mfu: float = 0.4


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """One stage. memory: of each GPU when every one holds the whole model. divided: when weights, gradients and moments
    are divided among the GPUs; None for a single one. fits: None when the machine's memory was not said. steps, tokens,
    flops and hours are None when the number of rows is not known. checkpoint, state: bytes on the disk."""

    name: str
    parameters: dict[str, int]
    frozen_in_float32: tuple[str, ...]
    data: Data
    memory: Memory
    divided: Memory | None
    fits: bool | None
    fits_divided: bool | None
    better: tuple[Alternative, ...]
    steps: int | None
    tokens: int | None
    flops: float | None
    hours: float | None
    checkpoint: int
    state: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """A whole run. host: bytes of the machine's own memory that opening the parts takes. disk_most: on the disk at the
    fullest moment; disk: when the run has ended."""

    recipe: str
    machine: Machine
    parameters: dict[str, int]
    origins: dict[str, str]
    host: int
    stages: tuple[StageEstimate, ...]
    hours: float | None
    disk_most: int
    disk: int


def estimate_run(recipe: Recipe, model: Architecture, data: tuple[Data, ...], machine: Machine) -> Estimate:
    """The estimate of a recipe. data: of each stage."""
    half = recipe.model.precision != "float32"
    stages = tuple(_stage(recipe, number, model, half, known, machine) for number, known in enumerate(data))
    hours = [stage.hours for stage in stages]
    done, most = 0, 0
    for stage in stages:
        most = max(most, done + (KEPT + 1) * stage.state, done + KEPT * stage.state + stage.checkpoint)
        done += stage.checkpoint
    parts = [*(tower.part for tower in model.towers), model.language]
    return Estimate(
        recipe=recipe.name,
        machine=machine,
        parameters=model.parameters(),
        origins={part.name: part.origin for part in parts},
        host=4 * sum(model.parameters().values()),
        stages=stages,
        hours=None if None in hours else math.fsum(one for one in hours if one is not None),
        disk_most=most,
        disk=done,
    )


def way_of(stage: Stage, half: bool) -> Way:
    """How a stage is trained."""
    return Way(half, stage.learning_rate.trained, stage.lora)


def load_of(stage: Stage, data: Data, gpus: int) -> Load:
    """What one GPU carries: a pack of the stage, filled with mean rows."""
    pack = stage.batch.pack
    rows = max(pack / data.length, 1)
    return Load(
        positions=pack,
        tiles=math.ceil(rows * data.tiles),
        supervised=math.ceil(min(rows * data.supervised, pack)),
        packs=math.ceil(stage.batch.accumulation / gpus),
    )


def _stage(
    recipe: Recipe, number: int, model: Architecture, half: bool, data: Data, machine: Machine
) -> StageEstimate:
    stage = recipe.stages[number]
    way, load = way_of(stage, half), load_of(stage, data, machine.gpus)
    memory = stage_memory(model, way, load)
    divided = stage_memory(model, replace(way, shards=machine.gpus), load) if machine.gpus > 1 else None
    room = None if machine.memory is None else machine.memory - RESERVE

    def fits(one: Memory | None) -> bool | None:
        return None if room is None or one is None else one.total <= room

    better: tuple[Alternative, ...] = ()
    if room is not None and not fits(memory):
        better = alternatives(model, stage, way, load, room, machine.gpus)
    packs, steps = _steps(stage, data, recipe.seed)
    tokens = flops = hours = None
    if packs is not None and steps is not None:
        rows = (
            packs * stage.batch.pack * FILL / data.length
            if data.lengths is None
            else packs_rows(packs, stage, data)
        )
        tokens = round(rows * data.length)
        flops = rows * row_flops(model, way, data)
        hours = flops / (machine.gpus * machine.tflops * 1e12 * machine.mfu) / 3600
    so_far = tuple(dict.fromkeys(p for one in recipe.stages[: number + 1] for p in one.learning_rate.trained))
    sizes = model.parameters()
    return StageEstimate(
        name=stage.name,
        parameters=sizes,
        frozen_in_float32=_unfitting(model, way),
        data=data,
        memory=memory,
        divided=divided,
        fits=fits(memory),
        fits_divided=fits(divided),
        better=better,
        steps=steps,
        tokens=tokens,
        flops=flops,
        hours=hours,
        checkpoint=_checkpoint(model, way),
        state=4 * sum(sizes[part] for part in so_far)
        + 8 * sum(memory.trained.values()) * bool(stage.save_every),
    )


def _steps(stage: Stage, data: Data, seed: int) -> tuple[int | None, int | None]:
    """Packs and optimizer steps of a stage."""
    batch, schedule = stage.batch, stage.schedule
    if data.lengths is not None:
        plan = plan_stage(
            data.lengths,
            pack=batch.pack,
            batch=batch.tokens,
            epochs=schedule.epochs,
            max_steps=schedule.max_steps,
            seed=stage_seed(stage, seed),
        )
        return len(plan.packs), plan.steps
    if data.rows is None:
        most = schedule.max_steps
        return (None, None) if most is None else (most * batch.accumulation, most)
    packs = math.ceil(data.rows * data.length * schedule.epochs / (batch.pack * FILL))
    steps = math.ceil(packs / batch.accumulation)
    if schedule.max_steps is not None and schedule.max_steps < steps:
        steps, packs = schedule.max_steps, schedule.max_steps * batch.accumulation
    return packs, steps


def packs_rows(packs: int, stage: Stage, data: Data) -> float:
    """Rows that are drawn with so many packs of a stage all of whose lengths are known."""
    assert data.rows is not None
    whole = sum(data.lengths or ()) * stage.schedule.epochs / stage.batch.pack
    return data.rows * stage.schedule.epochs * min(1.0, packs / max(whole, 1e-9))


def row_flops(model: Architecture, way: Way, data: Data) -> float:
    """Floating point operations of the forward and backward pass over a mean row."""
    language, block = model.language, model.language.block
    full = "language_model" in way.trained and way.lora is None
    passes = 1 + 1 + full  # forward; gradient of inputs; of weights
    matrices = 2 * language.layers * block.weights * data.length * passes
    extra = 0.0
    if way.lora is not None and "language_model" in way.trained:
        extra = 6.0 * adapters(language, way.lora) * data.length
    # A position attends to half its conversation on average: 2 products of 2 operations; twice that backwards.
    attention = 3 * 2 * language.layers * block.query * data.attended * data.length
    head = 2 * model.head * data.supervised * passes
    rows = data.tiles * model.geometry.tokens
    projector = (
        2 * sum(one.weights for one in model.projector) * rows * (3 if "projector" in way.trained else 1)
    )
    return matrices + extra + attention + head + projector + data.tiles * tile_flops(model, way)


def tile_flops(model: Architecture, way: Way) -> float:
    """Floating point operations of the vision tower on one tile, backward pass included where it learns."""
    total = 0.0
    for tower in model.towers:
        block = tower.part.block
        layer = 2 * block.weights * tower.rows + 4 * block.query * tower.rows**2
        total += tower.part.layers * layer + 2 * tower.patch_weights * tower.rows
    return total * (3 if "vision_tower" in way.trained else 1)


def _unfitting(model: Architecture, way: Way) -> tuple[str, ...]:
    """Frozen parts that stay in float32 though the run computes in bfloat16."""
    if not way.half:
        return ()
    parts = [("vision_tower", tower.part) for tower in model.towers] + [("language_model", model.language)]
    frozen = [part for name, part in parts if name not in way.trained]
    return tuple(part.name for part in frozen if not part.half)


def _checkpoint(model: Architecture, way: Way) -> int:
    """Bytes of the saved model: every part as the stage keeps it."""
    sizes = model.parameters()
    towers = sum(
        one.part.parameters * kept_bytes(one.part, "vision_tower" in way.trained, way) for one in model.towers
    )
    full = "language_model" in way.trained
    language = sizes["language_model"] * kept_bytes(model.language, full, way)
    return towers + language + 4 * (sizes["projector"] + sizes["newline"])
