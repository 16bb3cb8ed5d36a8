"""Language models with weights of eight bits, for answering on a CPU.

Every linear layer keeps its weight as integers from -127 to 127 and one scale an output channel; activations stay as
they are. While an answer is written, a step reads every weight once for a few rows, so its time is that of the reading,
and a quarter of the bytes is read. For a few rows torch's own kernel multiplies integers as they lie, with activations
rounded to bfloat16; for many rows, where a prompt is read, the weight is spread out first and multiplied as usual.

Knows linear layers. Knows no pictures and no text. Nothing is learnt through such a layer.

Shapes: n rows, I inputs, O outputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llavakit.errors import LlavakitError

# Rows up to which the kernel on integers is the faster one (measured on AVX-512, 512 x 1408: 0.30 ms against 0.58 ms).
_FEW_ROWS = 16
# The kernel reads inputs in whole vectors without looking where a row ends; past it lies memory of others.
_LANES = 32


class Quantized(NamedTuple):
    """layers: linear layers that were quantized. share: of the language model's numbers, those now of eight bits."""

    layers: int
    share: float


class Int8Linear(nn.Module):
    """A linear layer whose weight is `integers * scale`, O x I; the scale is exact in bfloat16."""

    integers: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = (weight.abs().amax(dim=1) / 127).clamp(min=1e-12).to(torch.bfloat16)
        integers = (weight / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        self.register_buffer("integers", integers)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, input: Tensor) -> Tensor:
        """(..., I) to (..., O) in the type of the input. Raises LlavakitError where a gradient would be asked for."""
        if torch.is_grad_enabled() and input.requires_grad:
            raise LlavakitError(
                "this language model has int8 weights, and nothing can be learnt through them; open the checkpoint "
                "again without int8 to train"
            )
        rows = input.flatten(0, -2)
        output = self.few(rows) if self.takes_kernel(rows) else self.many(rows)
        if self.bias is not None:
            output = output + self.bias.to(output.dtype)
        return output.view(*input.shape[:-1], -1)

    def takes_kernel(self, rows_nI: Tensor) -> bool:
        """Whether torch's kernel is there, safe and faster for these rows; what it gives is what `many` gives."""
        return (
            len(rows_nI) <= _FEW_ROWS
            and rows_nI.shape[1] % _LANES == 0
            and rows_nI.device.type == "cpu"
            and hasattr(torch, "_weight_int8pack_mm")
        )

    def few(self, rows_nI: Tensor) -> Tensor:
        """The product by torch's kernel for weights of eight bits."""
        product: Tensor = torch._weight_int8pack_mm(rows_nI.to(torch.bfloat16), self.integers, self.scale)
        return product.to(rows_nI.dtype)

    def many(self, rows_nI: Tensor) -> Tensor:
        """The product with the weight spread out to the type of the rows."""
        return F.linear(rows_nI, self.integers.to(rows_nI.dtype)) * self.scale.to(rows_nI.dtype)


@torch.no_grad()
def quantize_linear_layers(model: nn.Module) -> Quantized:
    """Exchanges every linear layer of a model for one of eight bits, its head too; a tied embedding stays as it is.

    Raises LlavakitError when the model has none.
    """
    linear = [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear]
    if not linear:
        held = "has int8 weights already" if is_quantized(model) else "has no linear layers"
        raise LlavakitError(f"{type(model).__name__} {held}; expected one with linear layers to quantize")
    for name, module in linear:
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, Int8Linear(module))
    small = sum(module.integers.numel() for module in model.modules() if isinstance(module, Int8Linear))
    large = sum(parameter.numel() for parameter in model.parameters())
    return Quantized(len(linear), small / (small + large))


def is_quantized(model: nn.Module) -> bool:
    """Whether some layer of the model has weights of eight bits."""
    return any(isinstance(module, Int8Linear) for module in model.modules())
