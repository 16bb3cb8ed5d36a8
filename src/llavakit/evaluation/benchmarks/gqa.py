"""GQA: the 12,578 balanced questions of testdev, about scenes of Visual Genome, by exact match.

LLaVA writes its answer in lower case without a full stop at the end; the official tool compares it as it is.
Consistency, validity, plausibility and grounding need files of choices and scene graphs and are left out.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

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

SHORT = "Answer the question using a single word or phrase."
_FROM = "https://cs.stanford.edu/people/dorarad/gqa/download.html"
ASKED = NeededFile("testdev_balanced_questions.json", f"{_FROM}, questions1.2.zip", "12 MB")
PICTURES = NeededFile("images", f"{_FROM}, images.zip", "20 GB", required=False)


def read(folder: Path, variant: str) -> list[Question]:
    """The balanced questions, in the file's order."""
    _, paths = first_found(folder, ASKED)
    questions = []
    for name, row in read_json(paths[0]).items():
        if not row.get("isBalanced", True):
            continue
        structural = str(field(field(row, "types", paths[0]), "structural", paths[0]))
        picture = InFile(folder / PICTURES.path / f"{field(row, 'imageId', paths[0])}.jpg")
        text = f"{str(field(row, 'question', paths[0])).strip()}\n{SHORT}"
        truth = str(field(row, "answer", paths[0]))
        questions.append(Question(str(name), (picture,), text, truth, category=structural))
    return with_unique_ids(questions, paths[0])


def written(answer: str) -> str:
    """The answer as LLaVA hands it to the official tool."""
    return answer.strip().rstrip(".").lower()


def mark(question: Question, answer: str) -> Verdict:
    """Right when it is the very answer."""
    said = written(answer)
    return Verdict(question, said, float(said == question.truth))


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent right of all, of yes-or-no and choice questions (binary) and of open ones, and by structure."""
    figures = {"accuracy": _mean(verdicts)}
    figures["binary"] = _mean([v for v in verdicts if v.question.category != "query"])
    figures["open"] = _mean([v for v in verdicts if v.question.category == "query"])
    for name in sorted({v.question.category for v in verdicts}):
        figures[name] = _mean([v for v in verdicts if v.question.category == name])
    return figures


def _mean(verdicts: Sequence[Verdict]) -> float:
    return 100 * sum(v.credit for v in verdicts) / len(verdicts) if verdicts else math.nan


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """What lmms-eval gives, which takes all punctuation off both sides."""
    if not questions:
        return {"lmms-eval: exact_match": math.nan}
    drop = str.maketrans("", "", string.punctuation)
    right = sum(
        answers.get(q.id, "").lower().translate(drop) == str(q.truth).lower().translate(drop)
        for q in questions
    )
    return {"lmms-eval: exact_match": 100 * right / len(questions)}


_PAPER, _ZOO = "LLaVA-1.5 paper, table 3", "LLaVA model zoo"
_PUBLISHED = (
    ("LLaVA-1.5-7B", 62.0, _PAPER), ("LLaVA-1.5-13B", 63.3, _PAPER), ("LLaVA-1.5-13B-HD", 64.7, _PAPER),
    ("LLaVA-1.6-Vicuna-7B", 64.2, _ZOO), ("LLaVA-1.6-Vicuna-13B", 65.4, _ZOO), ("LLaVA-1.6-Mistral-7B", 64.8, _ZOO),
    ("LLaVA-1.6-34B", 67.1, _ZOO), ("InstructBLIP-7B", 49.2, _PAPER), ("InstructBLIP-13B", 49.5, _PAPER),
    ("Qwen-VL-Chat", 57.5, _PAPER),
)  # fmt: skip

BENCHMARK = Benchmark(
    name="gqa",
    title="GQA, testdev balanced",
    files=(ASKED, PICTURES),
    variants=(
        Variant("v1.5", "testdev balanced, short answer, LLaVA-1.5"),
        Variant("v1.6", "testdev balanced, short answer, LLaVA-1.6"),
    ),
    read=read,
    mark=mark,
    summarise=summarise,
    headline="accuracy",
    others=others,
    published=tuple(
        Published(model, value, "testdev balanced", source) for model, value, source in _PUBLISHED
    ),
)
