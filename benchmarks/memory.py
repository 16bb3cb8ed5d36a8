"""What training really holds, against what `llavakit plan` says it will: the peak of one step, in bytes of tensors.

    python benchmarks/memory.py

Small random models of several shapes take two optimizer steps, the second with AdamW's moments there. Every tensor that
exists is counted by its storage, from weights to gradients to whatever autograd keeps, so the number is the same on
every run and knows nothing of allocators. Scratch memory inside a kernel is not seen. Prints a table and writes it,
dated, under benchmarks/results.
"""

from __future__ import annotations

import platform
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from llavakit.images.geometry import Layout, TowerGeometry
from llavakit.images.spec import PixelSpec
from llavakit.model.arrange import Newline
from llavakit.model.language import prepare_language_model
from llavakit.model.llava import Llava, LlavaSettings
from llavakit.model.packed import IGNORE_INDEX, IMAGE_TOKEN_ID, Pack
from llavakit.model.projectors import build_projector
from llavakit.recipe import Stage
from llavakit.training.activations import Load, Way
from llavakit.training.architecture import Architecture, architecture, language_numbers, tower_numbers
from llavakit.training.memory import Memory, stage_memory
from llavakit.training.optimizer import Precision, divide_and_clip, make_learner, prepare_parts

RESULTS = Path(__file__).parent / "results"


class StorageCount(TorchDispatchMode):
    """Bytes of all storages that exist, and the most there were since it was made or `restart` was called."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def restart(self) -> None:
        self.peak = self.now

    def hold(self, *tensors: Tensor) -> None:
        """Counts storages that were there before, or that an operation made."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._known or not storage.nbytes():
                continue
            self._known.add(key)
            size = storage.nbytes()
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.hold(*(leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)))
        return out


@dataclass(frozen=True)
class Size:
    """A model and a pack to measure.

    trained: the parts that learn. conversations: equal ones in the pack, each with one picture in front. packs: of one
    optimizer step. half: whether it computes in bfloat16. answered: the share of the text that is learnt. recompute:
    activation checkpointing.
    """

    name: str
    width: int
    layers: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int
    trained: tuple[str, ...]
    pack: int
    conversations: int
    packs: int = 2
    family: str = "llama"
    tied: bool = False
    tower_width: int = 64
    tower_layers: int = 4
    image_size: int = 56
    half: bool = False
    answered: float = 0.5
    bfloat16_source: bool = True
    recompute: bool = False

    @property
    def tower_config(self) -> PretrainedConfig:
        return CLIPVisionConfig(
            hidden_size=self.tower_width,
            intermediate_size=self.tower_width * 4,
            num_hidden_layers=self.tower_layers,
            num_attention_heads=4,
            image_size=self.image_size,
            patch_size=14,
        )

    @property
    def language_config(self) -> PretrainedConfig:
        kind = {"llama": LlamaConfig, "qwen2": Qwen2Config}[self.family]
        return kind(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            tie_word_embeddings=self.tied,
            pad_token_id=None,
            bos_token_id=0,
            eos_token_id=1,
        )

    @property
    def stage(self) -> Stage:
        return Stage.model_validate(
            {
                "name": "measured",
                "data": [{"path": "none.json"}],
                "template": "plain",
                "learning_rate": dict.fromkeys(self.trained, 1e-3),
                "batch": {"tokens": self.pack * self.packs, "pack": self.pack},
                "max_length": self.pack,
            }
        )


def make_model(size: Size) -> Llava:
    """The size's model, its weights random."""
    torch.manual_seed(0)
    tower = CLIPVisionModel(size.tower_config)
    kind = {"llama": LlamaForCausalLM, "qwen2": Qwen2ForCausalLM}[size.family]
    language = kind(size.language_config)
    prepare_language_model(language, size.name)
    if size.bfloat16_source:
        for part in (tower, language):
            for parameter in part.parameters():
                parameter.data = parameter.data.bfloat16().float()
    geometry = TowerGeometry(size.image_size, 14)
    return Llava(
        tower,
        build_projector("mlp2x_gelu", size.tower_width, size.width, geometry.side),
        Newline(size.width),
        language,
        tokenizer=None,
        pixels=PixelSpec(size.image_size, (0.5,) * 3, (0.5,) * 3),
        geometry=geometry,
        settings=LlavaSettings(),
    )


