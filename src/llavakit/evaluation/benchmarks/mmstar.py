"""MMStar, val: 1,500 questions chosen to need the picture, in 6 categories of 3 sub-categories.

The options stand inside the question. The letter is read and the score counted as MMStar's own tool does
(eval/vlmeval/evaluate/mmstar.py): right of all 1,500, which is `overall` here and in VLMEvalKit, and the same as the
mean over the categories, since each has 250 questions. lmms-eval reports another number: it reads letters by another
rule and gives the mean over the 18 sub-categories, which differ in size. That mean stands among the figures for the
letters as they are read here, and among `others` for lmms-eval's.

The LLaVA papers have no number of it; MMStar's authors give one for LLaVA-1.6-34B. The wording is lmms-eval's, which
is LLaVA's without its full stop.
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
from llavakit.evaluation.scoring.choices import leading_letter
from llavakit.evaluation.scoring.choices_lmms import extracted
from llavakit.evaluation.scoring.shares import percent
from llavakit.evaluation.wording import DIRECTLY

TABLE = NeededFile("mmstar.parquet", "https://huggingface.co/datasets/Lin-Chen/MMStar", "42 MB")
_YES_OR_NO = " Please answer yes or no."  # taken out where a question has it, since a letter is asked for
_LETTERS = ("A", "B", "C", "D")


def read(folder: Path, variant: str) -> list[Question]:
    """The questions in the table's order."""
    paths = first_found(folder, TABLE)[1]
    return with_unique_ids([_question(row) for row in read_parquet(paths)], paths[0])


def _question(row: ParquetRow) -> Question:
    names = ("index", "question", "answer", "category", "l2_category")
    index, asked, answer, category, part = (text_field(row.values, name, row.path) for name in names)
    if answer.strip().upper() not in _LETTERS:
        raise LlavakitError(f"{row.path}, index {index}: the answer is {answer!r}, expected A to D")
    return Question(
        id=index,
        pictures=(InParquet(row.path, row.row, "image"),),
        prompt=f"{asked.strip().replace(_YES_OR_NO, '')}\n{DIRECTLY.removesuffix('.')}",
        truth=answer.strip().upper(),
        category=category,
        meta={"l2_category": part},
    )


def mark(question: Question, answer: str) -> Verdict:
    """Right when the answer begins with the true letter, bare or after one of three phrases."""
    letter = leading_letter(answer, _LETTERS)
    note = "" if letter else "no letter at the start"
    return Verdict(question, letter, float(letter == question.truth), note)


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent right of all, the mean over sub-categories, each category, and each of its sub-categories."""
    scored = [(verdict.question, verdict.credit) for verdict in verdicts]
    parts: dict[str, list[float]] = {}
    for question, credit in scored:
        for name in (question.category, f"{question.category}: {question.meta['l2_category']}"):
            parts.setdefault(name, []).append(credit)
    return {
        "overall": percent([credit for _, credit in scored]),
        "average over l2 categories": _over_parts(scored),
        **{name: percent(part) for name, part in sorted(parts.items())},
    }


def _over_parts(scored: Sequence[tuple[Question, float]]) -> float:
    """The mean over the sub-categories that have a question, whatever their size."""
    parts: dict[str, list[float]] = {}
    for question, credit in scored:
        parts.setdefault(question.meta["l2_category"], []).append(credit)
    return sum(map(percent, parts.values())) / len(parts) if parts else math.nan


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """What lmms-eval gives: the letter of the surest form, means over sub-categories for all and for each category."""
    scored = [
        (question, float(extracted(answers.get(question.id, ""), _LETTERS) == question.truth))
        for question in questions
    ]
    figures = {"lmms-eval: average": _over_parts(scored)}
    for name in sorted({question.category for question in questions}):
        figures[f"lmms-eval: {name}"] = _over_parts([row for row in scored if row[0].category == name])
    return figures


BENCHMARK = Benchmark(
    name="mmstar",
    title="MMStar, val",
    files=(TABLE,),
    variants=(
        Variant("v1.6", "val, letter directly without a full stop, LLaVA-1.6"),
        Variant("v1.5", "val, letter directly without a full stop, LLaVA-1.5"),
    ),
    read=read,
    mark=mark,
    summarise=summarise,
    headline="overall",
    max_new_tokens=32,
    others=others,
    published=(
        Published("LLaVA-1.6-34B", 52.1, "val, overall, MMStar's own tool", "MMStar repository, eval/README"),
    ),
)
