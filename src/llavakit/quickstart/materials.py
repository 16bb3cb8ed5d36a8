"""The quickstart's files: pictures, COCO-style annotations, LLaVA JSON for both stages, and the examination.

Everything that the training reads is written to disk in the formats that real projects use, so a person can open each
step. Training scenes never hold a held-out pair of object and colour; half of the examination's scenes do.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from llavakit.data.readers.llava import write_llava
from llavakit.evaluation.benchmark import Question
from llavakit.evaluation.benchmarks import own
from llavakit.quickstart import questions
from llavakit.quickstart.scenes import COLOURS, NAMES, NUMBERS, PICTURE_SIZE, Scene, captions, paint, scenes
from llavakit.quickstart.teacher import RuleTeacher, rule_kinds
from llavakit.synthesis.annotations import read_annotations
from llavakit.synthesis.generate import Rejected, generate
from llavakit.synthesis.kinds import DETAIL_QUESTIONS
from llavakit.synthesis.tasks import caption_pairs

TASKS = {
    "presence": questions.presence,
    "colour": questions.colour,
    "counting": questions.counting,
    "relation": questions.relation,
}


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of everything: pictures for training, for validation, and questions a task in the examination."""

    training: int = 2000
    validation: int = 100
    questions: int = 240


@dataclass(frozen=True, slots=True)
class Materials:
    folder: Path
    rejected: tuple[Rejected, ...]
    exam: tuple[Question, ...]


def make_materials(folder: Path, amounts: Amounts, seed: int) -> Materials:
    """Draw, annotate and ask the teacher; write everything below `folder`."""
    rejected: list[Rejected] = []
    for part, count in (("training", amounts.training), ("validation", amounts.validation)):
        annotate(folder, part, scenes(f"{seed}/{part}", count))
        pictures = read_annotations(
            [folder / f"captions_{part}.json", folder / f"instances_{part}.json"]
        ).pictures
        answers = generate(pictures, rule_kinds(), RuleTeacher(), seed=seed)
        rejected += answers.rejected
        write_llava(answers.conversations, folder / f"instruct_{part}.json")
        pairs = caption_pairs(pictures, seed=seed, questions=DETAIL_QUESTIONS[:2])
        write_llava(pairs, folder / f"align_{part}.json")
    return Materials(folder, tuple(rejected), tuple(write_exam(folder, amounts.questions, seed)))


def annotate(folder: Path, part: str, drawn: Iterable[tuple[Scene, random.Random]]) -> None:
    """Save the pictures below `folder/part` and their annotations as COCO's two files."""
    (folder / part).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    written: list[dict[str, Any]] = []
    boxed: list[dict[str, Any]] = []
    for number, (scene, rng) in enumerate(drawn):
        name = f"{part}/{number:06d}.png"
        Image.fromarray(paint(scene)).save(folder / name)
        images.append({"id": number, "file_name": name, "width": PICTURE_SIZE, "height": PICTURE_SIZE})
        for text in captions(scene, rng):
            written.append({"id": len(written), "image_id": number, "caption": text})
        for thing in scene.things:
            category, bbox = NAMES.index(thing.name) + 1, list(thing.box)
            boxed.append({
                "id": len(boxed), "image_id": number, "category_id": category, "bbox": bbox,
                "area": bbox[2] * bbox[3], "iscrowd": 0,
            })  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)]
    _dump(folder / f"captions_{part}.json", {"images": images, "annotations": written})
    _dump(
        folder / f"instances_{part}.json", {"images": images, "annotations": boxed, "categories": categories}
    )


def write_exam(folder: Path, each: int, seed: int) -> list[Question]:
    """`each` questions a task about scenes that no training saw, every second one about a held-out pair; written as the
    benchmark `own` reads them.

    Answers are balanced: presence and relation half yes half no, counting the same number of every answer.
    """
    (folder / "exam").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for task, write in TASKS.items():
        for novel in (False, True):
            wanted = balance(task, each // 2)
            for scene, rng in scenes(f"{seed}/exam/{task}/{novel}", 80 * each, novel=novel):
                asked = write(scene.things, rng)
                if (
                    asked is None
                    or not wanted.get(asked[1], 0)
                    or (novel and not concerns(scene, task, asked[0]))
                ):
                    continue
                wanted[asked[1]] -= 1
                name = f"exam/{task}-{len(rows):05d}.png"
                Image.fromarray(paint(scene)).save(folder / name)
                question, answer = asked
                rows.append({
                    "task": task, "image": name, "question": question, "answer": answer, "held_out_pair": novel,
                })  # fmt: skip
                if not any(wanted.values()):
                    break
    (folder / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return own.read(folder, "as written")


def concerns(scene: Scene, task: str, question: str) -> bool:
    """Whether a question about colour names the thing of the held-out pair; other tasks need it only in the scene."""
    return task != "colour" or scene.things[0].name in re.findall(r"\w+", question)


def balance(task: str, number: int) -> dict[str, int]:
    """How many questions are wanted for every answer."""
    answers = {
        "presence": ("Yes", "No"),
        "relation": ("Yes", "No"),
        "counting": NUMBERS[1:],
        "colour": tuple(COLOURS),
    }
    return {answer: number // len(answers[task]) for answer in answers[task]}


def _dump(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), "utf-8")