def make_pack(size: Size) -> Pack:
    """Equal conversations that fill the pack: a picture, then text, of which the last part is an answer."""
    features = (size.image_size // 14) ** 2
    length = size.pack // size.conversations
    text = length - features
    answer = int(text * size.answered)
    ids = torch.cat([torch.full((features,), IMAGE_TOKEN_ID), torch.arange(text) % size.vocabulary])
    labels = torch.full((length,), IGNORE_INDEX)
    labels[length - answer - 1 : length - 1] = 1
    count = size.conversations
    return Pack(
        ids_T=ids.repeat(count),
        labels_T=labels.repeat(count),
        positions_T=torch.arange(length).repeat(count),
        cu_seqlens=[length * n for n in range(count + 1)],
        tiles_NCHW=torch.randn(count, 3, size.image_size, size.image_size),
        sample_ids=[str(n) for n in range(count)],
        layouts=[[Layout(1, features)] for _ in range(count)],
    )


def measure(size: Size) -> int:
    """The most bytes of tensors during the second step of training."""
    model, stage, pack = make_model(size), size.stage, make_pack(size)
    precision = Precision(torch.device("cpu"), torch.bfloat16 if size.half else None)
    prepare_parts(model, stage, precision)
    learner = make_learner(model, stage)
    if size.recompute:
        model.checkpoint_activations()
    with StorageCount() as count:
        count.hold(*model.parameters(), *model.buffers())
        for _ in range(2):
            count.restart()
            for _ in range(size.packs):
                with precision.context():
                    out = model(pack)
                out.loss_sum.backward()
            divide_and_clip(learner.gradients(), 1, 1.0)
            learner.optimizer.step()
            learner.optimizer.zero_grad(set_to_none=True)
            del out
    return count.peak


def numbers(size: Size) -> Architecture:
    """What a plan counts of the size's model."""
    layers = LlavaSettings().vision_feature_layer
    tower = tower_numbers(size.tower_config, size.image_size, layers, "tower", size.bfloat16_source, "")
    language = language_numbers(size.language_config, "language model", size.bfloat16_source, "")
    return architecture(
        (tower,),
        language,
        size.language_config,
        projector="mlp2x_gelu",
        features=size.tower_width,
        geometry=TowerGeometry(size.image_size, 14),
    )


def estimate(size: Size) -> Memory:
    """What a plan says of the same step."""
    pack = make_pack(size)
    load = Load(len(pack.ids_T), size.conversations, pack.supervised, size.packs)
    way = Way(size.half, size.stage.learning_rate.trained, recompute=size.recompute, cpu=True)
    return stage_memory(numbers(size), way, load)


PROJECTOR, BOTH = ("projector",), ("projector", "language_model")
EVERYTHING = ("vision_tower", *BOTH)
_USUAL: dict[str, Any] = {
    "width": 128,
    "layers": 4,
    "inner": 352,
    "heads": 4,
    "kv_heads": 4,
    "vocabulary": 512,
    "pack": 1024,
    "conversations": 4,
}


def sized(name: str, trained: tuple[str, ...], **changes: Any) -> Size:
    """The usual size with changes."""
    return Size(name, trained=trained, **{**_USUAL, **changes})


_SHAPES: dict[str, dict[str, Any]] = {
    "usual": {},
    "deep": {"layers": 8},
    "wide, one long conversation": {
        "width": 256,
        "layers": 2,
        "inner": 1024,
        "pack": 512,
        "conversations": 1,
    },
    "large vocabulary": {"vocabulary": 20000, "layers": 2},
    "grouped queries, tied": {"family": "qwen2", "heads": 8, "kv_heads": 2, "tied": True, "vocabulary": 4000},
    "many pictures": {"layers": 2, "tower_width": 128, "tower_layers": 8, "conversations": 32},
    "one pack a step": {"packs": 1},
    "not stored in bfloat16": {"bfloat16_source": False},
    "activation checkpointing": {"layers": 8, "recompute": True},
}
SIZES = [
    sized(shape, trained, half=half, **changes)
    for shape, changes in _SHAPES.items()
    for trained in (PROJECTOR, BOTH, *([EVERYTHING] if shape in ("usual", "many pictures") else []))
    for half in (False, True)
]


def main() -> None:
    """Measures every size, prints the table and writes it."""
    now = datetime.now(UTC)
    lines = [
        f"# Memory of a training step, measured and told ahead ({now:%Y-%m-%d})",
        "",
        f"`python benchmarks/memory.py`, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{platform.machine()} CPU. Bytes of all tensors at the fullest moment of the second step. "
        "No GPU was measured.",
        "",
        "| model | learns | numbers | measured MB | told MB | told / measured | fullest moment |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in SIZES:
        measured, told = measure(size), estimate(size)
        lines.append(
            f"| {size.name} | {', '.join(size.trained)} | {'bfloat16' if size.half else 'float32'} | "
            f"{measured / 1e6:.2f} | {told.total / 1e6:.2f} | {told.total / measured:.3f} | {told.peak.name} |"
        )
        print(lines[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{now:%Y-%m-%d}-memory.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
