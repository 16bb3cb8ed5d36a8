"""What autograd keeps of a forward pass, in bytes: of each kind of layer, and of each part of the model.

What lives here: for every operation of a layer, the tensors that its gradient needs again, in the numbers that they are
kept in. Which numbers those are follows from what learns: a part that learns is float32 and its matrices see bfloat16
copies under autocast; a frozen one may be bfloat16 throughout. `benchmarks/memory.py` compares this with what is really
held. It knows numbers of architectures. It does not know optimizers, data or time.
"""

from __future__ import annotations

from dataclasses import dataclass

from llavakit.recipe import Lora
from llavakit.training.architecture import Architecture, Block, Linear, Part, Tower

FULL, HALF = 4, 2
NORM_STATISTICS = 4


@dataclass(frozen=True, slots=True)
class Load:
    """What one GPU carries through a forward and backward pass. positions: of a pack. tiles: pictures' tiles in the
    pack. supervised: positions with a target. packs: of one optimizer step on this GPU."""

    positions: int
    tiles: int
    supervised: int
    packs: int


@dataclass(frozen=True, slots=True)
class Way:
    """How a stage is trained. half: in bfloat16 autocast. trained: names of the parts that learn. lora: adapters in the
    place of the language model's weights. recompute: whether layers keep only their input (activation checkpointing).
    shards: over how many GPUs weights, gradients and moments are divided. cpu: whether attention is a CPU's, which
    computes in float32 where the rest is bfloat16."""

    half: bool
    trained: tuple[str, ...]
    lora: Lora | None = None
    recompute: bool = False
    shards: int = 1
    cpu: bool = False

    @property
    def compute(self) -> int:
        """Bytes of a number where matrices are multiplied."""
        return HALF if self.half else FULL

    @property
    def attention(self) -> int:
        """Bytes of a number inside attention."""
        return FULL if self.cpu else self.compute


def adapters(language: Part, lora: Lora) -> int:
    """Numbers of the adapters: two thin matrices beside every linear layer but the head, or beside those named."""
    return language.layers * sum(
        lora.rank * (one.before + one.behind) for one in adapted(language.block, lora)
    )


def adapted(block: Block, lora: Lora) -> tuple[Linear, ...]:
    """The linear layers of one layer that get adapters."""
    return tuple(one for one in block.linears if lora.targets is None or one.name in lora.targets)


def kept_bytes(part: Part, trained: bool, way: Way) -> int:
    """Bytes of each weight of a pretrained part: bfloat16 where it is frozen and bfloat16 holds it as it is."""
    return HALF if way.half and not trained and part.half else FULL


@dataclass(frozen=True, slots=True)
class Run:
    """How the layers of a part run. weight: bytes of its weights; residual: of a number between layers."""

    weight: int
    residual: int
    compute: int
    attention: int
    learns: bool


def language_run(model: Architecture, way: Way) -> Run:
    """How the language model runs; adapters stand beside a base in bfloat16."""
    full = "language_model" in way.trained and way.lora is None
    weight = kept_bytes(model.language, full, way)
    if way.lora is not None and way.half:
        weight = HALF
    return Run(weight, weight, way.compute, way.attention, full)


def tower_run(tower: Tower, way: Way) -> Run:
    """How a tower runs."""
    learns = "vision_tower" in way.trained
    weight = kept_bytes(tower.part, learns, way)
    return Run(weight, weight, way.compute, way.compute, learns)


def block_kept(block: Block, run: Run, lora: Lora | None = None) -> int:
    """Bytes for one position that autograd keeps of one layer: what each operation needs again for its gradient."""
    wide = block.norms * block.width
    if block.rms:
        norms = FULL * wide + NORM_STATISTICS * block.norms  # its input, in float32
        norms += (
            run.residual * wide * run.learns
        )  # the same after division, for the gradient of the norm's weight
    else:
        norms = run.residual * wide + 2 * NORM_STATISTICS * block.norms
    if block.head_norms:
        norms += (FULL + run.compute * run.learns) * (block.query + block.key_value)
    inputs = 0
    if run.learns and run.compute == HALF:
        inputs = HALF * sum(one.before for one in block.linears)  # autocast makes each its own
    elif run.learns:
        inputs = FULL * (2 * block.width + block.query + block.inner)
    attention = run.attention * 2 * (block.query + block.key_value) + FULL * block.heads
    mlp = run.compute * block.inner * (3 if block.gated else 1 + block.sigmoid)
    beside = 0
    if lora is not None:  # an adapter keeps its input, its dropout's mask and what lies between its matrices
        beside = sum(
            (run.compute + (lora.dropout > 0)) * one.before + run.compute * lora.rank
            for one in adapted(block, lora)
        )
    return norms + inputs + attention + mlp + beside


def language_kept(model: Architecture, run: Run, way: Way, load: Load, passed_norm: bool = False) -> int:
    """Of the language model. passed_norm: whether the backward pass has left the last norm and what reads it."""
    block = model.language.block
    if way.recompute and "language_model" in way.trained:  # transformers recomputes in training mode alone
        one = run.residual * block.width
    else:
        one = block_kept(block, run, way.lora)
    each = model.language.layers * one
    if passed_norm:
        return load.positions * each
    last = (FULL + run.residual * run.learns) * block.width
    read = run.residual + (run.compute if run.learns and run.compute != run.residual else 0)
    return load.positions * (each + last) + load.supervised * read * block.width


def tower_kept(model: Architecture, way: Way, load: Load) -> int:
    """What is left of the tower when it has run: nothing but the features, unless it learns."""
    if "vision_tower" not in way.trained:
        return 0
    total = 0
    for tower in model.towers:
        run = tower_run(tower, way)
        one, layers = block_kept(tower.part.block, run), tower.part.layers
        each = layers * run.residual * tower.part.block.width + one if way.recompute else layers * one
        total += load.tiles * tower.rows * (each + 3 * run.residual * tower.part.block.width)
    return total


def projector_kept(model: Architecture, way: Way, load: Load) -> int:
    """Inputs of the projector's matrices and of what stands between them."""
    if "projector" not in way.trained:
        return 0
    rows = load.tiles * model.geometry.tokens
    inside = sum(one.before for one in model.projector) + sum(one.behind for one in model.projector[:-1])
    cast = model.features * FULL if way.half else 0
    return rows * (way.compute * inside + cast)
