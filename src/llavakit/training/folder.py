"""The folder of a run: where everything lies, who may write into it, and its manifest.

What lives here: paths, the refusal to overwrite, the comparison of recipes when a run goes on, and `manifest.json`,
which says what the run was made of. It does not know tensors.
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from llavakit import __version__
from llavakit.errors import LlavakitError
from llavakit.recipe import Recipe, load_recipe
from llavakit.training.durable import PARTIAL, remove_partial, write_json, write_text

HARMLESS = {"workers", "tensorboard"}
"""Recipe keys that may differ when a run goes on: they change neither what is learnt nor what is kept."""


@dataclass(slots=True)
class RunFolder:
    """An open run folder. `manifest` is plain JSON; `keep` writes it."""

    path: Path
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def states(self) -> Path:
        return self.path / "state"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def indexes(self) -> Path:
        return self.path / "index"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluation"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def failure(self) -> Path:
        return self.path / "failure.json"

    @property
    def finished(self) -> bool:
        """Whether every stage is done."""
        return bool(self.manifest.get("finished"))

    def checkpoint(self, number: int, stage: str) -> Path:
        """Where the model of a finished stage lies."""
        return self.checkpoints / f"{number}-{stage}"

    def keep(self) -> None:
        """Writes the manifest."""
        write_json(self.path / "manifest.json", self.manifest)


def open_run(path: Path, recipe: Recipe, resume: bool) -> RunFolder:
    """Makes the folder of a fresh run, or opens that of a run that goes on.

    Raises LlavakitError: when a fresh run would write into a folder that holds anything; when there is nothing to
    resume; when the recipe is not the one that the run began with (naming the keys).
    """
    folder = RunFolder(path)
    if path.exists() and not path.is_dir():
        raise LlavakitError(f"run folder {path}: a file stands there; name another folder")
    held = [one.name for one in path.iterdir() if not one.name.startswith(PARTIAL)] if path.exists() else []
    if not resume and held:
        what = "a run" if folder.recipe.exists() else "other files"
        raise LlavakitError(
            f"run folder {path} holds {what} already and is never overwritten: "
            + ("go on with that run by --resume, or " if what == "a run" else "")
            + "name another folder by --out"
        )
    if resume and not path.exists():
        raise LlavakitError(f"run folder {path}: there is no run to resume; begin one without --resume")
    if resume and held and not folder.recipe.exists():
        raise LlavakitError(f"run folder {path} is not the folder of a run: it holds no recipe.yaml")
    path.mkdir(parents=True, exist_ok=True)
    remove_partial(path)
    if folder.recipe.exists():
        _refuse_changes(folder.recipe, recipe)
    else:
        write_text(folder.recipe, recipe.to_yaml())
    if (path / "manifest.json").exists():
        folder.manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    for part in () if folder.finished else (folder.states, folder.checkpoints, folder.indexes):
        part.mkdir(exist_ok=True)
        remove_partial(part)
    if folder.finished:
        remove_partial(folder.states)
    return folder


def _refuse_changes(path: Path, recipe: Recipe) -> None:
    began = load_recipe(str(path)).model_dump(mode="json")
    changed = [key for key in changed_keys(began, recipe.model_dump(mode="json")) if key not in HARMLESS]
    if changed:
        keys = ", ".join(changed[:8]) + (f" and {len(changed) - 8} more" if len(changed) > 8 else "")
        raise LlavakitError(
            f"run {path.parent} began with another recipe: {keys} differ from its recipe.yaml; "
            "resume with the same recipe, or begin a run in another folder"
        )


def changed_keys(one: Any, other: Any, key: str = "") -> list[str]:
    """Dotted keys at which two plain trees differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = list(dict.fromkeys([*one, *other]))
        parts = [(name, one.get(name), other.get(name)) for name in names]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        parts = [(str(i), a, b) for i, (a, b) in enumerate(zip(one, other, strict=True))]
    else:
        return [] if one == other else [key]
    return [found for name, a, b in parts for found in changed_keys(a, b, f"{key}.{name}" if key else name)]


def describe_machine(device: str, precision: str, threads: int, lora: bool) -> dict[str, Any]:
    """What a run's numbers depend on besides recipe and data; `lora`: on the package peft too."""
    libraries = ["torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow", *["peft"] * lora]
    return {
        "versions": {
            "llavakit": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in libraries},
        },
        "device": device,
        "precision": precision,
        "threads": threads,
    }


def now() -> str:
    """The moment, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
