"""DocVQA: questions about scanned documents, by ANLS; val's truth is public, test's is on a server (RRC, task 1)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

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
from llavakit.evaluation.pictures import InFile
from llavakit.evaluation.reading import field, first_found, read_json, with_unique_ids
from llavakit.evaluation.scoring.anls import anls
from llavakit.evaluation.writing import write_whole

SHORT = "Answer the question using a single word or phrase."
_FROM = "https://rrc.cvc.uab.es/?ch=17&com=downloads, task 1"
VAL = NeededFile("val_v1.0.json", _FROM, "2 MB")
TEST = NeededFile("test_v1.0.json", _FROM, "1.5 MB")
PICTURES = NeededFile("documents", _FROM, "7 GB", required=False)


def read(asked: NeededFile, folder: Path, variant: str) -> list[Question]:
    """The questions of a split, in the file's order."""
    path = first_found(folder, asked)[1][0]
    questions = []
    for row in field(read_json(path), "data", path):
        picture = InFile(folder / str(field(row, "image", path)))
        text = f"{str(field(row, 'question', path)).strip()}\n{SHORT}"
        truth = [str(one) for one in row["answers"]] if row.get("answers") else None
        questions.append(Question(str(field(row, "questionId", path)), (picture,), text, truth))
    if asked is VAL and (bare := [q.id for q in questions if q.truth is None]):
        raise LlavakitError(f"{path}: question {bare[0]} has no answers; download it again")
    return with_unique_ids(questions, path)


def mark(question: Question, answer: str) -> Verdict:
    """ANLS; an answer for the server gets none here."""
    said = answer.strip()
    if question.truth is None:
        return Verdict(question, said, math.nan, "the truth is on a server")
    return Verdict(question, said, anls(said, question.truth))


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """The mean in percent."""
    return {"ANLS": 100 * sum(v.credit for v in verdicts) / len(verdicts) if verdicts else math.nan}


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
_VARIANTS = (Variant("v1.6", "ANLS, short answer, LLaVA-1.6"),)

BENCHMARKS = (
    Benchmark(
        name="docvqa",
        title="DocVQA, val",
        files=(VAL, PICTURES),
        variants=_VARIANTS,
        read=partial(read, VAL),
        mark=mark,
        summarise=summarise,
        headline="ANLS",
        max_new_tokens=32,
        published=tuple(Published(model, value, "val", "lmms-eval paper") for model, value in _PUBLISHED),
    ),
    Benchmark(
        name="docvqa_test",
        title="DocVQA, test, scored by its server",
        files=(TEST, PICTURES),
        variants=_VARIANTS,
        read=partial(read, TEST),
        mark=mark,
        summarise=summarise,
        headline="ANLS",
        max_new_tokens=32,
        submission=submission,
    ),
)
