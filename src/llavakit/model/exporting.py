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
from llavakit.model.gguf_export import export_gguf
from llavakit.model.llava import Llava
from llavakit.model.parity import Comparison, compare_reopened, compare_stock
from llavakit.model.saving import save, why_not_stock
from llavakit.model.saving_original import save_original


@dataclass(frozen=True)
class Wishes:
    """What a form may be asked for beside the model; a form refuses what it has no place for.

    tower_name: the name to record for the tower. outtype: the numbers of a GGUF file. despite_clip: write a CLIP tower
    for llama.cpp, which computes it wrongly.
    """

    tower_name: str | None = None
    outtype: str | None = None
    despite_clip: bool = False


@dataclass(frozen=True)
class Form:
    """write(model, target, wishes): returns what the reader of the target should know, a sentence each; raises
    LlavakitError for what the form cannot express. checks(model, target, vision_tower): compares what was written with
    the model; None where nothing here reads the form."""

    write: Callable[[Llava, Path, Wishes], tuple[str, ...]]
    checks: Callable[[Llava, Path, str | None], Iterator[Comparison]] | None


def _write_hf(model: Llava, target: Path, wishes: Wishes) -> tuple[str, ...]:
    _no_place(wishes, "tower_name", "outtype", "despite_clip")
    reason = why_not_stock(model)
    if reason is not None:
        classes = " and ".join(hf.ARCHITECTURES.values())
        raise CheckpointError(f"{target}: {classes} cannot express this model: {reason}")
    save(model, target)
    return ()


def _check_hf(model: Llava, target: Path, vision_tower: str | None) -> Iterator[Comparison]:
    yield compare_reopened(model, target)
    yield compare_stock(model, target)


def _write_original(model: Llava, target: Path, wishes: Wishes) -> tuple[str, ...]:
    _no_place(wishes, "outtype", "despite_clip")
    save_original(model, target, vision_tower=wishes.tower_name)
    return ()


def _check_original(model: Llava, target: Path, vision_tower: str | None) -> Iterator[Comparison]:
    yield compare_reopened(model, target, vision_tower)


def _write_gguf(model: Llava, target: Path, wishes: Wishes) -> tuple[str, ...]:
    _no_place(wishes, "tower_name")
    written = export_gguf(model, target, target.name, wishes.outtype or "f16", wishes.despite_clip)
    return written.notes


def _no_place(wishes: Wishes, *names: str) -> None:
    for name in names:
        value = getattr(wishes, name)
        if value:
            option = "--" + name.replace("_", "-")
            raise LlavakitError(f"{option} is {value}, but this form has no place for it; leave it out")


FORMS = {
    "hf": Form(_write_hf, _check_hf),
    "original": Form(_write_original, _check_original),
    "gguf": Form(_write_gguf, None),
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
