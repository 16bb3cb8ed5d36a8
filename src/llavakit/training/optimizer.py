"""What trains in a stage, at which rate, in which precision.

What lives here: freezing, AdamW's groups, the learning-rate schedule, the division and clipping of gradients, and the
choice of precision. It knows a model only as named parts with parameters. It does not know data, steps that are done,
or files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from llavakit.model.adapters import adapter_parameters
from llavakit.model.llava import Llava
from llavakit.recipe import Stage

ADAPTERS = "adapters"
"""What stands for the language model among kept parts where only its adapters have trained."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Where and in which numbers a run computes. `autocast` is None in plain float32."""

    device: torch.device
    autocast: torch.dtype | None

    @property
    def words(self) -> str:
        """For people."""
        return "float32" if self.autocast is None else "bfloat16 autocast, float32 master weights"

    def context(self) -> torch.autocast:
        """The context of every forward pass."""
        return torch.autocast(
            self.device.type, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None
        )


def choose_precision(wanted: str) -> Precision:
    """One CUDA GPU when there is one, else the CPU; `auto` is bfloat16 on a GPU and on a CPU that computes in it."""
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    half = wanted == "bfloat16" or (wanted == "auto" and (device.type == "cuda" or _cpu_has_bfloat16()))
    return Precision(device, torch.bfloat16 if half else None)


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for products in bfloat16; without them they are slower than in float32."""
    ask = getattr(torch.cpu, "get_capabilities", None)  # not in every torch that is admitted
    features = ask() if ask is not None else {}
    return any(features.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def prepare_parts(model: Llava, stage: Stage, precision: Precision) -> None:
    """Freezes what has no rate, and puts every part where and in the type in which the stage uses it.

    Trained weights are float32. The frozen weights of a part are kept in bfloat16 where the run computes in it and
    they lose nothing by it. Buffers keep their type: rotary frequencies must stay float32.
    """
    for name, part in model.parts().items():
        part.train(getattr(stage.learning_rate, name) is not None)
        part.to(precision.device)
        trained = {id(parameter) for parameter in trained_parameters(model, stage, name).values()}
        frozen = [parameter for parameter in part.parameters() if id(parameter) not in trained]
        half = precision.autocast is not None and _fit_bfloat16(frozen)
        for parameter in part.parameters():
            trains = id(parameter) in trained
            parameter.requires_grad_(trains)
            parameter.data = parameter.data.to(torch.bfloat16 if half and not trains else torch.float32)
            parameter.grad = None


def _fit_bfloat16(parameters: Iterable[nn.Parameter]) -> bool:
    return all(torch.equal(p.data.bfloat16().to(p.dtype), p.data) for p in parameters)


def to_float32(parameters: Iterable[nn.Parameter]) -> None:
    """Turns parameters, in their places, into float32."""
    for parameter in parameters:
        parameter.data = parameter.data.float()


def trained_parameters(model: Llava, stage: Stage, part: str) -> dict[str, nn.Parameter]:
    """The parameters of a part that train in a stage, by their names in it: all of them, or of a language model under
    `lora` its adapters, which must be attached; none without a rate."""
    if getattr(stage.learning_rate, part) is None:
        return {}
    if part == "language_model" and stage.lora is not None:
        return {name.removeprefix(f"{part}."): one for name, one in adapter_parameters(model).items()}
    return dict(getattr(model, part).named_parameters())


@dataclass(frozen=True, slots=True)
class Learner:
    """The optimizer of a stage and the names of its parameters, `<part>.<path>`, in the optimizer's own order."""

    optimizer: torch.optim.AdamW
    names: list[str]
    rates: dict[str, float]

    def set_rates(self, factor: float) -> dict[str, float]:
        """Sets every group to its part's peak rate times `factor`; returns the rates now in force by part."""
        now = {part: rate * factor for part, rate in self.rates.items()}
        for group in self.optimizer.param_groups:
            group["lr"] = now[group["part"]]
        return now

    def gradients(self) -> list[Tensor]:
        """The gradients that there are."""
        every = (p for group in self.optimizer.param_groups for p in group["params"])
        return [parameter.grad for parameter in every if parameter.grad is not None]


def make_learner(model: Llava, stage: Stage) -> Learner:
    """AdamW over the parts that train, fused; weight decay on matrices only (not on biases, norms, vectors)."""
    groups: list[dict[str, object]] = []
    names: list[str] = []
    rates: dict[str, float] = {}
    for part in stage.learning_rate.trained:
        rates[part] = getattr(stage.learning_rate, part)
        named = [(f"{part}.{name}", p) for name, p in trained_parameters(model, stage, part).items()]
        for decays in (True, False):
            members = [(name, p) for name, p in named if (p.ndim >= 2) == decays]
            if members:
                names += [name for name, _ in members]
                groups.append(
                    {
                        "params": [parameter for _, parameter in members],
                        "lr": rates[part],
                        "weight_decay": stage.weight_decay if decays else 0.0,
                        "part": part,
                    }
                )
    optimizer = torch.optim.AdamW(groups, betas=stage.adam_betas, eps=1e-8, fused=True)
    return Learner(optimizer, names, rates)


def schedule_factor(step: int, steps: int, warmup_ratio: float, kind: str) -> float:
    """The share of the peak rate in force at step `step` (from 0) of `steps`.

    A linear rise over `ceil(warmup_ratio * steps)` steps, whose first is already above zero, then half a cosine down
    to zero, or a constant (LLaVA's schedule is `cosine` with 0.03).
    """
    rising = math.ceil(warmup_ratio * steps)
    if step < rising:
        return (step + 1) / rising
    if kind == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def divide_and_clip(gradients: list[Tensor], divisor: int, clip: float | None) -> float:
    """Divides summed gradients by `divisor`, clips their global norm to `clip`, returns the norm before clipping."""
    if not gradients:
        return 0.0
    torch._foreach_mul_(gradients, 1.0 / divisor)
    norm = torch.nn.utils.get_total_norm(gradients)
    length = float(norm)
    if clip is not None and math.isfinite(length) and length > clip:
        torch._foreach_mul_(gradients, clip / length)
    return length


def trained_sizes(model: Llava, stage: Stage) -> dict[str, int]:
    """How many numbers train in each part that trains."""
    return {
        part: sum(p.numel() for p in trained_parameters(model, stage, part).values())
        for part in stage.learning_rate.trained
    }


def kept_parameters(model: Llava, part: str) -> dict[str, nn.Parameter]:
    """Every parameter (tied ones once) of a part, or of `ADAPTERS`, by name."""
    named = adapter_parameters(model) if part == ADAPTERS else getattr(model, part).named_parameters()
    return {f"{part}.{name}": parameter for name, parameter in dict(named).items()}


def kept_tensors(model: Llava, parts: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and every persistent buffer of some parts, by name."""
    for part in parts:
        for name, parameter in kept_parameters(model, part).items():
            yield name, parameter.data
        if part == ADAPTERS:
            continue
        module: nn.Module = getattr(model, part)
        persistent = module.state_dict().keys()
        for name, buffer in module.named_buffers():
            if name in persistent:
                yield f"{part}.{name}", buffer
