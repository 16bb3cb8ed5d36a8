"""The demonstration: draw, ask the teacher, align, tune, examine, and say what each part was worth.

Both stages run through the same trainer as any user's recipe. The examination is held on scenes that no training saw,
with the picture shown, hidden and exchanged, after the first stage alone, and after the second without the first.

This room puts the others together. What is drawn is in `scenes`, what is asked in `questions`, what is shown in `page`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from llavakit import training
from llavakit.conversation.record import Conversation, Picture, Text, Turn
from llavakit.conversation.templates import get_template
from llavakit.conversation.tokenize import encode
from llavakit.errors import LlavakitError
from llavakit.evaluation.asked import Asking
from llavakit.evaluation.exam import Ask, Condition, Question, Score, fractions, put, score
from llavakit.evaluation.page import write_report
from llavakit.evaluation.provenance import Hashes
from llavakit.evaluation.results import write_results
from llavakit.evaluation.running import run_benchmark
from llavakit.images.pixels import open_picture
from llavakit.model.generation import Request, generate
from llavakit.model.llava import Llava
from llavakit.quickstart.materials import Amounts, Materials, make_materials
from llavakit.recipe import Recipe, load_recipe
from llavakit.training.events import Listener, nobody

USUAL = Amounts()
NEW_TOKENS = 12
SHORT = Amounts(training=60, validation=8, questions=16)
CONDITIONS: dict[str, Condition] = {"blind": "hidden", "shuffled": "shuffled"}


@dataclass(frozen=True, slots=True)
class Examined:
    """One model under one condition: its answers in the order of the exam, and their scores a task."""

    answers: tuple[str, ...]
    scores: dict[str, Score]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything the report is made from."""

    folder: Path
    materials: Materials
    examined: dict[str, Examined]
    runs: dict[str, training.RunResult]
    checkpoint: Path
    seconds: dict[str, float]

    def results(self) -> dict[str, Any]:
        """What `results.json` holds: fractions right a task under every heading, and the seconds the whole took."""
        exam = self.materials.exam
        apart = [place for place, question in enumerate(exam) if question.held_out_pair]
        answers = self.examined["scores"].answers
        held_out = score([exam[place] for place in apart], [answers[place] for place in apart])
        return {
            **{heading: fractions(found.scores) for heading, found in self.examined.items()},
            "held_out_pairs": fractions(held_out),
            "questions": {task: found.total for task, found in self.examined["scores"].scores.items()},
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
    tuned = Llava.from_pretrained(whole.checkpoints[-1])
    examined = {"scores": evaluate(tuned, whole.checkpoints[-1], folder, materials.exam)}
    for heading, condition in CONDITIONS.items():
        examined[heading] = examine(tuned, materials.exam, condition)
    examined["stage1_only"] = examine(Llava.from_pretrained(whole.checkpoints[0]), materials.exam, "shown")
    examined["no_stage1"] = examine(Llava.from_pretrained(alone.checkpoints[-1]), materials.exam, "shown")
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


def evaluate(model: Llava, checkpoint: Path, folder: Path, exam: Sequence[Question]) -> Examined:
    """The examination as `llavakit eval` holds it, with results, intervals and a page below `evaluation`."""
    hashes, out = Hashes(), folder / "evaluation"
    hashed = hashes.model(checkpoint)
    asking = Asking(max_new_tokens=NEW_TOKENS, batch=128)
    found = run_benchmark(model, hashed, "own", folder / "materials", out, asking, hashes=hashes)
    assert found is not None, "a single process scores what it asked"
    hashes.save()
    answered_by = {"model": str(checkpoint), "hash": hashed}
    write_report(out, answered_by, [found])
    write_results(out, answered_by, [found])
    answers = tuple(found.answers[question.id] for question in found.questions)
    return Examined(answers, score(exam, answers))


def examine(model: Llava, exam: Sequence[Question], condition: Condition) -> Examined:
    answers = put(exam, condition, asker(model))
    return Examined(tuple(answers), score(exam, answers))


def asker(model: Llava) -> Ask:
    """The model as something that answers (question, picture file or None) pairs, greedily and briefly."""

    template = get_template(model.settings.template, model.tokenizer)
    opened: dict[str, Image.Image] = {}

    def request(question: str, file: str | None) -> Request:
        if file is not None and file not in opened:
            opened[file] = open_picture(Path(file))
        pictures = [opened[file]] if file is not None else []
        parts = (Picture(0), Text("\n" + question)) if pictures else (Text(question),)
        asked = Conversation("exam", "", tuple(filter(None, [file])), (Turn("user", parts),))
        lengths = [model.image_length(*picture.size, len(pictures)) for picture in pictures]
        return Request(encode(asked, template, model.tokenizer, lengths, prompt=True), pictures)

    def ask(pairs: Sequence[tuple[str, str | None]]) -> list[str]:
        return generate(model, [request(*pair) for pair in pairs], max_new_tokens=NEW_TOKENS)

    return ask


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.since = seconds, time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name], self.since = now - self.since, now
