"""CHAIR: descriptions of COCO's val2014 pictures, by the objects they name that are not there.

CHAIR_s is the percentage of descriptions that name such an object, CHAIR_i that of namings that are of one: of both
less is better. The headline is the other side, the percentage of descriptions without any, so that more is better here
as everywhere. A description that says little invents little, so that recall, objects and words stand beside: a text
without any object is faultless by the rule, and counted by a note.

Which words name which object is llavakit's own (`scoring.chair`), and papers draw their pictures by chance, so that no
published number stands beside these.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Benchmark, Figures, NeededFile, Question, Variant, Verdict
from llavakit.evaluation.benchmarks import llava_bench
from llavakit.evaluation.pictures import InFile
from llavakit.evaluation.reading import field, first_found, with_unique_ids
from llavakit.evaluation.scoring.chair import Named, There, objects_named, objects_there
from llavakit.evaluation.scoring.shares import share
from llavakit.synthesis.annotations.files import read_file
from llavakit.synthesis.quality.text import words

DRAWN = 500
"""Pictures of the benchmark `chair`: those whose ids have the lowest SHA-256, the same for everyone."""

_PROMPTS = {
    "long": "Please describe this image in detail.",
    "short": "Provide a one-sentence caption for the provided image.",
}
_FROM = "http://images.cocodataset.org/annotations/annotations_trainval2014.zip"
BOXES = NeededFile("annotations/instances_val2014.json", _FROM, "158 MB")
CAPTIONS = NeededFile("annotations/captions_val2014.json", _FROM, "32 MB")
SMALL = llava_bench.COCO["context"]
PICTURES = llava_bench.COCO["pictures"]

_NAME = re.compile(r"(?:COCO_val2014_)?(\d{12})(?:\.jpg)?")


def read(drawn: int | None, folder: Path, variant: str) -> list[Question]:
    """The pictures that both official files list. drawn: how many of them, None for all in the file's order."""
    boxes, captions = first_found(folder, BOXES)[1][0], first_found(folder, CAPTIONS)[1][0]
    boxed = _official(boxes, "category_id")
    told = _official(captions, "caption")
    if lacking := [number for number in boxed if not told.get(number)]:
        raise LlavakitError(
            f"{captions} has no caption of picture {lacking[0]}, which {boxes.name} lists: fetch both again"
        )
    numbers = list(boxed)
    if drawn is not None:
        numbers = sorted(numbers, key=lambda number: hashlib.sha256(str(number).encode()).digest())[:drawn]
    questions = [_question(folder, variant, number, boxed[number], told[number]) for number in numbers]
    return with_unique_ids(questions, boxes)


def _official(path: Path, name: str) -> dict[int, list[str]]:
    """What COCO's file says of every picture it lists, in its order: captions, or the categories of boxes by name."""
    data: Any = read_file(path).data
    if not isinstance(data, Mapping):
        raise LlavakitError(f"{path} is not COCO's file of val2014: fetch it again")
    found: dict[int, list[str]] = {int(field(image, "id", path)): [] for image in field(data, "images", path)}
    categories = {field(one, "id", path): str(field(one, "name", path)) for one in data.get("categories", ())}
    for row in field(data, "annotations", path):
        number, value = int(field(row, "image_id", path)), field(row, name, path)
        if number not in found:
            raise LlavakitError(f"{path} tells of picture {number} and does not list it: fetch it again")
        found[number].append(str(value) if name == "caption" else str(field(categories, value, path)))
    return found


def read_small(folder: Path, variant: str) -> list[Question]:
    """The 80 pictures of LLaVA-Bench (COCO), with the captions and boxes of LLaVA's own file."""
    path = first_found(folder, SMALL)[1][0]
    questions = []
    for row in read_file(path).data:
        boxed = [str(field(one, "category", path)) for one in field(row, "instances", path)]
        captions = [str(one) for one in field(row, "captions", path)]
        questions.append(_question(folder, variant, _number(field(row, "image", path)), boxed, captions))
    return with_unique_ids(questions, path)


