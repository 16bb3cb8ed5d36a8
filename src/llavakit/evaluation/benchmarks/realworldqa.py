"""RealWorldQA, test: 765 questions about photographs, many from a car, with a letter, a word or a number for an answer.

What the answer should look like is said inside the question, so that nothing is added to it. The data came without a
tool; the rule is lmms-eval's: where the truth is A to D, the letter of the surest form; elsewhere the whole answer
without case and without full stops at its end. Its releases of 2024, the year of the published table, had another
rule.

A question is known by its row's number, from 0. Copies of the data need not have the same order: score answers with the
copy for which they were made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from llavakit.evaluation.pictures import InParquet
from llavakit.evaluation.reading import ParquetRow, first_found, read_parquet, text_field, with_unique_ids
from llavakit.evaluation.scoring.choices_lmms import extracted, text_or_all, without_case_and_punctuation

COPY = NeededFile("data/test-*.parquet", "https://huggingface.co/datasets/xai-org/RealworldQA", "678 MB")
_LETTERS = ("A", "B", "C", "D")


def read(folder: Path, variant: str) -> list[Question]:
    """The questions in the copy's order."""
    paths = first_found(folder, COPY)[1]
    return with_unique_ids([_question(n, row) for n, row in enumerate(read_parquet(paths))], paths[0])


def _question(number: int, row: ParquetRow) -> Question:
    asked, truth = (text_field(row.values, name, row.path) for name in ("question", "answer"))
    if not truth.strip():
        raise LlavakitError(f"{row.path}, row {row.row} has no answer: download it again")
    letter = truth.strip().upper()
    return Question(
        id=str(number),
        pictures=(InParquet(row.path, row.row, "image"),),
        prompt=asked.strip(),
        truth=letter if letter in _LETTERS else truth.strip(),
        category="letter" if letter in _LETTERS else "word or number",
        meta={"question": asked, "answer": truth},
    )


def mark(question: Question, answer: str) -> Verdict:
    """Right when the letter that is read, or else the whole answer, is the truth."""
    if question.category == "letter":
        letter = extracted(answer, _LETTERS)
        return Verdict(question, letter, float(letter == question.truth), "" if letter else "no letter found")
    said = answer.lower().strip().rstrip(".")
    note = "" if said else "empty answer"
    return Verdict(question, said or None, float(said == question.truth.lower()), note)


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent right of all, of those with a letter and of the others."""
    parts: dict[str, list[float]] = {"accuracy": []}
    for verdict in verdicts:
        for name in ("accuracy", verdict.question.category):
            parts.setdefault(name, []).append(verdict.credit)
    return {name: 100 * sum(part) / len(part) if part else math.nan for name, part in parts.items()}


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """What lmms-eval gave in its releases of 2024."""
    right = sum(
        text_or_all(answers.get(question.id, ""), question.meta["question"])
        == without_case_and_punctuation(question.meta["answer"])
        for question in questions
    )
    return {"lmms-eval 0.2: exact_match": 100 * right / len(questions) if questions else math.nan}


_PUBLISHED = (
    ("LLaVA-1.5-7B", 55.8), ("LLaVA-1.5-13B", 54.9), ("LLaVA-1.6-Vicuna-7B", 57.8), ("LLaVA-1.6-Vicuna-13B", 58.7),
    ("LLaVA-1.6-Mistral-7B", 59.3), ("LLaVA-1.6-34B", 62.0), ("InstructBLIP-7B", 37.4), ("InstructBLIP-13B", 42.4),
    ("Qwen-VL-Chat", 1.7),
)  # fmt: skip

BENCHMARK = Benchmark(
    name="realworldqa",
    title="RealWorldQA, test",
    files=(COPY,),
    variants=(
        Variant("v1.6", "test, nothing added to the question, LLaVA-1.6"),
        Variant("v1.5", "test, nothing added to the question, LLaVA-1.5"),
    ),
    read=read,
    mark=mark,
    summarise=summarise,
    headline="accuracy",
    max_new_tokens=16,
    others=others,
    published=tuple(
        Published(model, value, "test, lmms-eval of 2024", "lmms-eval paper") for model, value in _PUBLISHED
    ),
)
