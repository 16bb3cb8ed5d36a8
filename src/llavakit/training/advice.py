"""What would make a stage fit that does not: other ways to train it, each with its figure.

What lives here: the alternatives that are tried, and what each costs beside memory. It knows the memory of a stage. It
does not know data or time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from llavakit.recipe import Lora, Stage
from llavakit.training.activations import Load, Way
from llavakit.training.architecture import Architecture
from llavakit.training.memory import stage_memory

MOST_GPUS = 1024


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another way: what to do, what it costs, the bytes of a GPU that it takes, and whether they are there."""

    change: str
    price: str
    memory: int
    fits: bool


def alternatives(
    model: Architecture, stage: Stage, way: Way, load: Load, room: int, gpus: int
) -> tuple[Alternative, ...]:
    """Ways to need less memory, the gentlest first. room: bytes of a GPU that a run may use."""
    found: list[Alternative] = []

    def tried(change: str, price: str, way: Way = way, load: Load = load) -> bool:
        needed = stage_memory(model, way, load).total
        found.append(Alternative(change, price, needed, needed <= room))
        return needed <= room

    language = "language_model" in way.trained
    again = replace(way, recompute=True)
    if language:
        tried("activation checkpointing", "a third more arithmetic", again)
    pack, small = load.positions, load
    while pack // 2 >= stage.max_length:
        pack //= 2
        small = _smaller(load, pack)
        if stage_memory(model, way, small).total <= room:
            break
    if small is not load:
        tried(f"batch.pack {pack}", "more, shorter forward passes; the same batch", way, small)
    if not language and way.half and not model.language.half:
        stored = replace(model, language=replace(model.language, half=True))
        needed = stage_memory(stored, way, load).total
        change = "a language model stored in bfloat16, which is then kept in it"
        found.append(Alternative(change, "its weights rounded once", needed, needed <= room))
    thin = replace(way, lora=Lora())
    if language and way.lora is None:
        tried(f"lora, rank {Lora().rank}", "adapters learn in the place of all weights", thin)
        tried("lora and activation checkpointing", "both", replace(thin, recompute=True))
    if gpus > 1:
        tried(
            f"weights, gradients and moments divided among {gpus} GPUs", "traffic", replace(way, shards=gpus)
        )
        if language:
            tried(f"the same with activation checkpointing, {gpus} GPUs", "both", replace(again, shards=gpus))
    if language and not any(one.fits for one in found):
        _more_gpus(model, again, load, room, gpus, found)
    return tuple(found)


def _more_gpus(
    model: Architecture, way: Way, load: Load, room: int, gpus: int, found: list[Alternative]
) -> None:
    """The smallest doubling of GPUs among which the division fits."""
    many = max(gpus, 1) * 2
    while many <= MOST_GPUS:
        needed = stage_memory(model, replace(way, shards=many), load).total
        if needed <= room or many * 2 > MOST_GPUS:
            change = f"divided among {many} GPUs, with activation checkpointing"
            found.append(Alternative(change, "more GPUs, traffic", needed, needed <= room))
            return
        many *= 2


def _smaller(load: Load, pack: int) -> Load:
    """The same step in shorter packs."""
    share = pack / load.positions
    return replace(
        load,
        positions=pack,
        tiles=max(1, round(load.tiles * share)),
        supervised=max(1, round(load.supervised * share)),
        packs=round(load.packs / share),
    )
