"""Low-rank adapters (LoRA) on a Llava: attaching fresh ones, loading saved ones, merging them, and writing them out.

The layers are those of the package peft, put in the place of the linear layers they adapt; peft is imported when
adapters are attached and not before. On the disk an adapter is PEFT's own folder (`checkpoints.adapter`), under the
names of the stock class in whose layout the model is saved, so that peft opens it on that class; under llavakit's own
names where no stock class expresses the model.

Knows modules and the checkpoint room. Knows nothing of optimizers or stages.

Shapes: r rank, I and O the widths in and out of a linear layer.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llavakit.checkpoints import adapter as adapter_format
from llavakit.checkpoints import hf
from llavakit.checkpoints.adapter import AdapterFile, LowRank
from llavakit.checkpoints.files import CheckpointError
from llavakit.errors import LlavakitError
from llavakit.recipe import Lora

if TYPE_CHECKING:
    from llavakit.model.llava import Llava

_NAME = "default"
_LAYERS = {
    "linear_1": "0",
    "linear_2": "2",
}  # of the projector mlp2x_gelu, as stock transformers and we call them


def require_peft() -> None:
    """Raises LlavakitError, with the command that installs it, when the package peft is not there."""
    if importlib.util.find_spec("peft") is None:
        raise LlavakitError(
            "LoRA needs the package peft, which is not installed; pip install 'llavakit[lora]'"
        )


def has_adapters(model: Llava) -> bool:
    """Whether adapters are attached that are not merged."""
    return bool(_adapted(model))


def adapter_parameters(model: Llava) -> dict[str, nn.Parameter]:
    """The parameters of attached adapters by their names in the model."""
    layers = tuple(f"{name}." for name in _adapted(model))
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.startswith(layers) and ".lora_" in name
    }


def lora_layers(model: Llava, lora: Lora) -> list[str]:
    """Names, in the language model, of the linear layers to adapt.

    Raises LlavakitError, with the layers there are, when a target names none.
    """
    llm = model.language_model
    head = llm.get_output_embeddings()
    linear = [n for n, m in llm.named_modules() if isinstance(m, nn.Linear) and m is not head]
    known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
    if not linear:
        raise LlavakitError(
            f"lora: {type(llm).__name__} has no linear layers besides its head; train it without lora"
        )
    if lora.targets is None:
        return linear
    for target in lora.targets:
        if not any(f".{name}".endswith(f".{target}") for name in linear):
            raise LlavakitError(
                f"lora.targets: {target!r} names no linear layer of {type(llm).__name__} that can be adapted; "
                f"known are {known} (the head is never adapted)"
            )
    return [name for name in linear if any(f".{name}".endswith(f".{target}") for target in lora.targets)]


def attach_adapters(model: Llava, lora: Lora, seed: int) -> None:
    """Puts fresh adapters on the language model's linear layers; what the model computes stays the same.

    lora.targets: names of linear layers, `q_proj` or longer (`self_attn.q_proj`); all but the head when None, as
    LLaVA's scripts adapt them. The first weights are float32 and follow from `seed` alone.
    Raises LlavakitError when peft is not installed or a target names no linear layer.
    """
    names = [f"language_model.{name}" for name in lora_layers(model, lora)]
    _inject(model, dict.fromkeys(names, (lora.rank, lora.alpha)), lora.dropout)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapter_parameters(model).items():
        first = torch.zeros(parameter.shape)
        if ".lora_A." in name:  # as peft begins them, but drawn in float32 whatever the base weights are
            nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=generator)
        parameter.data = first.to(parameter.device)


def merge_adapters(model: Llava) -> None:
    """Adds the adapters to the weights they adapt, computing in float32, and takes them off.

    Does nothing on a model without adapters. The weights keep their type.
    """
    for name, layer in _adapted(model).items():
        base = layer.get_base_layer()
        dtype = base.weight.dtype
        base.weight.data = base.weight.data.float()
        layer.merge()
        base.weight.data = base.weight.data.to(dtype)
        model.set_submodule(name, base)
    if hasattr(model, "peft_config"):
        del model.peft_config


def load_adapter(model: Llava, folder: Path, where: str, merge: bool) -> None:
    """Opens a LoRA adapter on this model; see Llava.load_adapter."""
    require_peft()
    if has_adapters(model):
        raise LlavakitError(f"{where}: the model holds an adapter already; call merge_adapter first")
    file = adapter_format.read_adapter(folder)
    modules = dict(model.named_modules())
    low_rank: dict[str, LowRank] = {}
    for name, low in file.low_rank.items():
        own = _own_module(name, modules)
        layer = modules.get(own or "")
        if own is None or not isinstance(layer, nn.Linear):
            raise CheckpointError(
                f"{where}: it adapts {name}, but this model has no linear layer of that name"
            )
        expected, found = tuple(layer.weight.shape), (len(low.up_Or), low.down_rI.shape[1])
        if expected != found:
            raise CheckpointError(
                f"{where}: it adapts {name} of shape {found}, this model's is {expected}; it belongs to another base"
            )
        low_rank[own] = low
    whole = _own_tensors(model, file.whole, where)
    tied = _tied_head(model)
    if tied in low_rank:
        raise CheckpointError(
            f"{where}: it adapts the head, which this model shares with its token embedding"
        )
    with torch.no_grad():
        for target, tensor in whole:
            target.copy_(tensor)
    if low_rank:
        scales = {name: (len(low.down_rI), low.scaling * len(low.down_rI)) for name, low in low_rank.items()}
        _inject(model, scales, dropout=0.0)
        for name, low in low_rank.items():
            for letter, tensor in (("A", low.down_rI), ("B", low.up_Or)):
                parameter = model.get_parameter(f"{name}.lora_{letter}.{_NAME}.weight")
                parameter.data = tensor.to(parameter.device, torch.float32)
    if merge:
        merge_adapters(model)


def adapter_file(model: Llava, parts: Sequence[str], stock: bool) -> AdapterFile:
    """The attached adapters of the language model, and other parts whole, under the names they are saved by.

    The tensors are copies. parts: those that trained beside the adapters. stock: under the names of the class in whose
    layout the model is saved, else under llavakit's own.
    """
    low_rank = {}
    for name, layer in _adapted(model).items():
        part, _, inner = name.partition(".")
        pair = (layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight)
        down_rI, up_Or = (weight.detach().to("cpu", copy=True) for weight in pair)
        low_rank[hf.in_memory(part, inner) if stock else name] = LowRank(down_rI, up_Or, layer.scaling[_NAME])
    whole: dict[str, Tensor] = {}
    for part in parts:
        state = {k: t.detach().to("cpu", copy=True) for k, t in getattr(model, part).state_dict().items()}
        if not stock:
            whole |= {f"{part}.{name}": tensor for name, tensor in state.items()}
        elif part == "projector":
            hub = hf.projector_to_hub(state, model.settings.projector)
            whole |= {f"model.{name}": tensor for name, tensor in hub.items()}
        elif part == "newline":
            whole["model.image_newline"] = state["weight"]
        else:
            whole |= {hf.in_memory(part, name): tensor for name, tensor in state.items()}
    return AdapterFile(low_rank, whole)


def write_adapter(
    folder: Path, file: AdapterFile, lora: Lora, parts: Sequence[str], stock: bool, base: str | None
) -> None:
    """Writes what `adapter_file` gave as a folder that peft opens on the model it belongs to."""
    place = re.escape("model.language_model." if stock else "language_model.")
    short = lora.targets or sorted({name.rpartition(".")[2] for name in file.low_rank})
    saved = {"projector": "multi_modal_projector"} if stock else {}
    adapter_format.write_adapter(
        folder,
        file,
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=lora.dropout,
        targets=rf"{place}(.*\.)?({'|'.join(re.escape(name) for name in short)})",
        # the stock newline is a parameter and no module, which PEFT has no place for in its configuration
        modules_to_save=[saved.get(part, part) for part in parts if not (stock and part == "newline")],
        base=base,
    )


def _adapted(model: Llava) -> dict[str, Any]:
    """The linear layers under adapters, by name."""
    if not hasattr(model, "peft_config"):
        return {}
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _inject(model: Llava, layers: Mapping[str, tuple[int, float]], dropout: float) -> None:
    """Puts adapters of (rank, alpha) on the linear layers of these names."""
    require_peft()
    from peft import LoraConfig, inject_adapter_in_model

    ranks = {re.escape(name): rank for name, (rank, _) in layers.items()}
    alphas = {re.escape(name): alpha for name, (_, alpha) in layers.items()}
    rank, alpha = next(iter(layers.values()))
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    parameters = dict(model.named_parameters())
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules="|".join(ranks),
        rank_pattern={name: value for name, value in ranks.items() if value != rank},
        alpha_pattern={name: value for name, value in alphas.items() if value != alpha},
    )
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(config, model, _NAME)
    for (
        name,
        parameter,
    ) in parameters.items():  # peft freezes them all; who trains what is the caller's matter
        parameter.requires_grad_(trained[name])
    for parameter in adapter_parameters(model).values():
        parameter.data = parameter.data.float()


def _own_module(name: str, modules: Mapping[str, nn.Module]) -> str | None:
    """The module of this model that a file calls `name`: under the names of a stock LLaVA of any layout, under
    llavakit's own, or under those of the language model alone."""
    candidates = [name, f"language_model.{name}"]
    place = hf.part_of(f"{name}.weight")
    if place is not None:
        part, inner = place[0], place[1].removesuffix(".weight")
        inner = _LAYERS.get(inner, inner) if part == "projector" else inner
        candidates = [f"{part}.{inner}", f"{part}.{inner.removeprefix('vision_model.')}", *candidates]
    return next((one for one in candidates if one in modules), None)