def _question(
    folder: Path, variant: str, number: int, boxed: Sequence[str], captions: Sequence[str]
) -> Question:
    there = objects_there(boxed, captions)
    picture = InFile(folder / PICTURES.path / f"COCO_val2014_{number:012d}.jpg")
    truth = {"sure": list(there.sure), "perhaps": list(there.perhaps)}
    return Question(str(number), (picture,), _PROMPTS[variant], truth)


def answer_id(row: Mapping[str, Any]) -> str:
    """The picture's number: under `image_id` as CHAIR's tool has it, else under an id, else by the picture's name."""
    for name in ("image_id", "question_id", "id", "image"):
        if name in row:
            return str(_number(row[name]))
    raise KeyError("image_id")


def _number(name: object) -> int:
    if isinstance(name, int) and not isinstance(name, bool):
        return name
    if isinstance(name, str) and name.isdecimal():
        return int(name)
    if found := _NAME.fullmatch(str(name)):
        return int(found[1])
    raise ValueError(f"{name!r} is no picture of COCO")


def mark(question: Question, answer: str) -> Verdict:
    """Credit for a description that names nothing which is not there."""
    named = _named(question, answer)
    note = "an object that is not there" if named.invented else "" if named.said else "no object named"
    facts = {
        "said": len(named.said),
        "invented": list(named.invented),
        "found": len(named.found),
        "there": len(question.truth["sure"]),
        "words": len(words(answer)),
        "set apart": named.set_apart,
    }
    return Verdict(question, ", ".join(named.said), float(not named.invented), note, facts)


def _named(question: Question, answer: str, *, every: bool = False) -> Named:
    there = There(tuple(question.truth["sure"]), tuple(question.truth["perhaps"]))
    return objects_named(answer, there, every=every)


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Both CHAIRs, and how much the descriptions say, a description on average: words, namings, objects found.

    recall: of the objects that are in all pictures, the percentage that is named. set apart: namings under a negation
    or a guess.
    """
    count = len(verdicts)
    if not count:
        return dict.fromkeys(("without hallucination", "CHAIR_s", "CHAIR_i", "recall"), math.nan)
    free = 100 * sum(verdict.credit for verdict in verdicts) / count

    def total(name: str) -> int:
        return sum(verdict.facts[name] for verdict in verdicts)

    invented = sum(len(verdict.facts["invented"]) for verdict in verdicts)
    return {
        "without hallucination": free,
        "CHAIR_s": 100 - free,
        "CHAIR_i": share(invented, total("said")),
        "recall": share(total("found"), total("there")),
        "words": total("words") / count,
        "namings": total("said") / count,
        "namings set apart": total("set apart") / count,
    }


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """Both CHAIRs where denied and guessed namings count, as the paper's tool counts them; by the same words."""
    named = [_named(question, answers.get(question.id, ""), every=True) for question in questions]
    tool = "counting as CHAIR's tool, denied and guessed too"
    return {
        f"{tool}: CHAIR_s": share(sum(bool(one.invented) for one in named), len(named)),
        f"{tool}: CHAIR_i": share(
            sum(len(one.invented) for one in named), sum(len(one.said) for one in named)
        ),
    }


def _benchmarks() -> Iterator[Benchmark]:
    official = (BOXES, CAPTIONS, PICTURES)
    sets = (
        ("chair", f"CHAIR, {DRAWN} pictures of COCO val2014", official, partial(read, DRAWN)),
        ("chair_all", "CHAIR, all pictures of COCO val2014", official, partial(read, None)),
        ("chair_80", "CHAIR, the 80 pictures of LLaVA-Bench (COCO)", (SMALL, PICTURES), read_small),
    )
    for name, title, files, reader in sets:
        yield Benchmark(
            name=name,
            title=title,
            files=files,
            variants=(
                Variant("long", "llavakit's words, described in detail"),
                Variant("short", "llavakit's words, one sentence"),
            ),
            read=reader,
            mark=mark,
            summarise=summarise,
            headline="without hallucination",
            max_new_tokens=512,
            others=others,
            answer_id=answer_id,
        )


BENCHMARKS = tuple(_benchmarks())
