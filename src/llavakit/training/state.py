"""The state of a run, saved whole, so that it can go on from there.

What lives here: saving, finding, pruning and loading states. A state is a folder with `state.safetensors` (all weights
that have trained so far in the run, AdamW's moments) and `state.json` (which stage, which step). With the
recipe and the data it says everything: the plan, and all that a step draws at random, are pure functions of them. It
knows tensors by name; it does not know what a step does. Opening a state runs no code from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llavakit.errors import LlavakitError
from llavakit.model.llava import Llava
from llavakit.training.durable import remove_folder, whole_folder, write_json
from llavakit.training.optimizer import Learner, kept_parameters, kept_tensors, to_float32

FORMAT = 1
KEPT = 2
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True, slots=True)
class SavedState:
    """A state on the disk: `step` steps of stage `stage` (from 1) are done.

    trained: what it holds the weights of, names of parts or `ADAPTERS`.
    """

    folder: Path
    stage: int
    stage_name: str
    step: int
    trained: tuple[str, ...]


def save_state(
    folder: Path,
    model: Llava,
    learner: Learner | None,
    *,
    stage: int,
    stage_name: str,
    step: int,
    trained: tuple[str, ...],
) -> SavedState:
    """Saves a state under `folder`, whole or not at all, and deletes all but the last states.

    learner: None at the end of a stage, whose optimizer is not needed any more.
    """
    place = folder / f"{stage}-{stage_name}-{step:07d}"
    saved = SavedState(place, stage, stage_name, step, trained)
    if not place.exists():
        tensors = {f"weights/{name}": tensor for name, tensor in kept_tensors(model, trained)}
        if learner is not None:
            tensors |= _moments(learner)
        with whole_folder(place) as partial:
            save_file(
                {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial / "state.safetensors"
            )
            write_json(
                partial / "state.json",
                {
                    "format": FORMAT,
                    "stage": stage,
                    "stage_name": stage_name,
                    "step": step,
                    "trained": list(trained),
                },
            )
    for old in sorted(_states(folder), key=lambda one: (one.stage, one.step))[:-KEPT]:
        remove_folder(old.folder)
    return saved


def latest_state(folder: Path) -> SavedState | None:
    """The state that is furthest on, if there is any."""
    return max(_states(folder), key=lambda one: (one.stage, one.step), default=None)


def _states(folder: Path) -> list[SavedState]:
    states = []
    for path in folder.glob("[0-9]*/state.json") if folder.is_dir() else ():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, expected {FORMAT}")
            states.append(
                SavedState(
                    path.parent,
                    content["stage"],
                    content["stage_name"],
                    content["step"],
                    tuple(content["trained"]),
                )
            )
        except (OSError, ValueError, KeyError) as error:
            raise LlavakitError(
                f"saved state {path.parent}: {error}; delete that folder to go on from the state before it"
            ) from error
    return states


def load_weights(saved: SavedState, model: Llava) -> None:
    """Puts a state's weights into the model. Raises LlavakitError when they are not the model's."""
    for part in saved.trained:
        to_float32(kept_parameters(model, part).values())
    tensors = _read(saved, "weights/")
    own = dict(kept_tensors(model, saved.trained))
    if own.keys() != tensors.keys():
        odd = sorted(own.keys() ^ tensors.keys())[0]
        raise LlavakitError(
            f"saved state {saved.folder}: the model and the state differ at {odd}; "
            "was a part of the model replaced since the run began?"
        )
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise LlavakitError(
                f"saved state {saved.folder}: {name} has shape {list(tensors[name].shape)}, "
                f"the model expects {list(tensor.shape)}; was a part of the model replaced since the run began?"
            )
        tensor.copy_(tensors[name])


def load_learner(saved: SavedState, learner: Learner) -> None:
    """Puts a state's AdamW moments into the optimizer."""
    moments = _read(saved, "optimizer/")
    known: dict[int, dict[str, Tensor]] = {}
    for number, name in enumerate(learner.names):
        own = {kind: moments[f"{name}/{kind}"] for kind in MOMENTS if f"{name}/{kind}" in moments}
        if own:
            known[number] = own
    groups = learner.optimizer.state_dict()["param_groups"]
    learner.optimizer.load_state_dict({"state": known, "param_groups": groups})


def _moments(learner: Learner) -> dict[str, Tensor]:
    state = learner.optimizer.state_dict()["state"]
    return {
        f"optimizer/{learner.names[number]}/{kind}": own[kind]
        for number, own in state.items()
        for kind in MOMENTS
    }


def _read(saved: SavedState, prefix: str) -> dict[str, Tensor]:
    path = saved.folder / "state.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise LlavakitError(
            f"saved state {path}: {error}; delete the folder {saved.folder} to go on from the state before it"
        ) from error