def _own_tensors(model: Llava, whole: Mapping[str, Tensor], where: str) -> list[tuple[Tensor, Tensor]]:
    """Each of this model's tensors that an adapter replaces, with what replaces it."""
    own: dict[str, Tensor] = {}
    layers: dict[str, Tensor] = {}
    for name, tensor in whole.items():
        part, inner = hf.part_of(name) or ("", name)
        if part == "projector":
            layers[f"multi_modal_projector.{inner}"] = tensor
        else:
            own[f"{part}.{inner.removeprefix('vision_model.')}" if part else name] = tensor
    if layers:
        parts = hf.from_hub(layers, projector=model.settings.projector, where=where)
        own |= {f"projector.{name}": tensor for name, tensor in parts["projector"].items()}
    state = model.state_dict()
    pairs = []
    for name, tensor in own.items():
        if name not in state:
            raise CheckpointError(f"{where}: unexpected tensor {name}; it belongs to no part of this model")
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{where}: {name} is of shape {tuple(tensor.shape)}, this model's is {tuple(state[name].shape)}"
            )
        pairs.append((state[name], tensor))
    return pairs


def _tied_head(model: Llava) -> str | None:
    """The head's name where its weight is the token embedding's."""
    llm = model.language_model
    head, embedding = llm.get_output_embeddings(), llm.get_input_embeddings()
    if head is None or embedding is None or head.weight is not embedding.weight:
        return None
    return next(f"language_model.{name}" for name, module in llm.named_modules() if module is head)
