"""The forms in which a model can be written for others, by name, and how each is checked.

A form is a function that writes and the comparisons that can follow; a further form is one more entry of FORMS.

Knows models and folders. Does not print.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llavakit.checkpoints import hf
from llavakit.checkpoints.files import CheckpointError
from llavakit.errors import LlavakitError
from llavakit.model.llava import Llava
from llavakit.model.parity import Comparison, compare_reopened, compare_stock
from llavakit.model.saving import save, why_not_stock
from llavakit.model.saving_original import save_original


@dataclass(frozen=True)
class Form:
    """write(model, target, tower's name): raises CheckpointError for what the form cannot express.
    checks(model, target, vision_tower): compares what was written with the model; empty where nothing can be."""

    write: Callable[[Llava, Path, str | None], None]
    checks: Callable[[Llava, Path, str | None], Iterator[Comparison]]


def _write_hf(model: Llava, target: Path, tower_name: str | None) -> None:
    if tower_name is not None:
        raise LlavakitError(
            f"the tower's name is {tower_name}, but this form has no place for it; leave it out"
        )
    reason = why_not_stock(model)
    if reason is not None:
        classes = " and ".join(hf.ARCHITECTURES.values())
        raise CheckpointError(f"{target}: {classes} cannot express this model: {reason}")
    save(model, target)


def _check_hf(model: Llava, target: Path, vision_tower: str | None) -> Iterator[Comparison]:
    yield compare_reopened(model, target)
    yield compare_stock(model, target)


def _write_original(model: Llava, target: Path, tower_name: str | None) -> None:
    save_original(model, target, vision_tower=tower_name)


def _check_original(model: Llava, target: Path, vision_tower: str | None) -> Iterator[Comparison]:
    yield compare_reopened(model, target, vision_tower)


FORMS = {
    "hf": Form(_write_hf, _check_hf),
    "original": Form(_write_original, _check_original),
}


def form(name: str) -> Form:
    """The form of this name; raises LlavakitError, naming those there are, for any other."""
    if name not in FORMS:
        raise LlavakitError(f"there is no form {name!r} to export to; expected one of {', '.join(FORMS)}")
    return FORMS[name]


def check_target(target: Path, force: bool) -> None:
    """Raises LlavakitError when something stands at `target` that would be replaced, unless that is wanted."""
    if not force and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise LlavakitError(f"{target}: something is there; give another target, or --force to replace it")
