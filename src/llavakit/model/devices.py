"""Where a model computes: the device that was asked for, or the best there is.

Knows torch's devices. Knows no model.
"""

from __future__ import annotations

import torch

from llavakit.errors import LlavakitError


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name; the GPU where there is one, else the CPU, when None.

    Raises LlavakitError when torch knows no such device or cannot compute on it here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).add(1).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise LlavakitError(
            f"torch cannot compute on the device {name!r} here ({reason}); choose cpu, or another that is there"
        ) from error
    return device
