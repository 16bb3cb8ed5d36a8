"""TextVQA: 5,000 questions about words in pictures, with the tokens that an OCR system read there or without.

LLaVA-1.5's published numbers show the tokens (58.2, 61.3) and LLaVA-1.6's do not (64.9): the variants `v1.5` and `ocr`
show them, `v1.6` does not. Scored by the m4c tool, as LLaVA does. The tokens stand in LLaVA's own file of questions;
its `question_id` is the picture's, so questions are known by picture and text. The Hugging Face copy has tokens too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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
    read_lines,
    read_parquet,
    texts_field,
    with_unique_ids,
)
from llavakit.evaluation.scoring.vqa_accuracy import m4c, m4c_accuracy, official_accuracy
from llavakit.evaluation.wording import SHORT

_LINE = "Reference OCR token:"
TRUTH = NeededFile("TextVQA_0.5.1_val.json", "https://textvqa.org/dataset", "21 MB", required=False)
ASKED = NeededFile(
    "llava_textvqa_val_v051_ocr.jsonl",
    "https://github.com/haotian-liu/LLaVA, eval.zip: playground/data/eval/textvqa",
    "2 MB",
    required=False,
)
PICTURES = NeededFile(
    "train_images", "https://textvqa.org/dataset, train_val_images.zip", "6.6 GB", required=False
)
COPY = NeededFile(
    "data/validation-*.parquet",
    "https://huggingface.co/datasets/lmms-lab-encoder/textvqa",
    "1 GB",
    required=False,
)


def read(folder: Path, variant: str) -> list[Question]:
    """All questions of val; with the tokens where the variant shows them."""
    shown = variant in ("v1.5", "ocr")
    way, paths = first_found(folder, TRUTH, COPY)
    if way is COPY:
        return with_unique_ids(list(_from_copy(paths, shown)), paths[0])
    tokens = _tokens(folder) if shown else None
    questions = []
    for row in field(read_json(paths[0]), "data", paths[0]):
        image, asked = str(field(row, "image_id", paths[0])), str(field(row, "question", paths[0])).strip()
        name = _id(image, asked)
        if tokens is not None and name not in tokens:
            raise LlavakitError(f"{ASKED.path} has no tokens for {image}, {asked!r}: download it again")
        picture = InFile(folder / PICTURES.path / f"{image}.jpg")
        answers = texts_field(row, "answers", paths[0])
        questions.append(_question(image, asked, answers, tokens[name] if tokens else None, picture))
    return with_unique_ids(questions, paths[0])


def _from_copy(paths: Sequence[Path], shown: bool) -> Iterator[Question]:
    for row in read_parquet(paths):
        image, asked = (str(field(row.values, name, row.path)).strip() for name in ("image_id", "question"))
        tokens = ", ".join(field(row.values, "ocr_tokens", row.path)) if shown else None
        answers = texts_field(row.values, "answers", row.path)
        yield _question(image, asked, answers, tokens, InParquet(row.path, row.row, "image"))


def _question(
    image: str, asked: str, answers: Sequence[str], tokens: str | None, picture: PictureSource
) -> Question:
    """LLaVA begins a question with a capital and writes the rest small."""
    lines = [asked.capitalize(), *([] if tokens is None else [f"{_LINE} {tokens}"]), SHORT]
    return Question(_id(image, asked), (picture,), "\n".join(lines), list(answers))


def _id(image: str, asked: str) -> str:
    return f"{image}/{asked.lower()}"


def _tokens(folder: Path) -> dict[str, str]:
    """The tokens by question, out of LLaVA's prompts of three lines."""
    _, paths = first_found(folder, ASKED)
    tokens = {}
    for where, row in read_lines(paths[0]):
        parts = str(field(row, "text", paths[0])).split("\n")
        if len(parts) != 3 or not parts[1].startswith(_LINE):
            raise LlavakitError(f"{where}, has no line of tokens: download it again")
        tokens[_id(str(field(row, "question_id", paths[0])), parts[0].strip())] = (
            parts[1].removeprefix(_LINE).removeprefix(" ")
        )
    return tokens


def answer_id(row: Mapping[str, Any]) -> str:
    """The question of a row of LLaVA's answers: the picture, and the first line of the prompt."""
    prompt = field(row, "prompt", "it")
    if not isinstance(prompt, str):
        raise TypeError(f"its prompt is {prompt!r:.60}, expected the text that was asked")
    image = field(row, "question_id", "it")
    if isinstance(image, bool) or not isinstance(image, str | int):
        raise TypeError(f"its question_id is {image!r:.60}, expected the picture's id")
    return _id(str(image), prompt.partition("\n")[0].strip())


def mark(question: Question, answer: str) -> Verdict:
    """Soft accuracy by the m4c tool."""
    return Verdict(question, m4c(answer), m4c_accuracy(answer, question.truth))


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent of all."""
    return {"accuracy": 100 * sum(v.credit for v in verdicts) / len(verdicts) if verdicts else math.nan}


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """By VQA's official tool, which does not normalise where all ten agree."""
    scored = [official_accuracy(answers.get(q.id, ""), q.truth) for q in questions]
    return {"VQA: accuracy": 100 * sum(scored) / len(scored) if scored else math.nan}


_PAPER, _ZOO = "LLaVA-1.5 paper, table 3", "LLaVA model zoo"
_PUBLISHED = (
    ("LLaVA-1.5-7B", 58.2, "with OCR tokens", _PAPER), ("LLaVA-1.5-13B", 61.3, "with OCR tokens", _PAPER),
    ("LLaVA-1.6-Vicuna-7B", 64.9, "without OCR tokens", _ZOO),
    ("LLaVA-1.6-Vicuna-13B", 67.1, "without OCR tokens", _ZOO),
    ("LLaVA-1.6-Mistral-7B", 65.7, "without OCR tokens", _ZOO), ("LLaVA-1.6-34B", 69.5, "without OCR tokens", _ZOO),
    ("InstructBLIP-7B", 50.1, "as its paper", _PAPER), ("InstructBLIP-13B", 50.7, "as its paper", _PAPER),
    ("Qwen-VL-Chat", 61.5, "as its paper, pictures seen in training", _PAPER),
)  # fmt: skip

BENCHMARK = Benchmark(
    name="textvqa",
    title="TextVQA, val",
    files=(TRUTH, ASKED, PICTURES, COPY),
    variants=(
        Variant("v1.5", "val, with OCR tokens, short answer, LLaVA-1.5"),
        Variant("v1.6", "val, without OCR tokens, short answer, LLaVA-1.6"),
        Variant("ocr", "val, with OCR tokens, short answer"),
        Variant("no-ocr", "val, without OCR tokens, short answer"),
    ),
    read=read,
    mark=mark,
    summarise=summarise,
    headline="accuracy",
    others=others,
    answer_id=answer_id,
    published=tuple(Published(*row) for row in _PUBLISHED),
)
