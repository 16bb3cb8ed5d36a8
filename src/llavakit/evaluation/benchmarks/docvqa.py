"""DocVQA: questions about scanned documents, by ANLS; val's truth is public, test's is on a server (RRC, task 1)."""

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
from llavakit.evaluation.reading import (
    field,
    first_found,
    read_json,
    read_parquet,
    text_field,
    texts_field,
    with_unique_ids,
)
from llavakit.evaluation.scoring.anls import anls, llava_anls
from llavakit.evaluation.scoring.shares import mean_credit, percent
from llavakit.evaluation.wording import SHORT
from llavakit.evaluation.writing import write_whole

_FROM = "https://rrc.cvc.uab.es/?ch=17&com=downloads, task 1"
SPLITS = {
    "val": NeededFile("val_v1.0.json", _FROM, "2 MB"),
    "test": NeededFile("test_v1.0.json", _FROM, "1.5 MB"),
}
PICTURES = NeededFile("documents", _FROM, "7 GB", required=False)
_COPY = "https://huggingface.co/datasets/lmms-lab-encoder/DocVQA"
COPIES = {
    "val": NeededFile("DocVQA/validation-*.parquet", _COPY, "2.5 GB with pictures", required=False),
    "test": NeededFile("DocVQA/test-*.parquet", _COPY, "2.5 GB with pictures", required=False),
}


def read(split: str, folder: Path, variant: str) -> list[Question]:
    """The questions of a split, in the order of the official file or of the Parquet copy."""
    way, paths = first_found(folder, SPLITS[split], COPIES[split])
    rows = _from_copy(paths) if way is COPIES[split] else _from_file(paths[0], folder)
    questions = []
    for row, picture in rows:
        asked = f"{text_field(row, 'question', paths[0]).strip()}\n{SHORT}"
        truth = texts_field(row, "answers", paths[0]) if row.get("answers") else None
        questions.append(Question(str(field(row, "questionId", paths[0])), (picture,), asked, truth))
    if split == "val" and (bare := [q.id for q in questions if q.truth is None]):
        raise LlavakitError(f"{paths[0]}: question {bare[0]} has no answers; download it again")
    return with_unique_ids(questions, paths[0])


def _from_file(path: Path, folder: Path) -> Iterator[tuple[Mapping[str, Any], PictureSource]]:
    for row in field(read_json(path), "data", path):
        yield row, InFile(folder / str(field(row, "image", path)))


def _from_copy(paths: Sequence[Path]) -> Iterator[tuple[Mapping[str, Any], PictureSource]]:
    for row in read_parquet(paths):
        yield row.values, InParquet(row.path, row.row, "image")


def mark(question: Question, answer: str) -> Verdict:
    """ANLS without the blanks at the answer's ends, as LLaVA and lmms-eval hand it in; for the server it gets none."""
    said = answer.strip()
    if question.truth is None:
        return Verdict(question, said, math.nan, "the truth is on a server")
    return Verdict(question, said, anls(said, question.truth))


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """The mean in percent."""
    return {"ANLS": mean_credit(verdicts)}


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """Of answers as they stand, by the same rule, which counts blanks at the ends as length, and by LLaVA's class.

    That class is nan where it stops with an error, both texts being empty.
    """
    said = [(answers.get(q.id, ""), q.truth) for q in questions if q.truth is not None]
    return {
        "answers as they stand: ANLS": percent([anls(*pair) for pair in said]),
        "LLaVA's STVQAANLSEvaluator: ANLS": percent([llava_anls(*pair) for pair in said]),
    }


def submission(questions: Sequence[Question], answers: Mapping[str, str], path: Path) -> None:
    """The file that the server takes. Raises LlavakitError for a question without an answer."""
    if lacking := [q.id for q in questions if q.id not in answers]:
        raise LlavakitError(f"question {lacking[0]} has no answer; the server takes whole files")
    if odd := [q.id for q in questions if not q.id.isdecimal()]:
        raise LlavakitError(f"question {odd[0]!r} has an id that is no number, and the server takes numbers")
    rows = [{"questionId": int(q.id), "answer": answers[q.id].strip()} for q in questions]
    write_whole(path, json.dumps(rows).encode())


_PUBLISHED = (
    ("LLaVA-1.5-7B", 28.1), ("LLaVA-1.5-13B", 30.3), ("LLaVA-1.6-Vicuna-7B", 74.4), ("LLaVA-1.6-Vicuna-13B", 77.5),
    ("LLaVA-1.6-Mistral-7B", 72.2), ("LLaVA-1.6-34B", 84.0), ("InstructBLIP-7B", 13.9), ("InstructBLIP-13B", 13.6),
    ("Qwen-VL-Chat", 66.3),
)  # fmt: skip
_VARIANTS = (
    Variant("v1.5", "ANLS, short answer, LLaVA-1.5"),
    Variant("v1.6", "ANLS, short answer, LLaVA-1.6"),
)

BENCHMARKS = (
    Benchmark(
        name="docvqa",
        title="DocVQA, val",
        files=(SPLITS["val"], PICTURES, COPIES["val"]),
        variants=_VARIANTS,
        read=partial(read, "val"),
        mark=mark,
        summarise=summarise,
        headline="ANLS",
        max_new_tokens=32,
        others=others,
        published=tuple(Published(model, value, "val", "lmms-eval paper") for model, value in _PUBLISHED),
    ),
    Benchmark(
        name="docvqa_test",
        title="DocVQA, test, scored by its server",
        files=(SPLITS["test"], PICTURES, COPIES["test"]),
        variants=_VARIANTS,
        read=partial(read, "test"),
        mark=mark,
        summarise=summarise,
        headline="ANLS",
        max_new_tokens=32,
        submission=submission,
    ),
)
