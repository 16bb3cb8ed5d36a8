"""The memory of one stage, told from numbers: what stands in a GPU for the whole of a step, and what comes on top.

What lives here: for each moment of a step that can be its fullest, the bytes of everything that exists then. The rules
are those of `optimizer.prepare_parts` (what is float32, what bfloat16), of PyTorch's autocast (a float32 matrix has a
bfloat16 copy from the forward to the backward pass), of `activations` (which tensors autograd keeps) and of
`model.loss` (scores of one chunk of positions). `benchmarks/memory.py` compares them with what is really held on one
device; what division among several leaves is arithmetic. It knows numbers of architectures. It does not know data, time
or files.

Bytes throughout. A row of a moment is named as people read it.
"""

from __future__ import annotations

from dataclasses import dataclass

from llavakit.model.loss import chunk_size
from llavakit.training.activations import (
    FULL,
    HALF,
    Load,
    Run,
    Way,
    adapters,
    block_kept,
    language_kept,
    language_run,
    projector_kept,
    tower_kept,
    tower_run,
)
from llavakit.training.architecture import Architecture, Block

MOMENTS = 8  # AdamW's two, each float32


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of a step: its name, and what exists at it, in bytes."""

    name: str
    rows: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.rows.values())


@dataclass(frozen=True, slots=True)
class Memory:
    """The fullest moment of a step on one GPU, and how many numbers learn."""

    peak: Moment
    moments: tuple[Moment, ...]
    trained: dict[str, int]

    @property
    def total(self) -> int:
        return self.peak.total


def trained_numbers(model: Architecture, way: Way) -> dict[str, int]:
    """How many numbers learn in each part that learns: those that get gradients."""
    sizes = model.parameters()
    sizes["vision_tower"] -= sum(tower.part.unread for tower in model.towers)
    if way.lora is not None:
        sizes["language_model"] = adapters(model.language, way.lora)
    return {name: sizes[name] for name in way.trained}


def stage_memory(model: Architecture, way: Way, load: Load) -> Memory:
    """The memory of a stage on one GPU."""
    trained = trained_numbers(model, way)
    learns = sum(trained.values())
    weights = _weights(model, way)
    block, language = model.language.block, language_run(model, way)
    kept = {
        "weights": sum(weights.values()) // way.shards,
        "AdamW moments": MOMENTS * learns // way.shards,
        "pictures and ids": load.tiles * sum(3 * one.image_size**2 * FULL for one in model.towers[:1])
        + 24 * load.positions,
    }
    if way.shards > 1:
        kept["layers gathered"] = _gathered(model, way)
    gradients = {"gradients": FULL * learns // way.shards}
    activations = {
        "activations: vision tower": tower_kept(model, way, load),
        "activations: projector": projector_kept(model, way, load),
        "activations: language model": language_kept(model, language, way, load),
    }
    copies = {"bfloat16 copies of weights": _copies(model, language, way) if way.shards == 1 else 0}
    again = way.recompute and "language_model" in way.trained
    held = {} if again else copies  # with recomputation they are made again, a layer at a time
    inside = (
        {"one layer, computed again": load.positions * block_kept(block, language, way.lora)} if again else {}
    )
    behind_norm = {"activations: language model": language_kept(model, language, way, load, passed_norm=True)}
    before = gradients if load.packs > 1 else {}
    moments = [
        Moment("vision tower, forward", kept | before | {"working memory": _tower_working(model, way, load)}),
        Moment(
            "head, forward",
            kept | before | activations | copies | {"head and loss": _scores(model, language, load)},
        ),
        Moment(
            "head, backward",
            kept
            | before
            | activations
            | held
            | {"head and loss": _head(model, language, load, bool(before))},
        ),
        Moment(
            "last layer, backward",
            kept
            | before
            | activations
            | held
            | inside
            | behind_norm
            | {"working memory": _layer_working(block, language, load)},
        ),
        Moment("update", kept | gradients | {"working memory": _largest_gradient(model, trained, load)}),
    ]
    return Memory(max(moments, key=lambda moment: moment.total), tuple(moments), trained)


def _weights(model: Architecture, way: Way) -> dict[str, int]:
    """Bytes of the weights of each part as they are kept."""
    sizes = model.parameters()
    adapter = adapters(model.language, way.lora) if way.lora is not None else 0
    return {
        "vision_tower": sum(one.part.parameters * tower_run(one, way).weight for one in model.towers),
        "projector": sizes["projector"] * FULL,
        "newline": sizes["newline"] * FULL,
        "language_model": sizes["language_model"] * language_run(model, way).weight + adapter * FULL,
    }


def _copies(model: Architecture, run: Run, way: Way) -> int:
    """The bfloat16 copies that autocast makes of float32 matrices and that the backward pass needs."""
    if not way.half:
        return 0
    total = 0
    if run.weight == FULL:
        total += model.language.layers * model.language.block.weights
    if "projector" in way.trained:
        total += sum(one.weights for one in model.projector)
    if "vision_tower" in way.trained:
        total += sum(one.part.layers * one.part.block.weights + one.patch_weights for one in model.towers)
    if way.lora is not None:
        total += adapters(model.language, way.lora)
    return HALF * total


def _tower_working(model: Architecture, way: Way, load: Load) -> int:
    """The states of a tower that does not learn, all kept until it has run, and the insides of one layer."""
    most = 0
    for tower in model.towers:
        run, block = tower_run(tower, way), tower.part.block
        states = (tower.part.layers + 1) * run.residual * block.width
        inside = (
            run.compute * block.inner * (3 if block.sigmoid else 2)
            + (run.residual + run.compute) * block.width
        )
        copy = run.compute * max(one.weights for one in block.linears) if run.weight != run.compute else 0
        most = max(most, load.tiles * tower.rows * (states + inside) + copy)
    return most if "vision_tower" not in way.trained else 0


def _scores(model: Architecture, run: Run, load: Load) -> int:
    """Scores of a chunk and their logarithms, and what they are made of."""
    chunk = min(load.supervised, chunk_size(model.vocabulary))
    copy = HALF * model.head if run.weight != run.compute else 0
    return (
        copy
        + 2 * FULL * chunk * model.vocabulary
        + load.supervised * model.language.block.width * run.compute
    )


def _head(model: Architecture, run: Run, load: Load, adds: bool) -> int:
    """Scores of a chunk, the loss's gradients of them, and the head's own gradient."""
    chunk = min(load.supervised, chunk_size(model.vocabulary))
    copy = HALF * model.head if run.weight != run.compute else 0
    scores = 3 * FULL * chunk * model.vocabulary
    own = 0
    if run.learns:
        chunks = -(-load.supervised // max(chunk, 1))
        first = FULL * model.head * (not adds and chunks > 1)
        made = (FULL + (HALF if run.compute == HALF else 0)) * model.head
        own = first + made
        scores = max(scores + first, (FULL + run.compute) * chunk * model.vocabulary + own)
    hidden = load.supervised * model.language.block.width * (FULL + run.compute)
    return copy + scores + hidden


def _layer_working(block: Block, run: Run, load: Load) -> int:
    """Gradients of the insides of one layer while it is passed backwards."""
    width = 2 * run.residual * block.width + run.compute * block.inner * (2 if run.learns else 3)
    made = FULL * max(one.weights for one in block.linears) if run.learns else 0
    return load.positions * width + made


def _largest_gradient(model: Architecture, trained: dict[str, int], load: Load) -> int:
    """The last gradient that is added, that of the embedding, while the sum is there too."""
    return FULL * model.head if "language_model" in trained and load.packs > 1 else 0


def _gathered(model: Architecture, way: Way) -> int:
    """What a GPU holds whole of divided weights: two layers, embedding and head, and the gradient of the larger."""
    block = model.language.block
    ends = model.head * (1 if model.tied else 2)
    largest = max(block.weights, model.head)
    learns = "language_model" in way.trained and way.lora is None
    return way.compute * (2 * block.weights + ends) + FULL * largest * learns
