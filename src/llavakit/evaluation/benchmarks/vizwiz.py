"""VizWiz-VQA: questions that blind people asked about their own photos, many of which cannot be answered.

LLaVA reports the test server (EvalAI 2185): this writes the file that it takes. Val's truth is public and scored here,
by soft accuracy over ten people's answers; "unanswerable" is an answer like any other. Saved answers name a question by
its picture, or by its place in the official file, as LLaVA's do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import (
    Benchmark,
    Figures,
    NeededFile,
    Published,
    Question,
    Variant,
    Verdict,
)
from llavakit.evaluation.pictures import InFile, InParquet, PictureSource
from llavakit.evaluation.placed import PLACE
from llavakit.evaluation.reading import (
    field,
    first_found,
    read_json,
    read_parquet,
    text_field,
    texts_field,
    with_unique_ids,
)
from llavakit.evaluation.scoring.shares import mean_credit
from llavakit.evaluation.scoring.vqa_accuracy import m4c, m4c_accuracy, official_accuracy
from llavakit.evaluation.wording import SHORT
from llavakit.evaluation.writing import write_whole

_UNSURE = "When the provided information is insufficient, respond with 'Unanswerable'."
_FROM = "https://vizwiz.org/tasks-and-datasets/vqa"
SPLITS = {
    split: NeededFile(f"Annotations/{split}.json", f"{_FROM}, Annotations.zip", size)
    for split, size in (("val", "6 MB"), ("test", "1 MB"))
}
PICTURES = {
    "val": NeededFile("val", f"{_FROM}, val.zip", "1.6 GB", required=False),
    "test": NeededFile("test", f"{_FROM}, test.zip", "3.1 GB", required=False),
}
_COPY = "https://huggingface.co/datasets/lmms-lab-encoder/VizWiz-VQA"
COPIES = {
    "val": NeededFile("data/val-*.parquet", _COPY, "2.1 GB with pictures", required=False),
    "test": NeededFile("data/test-*.parquet", _COPY, "4.0 GB with pictures", required=False),
}


def read(split: str, folder: Path, variant: str) -> list[Question]:
    """The questions of a split, known by their picture; a question begins with a capital and goes on in lower case."""
    way, paths = first_found(folder, SPLITS[split], COPIES[split])
    copied = way is COPIES[split]
    rows = _from_copy(paths) if copied else _from_file(paths[0], folder / PICTURES[split].path)
    questions = []
    for place, (image, row, truth, picture) in enumerate(rows):
        if split == "val" and not truth:
            raise LlavakitError(f"{paths[0]}: {image} has no answers; download it again")
        asked = text_field(row, "question", paths[0]).strip().capitalize()
        category = str(row.get("category" if copied else "answer_type") or "")
        # the copy's order is its own, so its places say nothing
        meta = {} if copied else {PLACE: place}
        prompt = f"{asked}\n{_UNSURE}\n{SHORT}"
        questions.append(Question(image, (picture,), prompt, truth or None, category=category, meta=meta))
    return with_unique_ids(questions, paths[0])


_Row = tuple[str, Mapping[str, Any], list[str], PictureSource]
"""The picture's name, the row, people's answers, the picture."""


def _from_file(path: Path, pictures: Path) -> Iterator[_Row]:
    for row in read_json(path):
        image = str(field(row, "image", path))
        yield (
            image,
            row,
            [text_field(one, "answer", path) for one in row.get("answers") or ()],
            InFile(pictures / image),
        )


def _from_copy(paths: Sequence[Path]) -> Iterator[_Row]:
    for row in read_parquet(paths):
        image = f"{str(field(row.values, 'question_id', row.path)).removesuffix('.jpg')}.jpg"
        answers = texts_field(row.values, "answers", row.path) if row.values.get("answers") else []
        yield image, row.values, answers, InParquet(row.path, row.row, "image")


def mark(question: Question, answer: str) -> Verdict:
    """Soft accuracy of what is uploaded, by the rule of the server; an answer for test gets none here."""
    said = m4c(answer)
    if question.truth is None:
        return Verdict(question, said, math.nan, "the truth is on a server")
    return Verdict(question, said, official_accuracy(said, question.truth))


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent of all, and by type of answer."""
    figures = {"accuracy": mean_credit(verdicts)}
    for name in sorted({v.question.category for v in verdicts} - {""}):
        figures[name] = mean_credit([v for v in verdicts if v.question.category == name])
    return figures


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """By the m4c tool, as lmms-eval scores val."""
    scored = [m4c_accuracy(answers.get(q.id, ""), q.truth) for q in questions if q.truth is not None]
    return {"m4c: accuracy": 100 * sum(scored) / len(scored) if scored else math.nan}


def submission(questions: Sequence[Question], answers: Mapping[str, str], path: Path) -> None:
    """The file that the server takes. Raises LlavakitError for a question without an answer."""
    if lacking := [q.id for q in questions if q.id not in answers]:
        raise LlavakitError(f"{lacking[0]} has no answer; the server takes whole files")
    rows = [{"image": q.id, "answer": m4c(answers[q.id])} for q in questions]
    write_whole(path, json.dumps(rows).encode())


_PAPER, _ZOO = "LLaVA-1.5 paper, table 3", "LLaVA model zoo"
_PUBLISHED = (
    ("LLaVA-1.5-7B", 50.0, _PAPER), ("LLaVA-1.5-13B", 53.6, _PAPER), ("LLaVA-1.6-Vicuna-7B", 57.6, _ZOO),
    ("LLaVA-1.6-Vicuna-13B", 60.5, _ZOO), ("LLaVA-1.6-Mistral-7B", 60.0, _ZOO), ("LLaVA-1.6-34B", 63.8, _ZOO),
    ("InstructBLIP-7B", 34.5, _PAPER), ("InstructBLIP-13B", 33.4, _PAPER), ("Qwen-VL-Chat", 38.9, _PAPER),
)  # fmt: skip
_VARIANTS = (
    Variant("v1.5", "short answer or Unanswerable, LLaVA-1.5"),
    Variant("v1.6", "short answer or Unanswerable, LLaVA-1.6"),
)

BENCHMARKS = (
    Benchmark(
        name="vizwiz_val",
        title="VizWiz, val",
        files=(SPLITS["val"], PICTURES["val"], COPIES["val"]),
        variants=_VARIANTS,
        read=partial(read, "val"),
        mark=mark,
        summarise=summarise,
        headline="accuracy",
        others=others,
    ),
    Benchmark(
        name="vizwiz",
        title="VizWiz, test, scored by its server",
        files=(SPLITS["test"], PICTURES["test"], COPIES["test"]),
        variants=_VARIANTS,
        read=partial(read, "test"),
        mark=mark,
        summarise=summarise,
        headline="accuracy",
        submission=submission,
        published=tuple(
            Published(model, value, "test server", source) for model, value, source in _PUBLISHED
        ),
    ),
)
