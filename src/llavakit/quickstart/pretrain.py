"""`llavakit quickstart --pretrain`: make the two stand-ins again, from nothing.

The weights in the package come from exactly this, with the plans' default values. They hold at most 8 MB together.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import transformers

from llavakit.errors import LlavakitError
from llavakit.quickstart.pretrain_language_model import LanguageTraining, train_language_model
from llavakit.quickstart.pretrain_tower import TowerTraining, train_tower

MOST_BYTES = 8_000_000


def pretrain(
    folder: Path, tower: TowerTraining, language: LanguageTraining, say: Callable[[str], None]
) -> dict[str, float]:
    """Train the tower and the language model one after the other; save them below `folder`.

    Returns:
        Seconds taken and bytes written, also kept in `folder/made.json` beside the plans.

    Raises:
        LlavakitError: `folder` holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise LlavakitError(
            f"{folder} is not empty; choose another folder with --out so that no weights are overwritten."
        )
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    train_tower(tower, folder / "vision_tower", say)
    between = time.monotonic()
    train_language_model(language, folder / "language_model", say)
    made = {
        "tower_seconds": round(between - started, 1),
        "language_seconds": round(time.monotonic() - between, 1),
        "bytes": sum(path.stat().st_size for path in folder.glob("*/model.safetensors")),
    }
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    record = {
        "tower": asdict(tower),
        "language": asdict(language),
        "threads": torch.get_num_threads(),
        **versions,
        **made,
    }
    (folder / "made.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return made
