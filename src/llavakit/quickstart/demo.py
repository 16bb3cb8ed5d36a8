"""The demonstration: draw, ask the teacher, align, tune, examine, and say what each part was worth.

Both stages run through the same trainer as any user's recipe. The examination is held on scenes that no training saw,
with the picture shown, hidden and exchanged, after the first stage alone, and after the second without the first.

This room puts the others together. What is drawn is in `scenes`, what is asked in `questions`, what is shown in `page`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llavakit import training
from llavakit.errors import LlavakitError
from llavakit.evaluation.asked import Asking
from llavakit.evaluation.benchmark import Verdict
from llavakit.evaluation.marking import categories
from llavakit.evaluation.page import write_report
from llavakit.evaluation.provenance import Hashes
from llavakit.evaluation.results import Scored, write_results
from llavakit.evaluation.running import run_benchmark
from llavakit.model.llava import Llava
from llavakit.quickstart.materials import Amounts, Materials, make_materials
from llavakit.recipe import Recipe, load_recipe
from llavakit.training.events import Listener, nobody

USUAL = Amounts()
NEW_TOKENS = 12
SHORT = Amounts(training=60, validation=8, questions=16)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything the report is made from."""

    folder: Path
    materials: Materials
    examined: dict[str, Scored]
    runs: dict[str, training.RunResult]
    checkpoint: Path
    seconds: dict[str, float]

    def picture_of(self, task: str) -> Path:
        """The picture of the examination's first question of a task."""
        rows = (self.materials.folder / "exam.jsonl").read_text("utf-8").splitlines()
        first = next(row for row in map(json.loads, rows) if row["task"] == task)
        return self.materials.folder / str(first["image"])

    def results(self) -> dict[str, Any]:
        """What `results.json` holds: fractions right a task under every heading, and the seconds the whole took."""
        verdicts = self.examined["scores"].marked.verdicts
        return {
            **{heading: shares(found.marked.verdicts) for heading, found in self.examined.items()},
            "held_out_pairs": shares(one for one in verdicts if one.question.meta["held_out_pair"]),
            "questions": {task: number for task, (_, number) in categories(verdicts).items()},
            "seconds": round(sum(self.seconds.values()), 1),
            "seconds_each": {name: round(value, 1) for name, value in self.seconds.items()},
            "threads": torch.get_num_threads(),
        }


def run_demo(
    folder: Path,
    *,
    amounts: Amounts = USUAL,
    seed: int = 0,
    overrides: Sequence[str] = (),
    listener: Listener = nobody,
    chapter: Callable[[str], None] = lambda title: None,
) -> Outcome:
    """Run the whole demonstration below `folder` and write `results.json`.

    Args:
        overrides: dotted changes to the packaged recipe `quickstart`.
        listener: hears both trainings. chapter: is told the title of every part as it begins.

    Raises:
        LlavakitError: `folder` holds something already, or a part fails with the user's settings.
    """
    if folder.exists() and any(folder.iterdir()):
        raise LlavakitError(f"{folder} is not empty; remove it or choose another folder with --out.")
    seconds: dict[str, float] = {}
    clock = _Clock(seconds)
    chapter("Drawing scenes and asking the teacher about them")
    materials = make_materials(folder / "materials", amounts, seed)
    recipe = recipe_for(folder / "materials", seed, overrides)
    clock.lap("materials")
    chapter("Stage 1 aligns the projector, stage 2 tunes on instructions")
    whole = training.run(recipe, folder / "run", listener, indexes=folder / "indexes")
    clock.lap("both stages")
    chapter("Stage 2 again without stage 1, to see what stage 1 is worth")
    alone = training.run(
        recipe.model_copy(update={"stages": recipe.stages[1:]}), folder / "run_no_stage1", listener
    )
    clock.lap("without stage 1")
    chapter("Examining on scenes never trained on")
    tuned, out = whole.checkpoints[-1], folder / "evaluation"
    examined = {
        heading: examine(checkpoint, materials.folder, out / heading, condition)
        for heading, checkpoint, condition in (
            ("scores", tuned, "shown"),
            ("blind", tuned, "blind"),
            ("shuffled", tuned, "shuffled"),
            ("stage1_only", whole.checkpoints[0], "shown"),
            ("no_stage1", alone.checkpoints[-1], "shown"),
        )
    }
    clock.lap("examination")
    runs = {"with stage 1": whole, "without stage 1": alone}
    outcome = Outcome(folder, materials, examined, runs, whole.checkpoints[-1], seconds)
    (folder / "results.json").write_text(json.dumps(outcome.results(), indent=1) + "\n", "utf-8")
    return outcome


def recipe_for(materials: Path, seed: int, overrides: Sequence[str]) -> Recipe:
    """The packaged recipe with this folder's files in the place of its own."""
    paths = [f"seed={seed}"]
    for stage, name in enumerate(("align", "instruct")):
        for key, part in (
            (f"stages.{stage}.data.0", "training"),
            (f"stages.{stage}.validation.data.0", "validation"),
        ):
            paths += [f"{key}.path={materials / f'{name}_{part}.json'}", f"{key}.images={materials}"]
    return load_recipe("quickstart", [*paths, *overrides])


def examine(checkpoint: Path, materials: Path, out: Path, condition: str = "shown") -> Scored:
    """The examination as `llavakit eval` holds it, with answers, results, intervals and a page in `out`."""
    hashes = Hashes()
    hashed = hashes.model(checkpoint)
    asking = Asking(condition, max_new_tokens=NEW_TOKENS, batch=128)
    model = Llava.from_pretrained(checkpoint)
    found = run_benchmark(model, hashed, "own", materials, out, asking, hashes=hashes)
    assert found is not None, "a single process scores what it asked"
    hashes.save()
    answered_by = {"model": str(checkpoint), "hash": hashed}
    write_report(out, answered_by, [found])
    write_results(out, answered_by, [found])
    return found


def shares(verdicts: Iterable[Verdict]) -> dict[str, float]:
    """The fraction of right answers a task."""
    return {task: round(mean / 100, 4) for task, (mean, _) in categories(list(verdicts)).items()}


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.since = seconds, time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name], self.since = now - self.since, now
