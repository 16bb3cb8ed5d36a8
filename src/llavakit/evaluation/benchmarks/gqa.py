"""GQA: the 12,578 balanced questions of testdev, about scenes of Visual Genome, by exact match.

LLaVA writes its answer in lower case without a full stop at the end; the official tool compares it as it is.
Consistency, validity, plausibility and grounding need files of choices and scene graphs and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    found,
    read_json,
    read_parquet,
    text_field,
    with_unique_ids,
)
from llavakit.evaluation.scoring.choices_lmms import without_case_and_punctuation
from llavakit.evaluation.scoring.shares import mean_credit
from llavakit.evaluation.wording import SHORT

_FROM = "https://cs.stanford.edu/people/dorarad/gqa/download.html"
ASKED = NeededFile("testdev_balanced_questions.json", f"{_FROM}, questions1.2.zip", "12 MB")
PICTURES = NeededFile("images", f"{_FROM}, images.zip", "20 GB", required=False)
_COPY = "https://huggingface.co/datasets/lmms-lab-encoder/GQA"
COPY = NeededFile("testdev_balanced_instructions/testdev-*.parquet", _COPY, "2 MB", required=False)
COPIED_PICTURES = NeededFile("testdev_balanced_images/testdev-*.parquet", _COPY, "66 MB", required=False)


def read(folder: Path, variant: str) -> list[Question]:
    """The balanced questions, in the order of the official file or of the Parquet copy."""
    way, paths = first_found(folder, ASKED, COPY)
    pictures = _copied_pictures(folder)
    questions = []
    for name, row in _from_copy(paths) if way is COPY else read_json(paths[0]).items():
        if not row.get("isBalanced", True):
            continue
        structural = str(field(field(row, "types", paths[0]), "structural", paths[0]))
        image = str(field(row, "imageId", paths[0]))
        picture = pictures.get(image) or InFile(folder / PICTURES.path / f"{image}.jpg")
        asked = f"{text_field(row, 'question', paths[0]).strip()}\n{SHORT}"
        truth = text_field(row, "answer", paths[0])
        questions.append(Question(str(name), (picture,), asked, truth, category=structural))
    return with_unique_ids(questions, paths[0])


def _from_copy(paths: Sequence[Path]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for row in read_parquet(paths):
        yield str(field(row.values, "id", row.path)), row.values


def _copied_pictures(folder: Path) -> dict[str, PictureSource]:
    """The pictures of the Parquet copy by their ids."""
    rows = read_parquet(found(folder, COPIED_PICTURES))
    return {str(field(row.values, "id", row.path)): InParquet(row.path, row.row, "image") for row in rows}


def written(answer: str) -> str:
    """The answer as LLaVA hands it to the official tool."""
    return answer.strip().rstrip(".").lower()


def mark(question: Question, answer: str) -> Verdict:
    """Right when it is the very answer."""
    said = written(answer)
    return Verdict(question, said, float(said == question.truth))


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent right of all, of yes-or-no and choice questions (binary) and of open ones, and by structure."""
    figures = {"accuracy": mean_credit(verdicts)}
    figures["binary"] = mean_credit([v for v in verdicts if v.question.category != "query"])
    figures["open"] = mean_credit([v for v in verdicts if v.question.category == "query"])
    for name in sorted({v.question.category for v in verdicts}):
        figures[name] = mean_credit([v for v in verdicts if v.question.category == name])
    return figures


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """What lmms-eval gives, which takes all punctuation off both sides, and VLMEvalKit, which takes none off."""
    if not questions:
        return {"lmms-eval: exact_match": math.nan, "VLMEvalKit: accuracy": math.nan}
    bare = without_case_and_punctuation
    right = sum(bare(answers.get(q.id, "").strip()) == bare(str(q.truth)) for q in questions)
    same = sum(answers.get(q.id, "").strip().lower() == str(q.truth).strip().lower() for q in questions)
    return {
        "lmms-eval: exact_match": 100 * right / len(questions),
        "VLMEvalKit: accuracy": 100 * same / len(questions),
    }


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
    files=(ASKED, PICTURES, COPY, COPIED_PICTURES),
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
