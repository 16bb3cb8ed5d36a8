"""Where benchmarks leave what they found: one JSON a benchmark, with the machine and the date."""

from __future__ import annotations

import json
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch

from llavakit.training.folder import describe_machine

FOLDER = Path(__file__).parent / "results"


def cpu_name() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def write_result(name: str, content: dict[str, Any]) -> None:
    """Writes benchmarks/results/DATE-NAME.json and says so."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{date.today().isoformat()}-{name}.json"
    machine = describe_machine(cpu_name(), "as the script says", torch.get_num_threads(), lora=False)
    whole = {"date": date.today().isoformat(), "machine": machine, **content}
    path.write_text(json.dumps(whole, indent=1) + "\n", "utf-8")
    print(f"result: {path}")
