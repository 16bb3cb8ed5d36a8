"""MMMU: college questions of 30 subjects in six disciplines, most with options, a few to be answered freely.

An answer's letter is read by MMMU's rule, and a free answer by its own. Where no letter is found MMMU draws one at
random, from one generator that is seeded with 42 and goes through the subjects by name and each subject in its file's
order. The headline repeats those draws, so that it is the number that MMMU's tool prints; what the score is without
such luck stands beside it. A mark of its own never depends on a draw: there an unread answer is wrong, and counted.

Marks of pictures in a question's text, such as `<image 1>`, stay there in both ways of asking, as they did when the
published numbers were made; the pictures go before the text. Truth is public for val; test is scored by a server.
"""

from __future__ import annotations

import ast
import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
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
from llavakit.evaluation.pictures import InParquet
from llavakit.evaluation.reading import (
    ParquetRow,
    field,
    first_found,
    read_parquet,
    text_field,
    with_unique_ids,
)
from llavakit.evaluation.scoring import choices_lmms
from llavakit.evaluation.scoring.choices import lettered, mmmu_choice, option_lines
from llavakit.evaluation.scoring.open_answers import candidates, fits
from llavakit.evaluation.scoring.shares import percent
from llavakit.evaluation.wording import DIRECTLY, SHORT
from llavakit.evaluation.writing import write_whole

DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Psychology", "Sociology"),
    "Tech and Engineering": (
        "Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power",
        "Materials", "Mechanical_Engineering",
    ),
}  # fmt: skip
SUBJECTS = {subject: name for name, subjects in DISCIPLINES.items() for subject in subjects}
SEED = 42
"""Of the generator from which MMMU's tool draws a letter for an answer in which it finds none."""

_PICTURES = tuple(f"image_{number}" for number in range(1, 8))
_OFFICIAL = "https://huggingface.co/datasets/MMMU/MMMU"
_COPY = "https://huggingface.co/datasets/lmms-lab-encoder/MMMU"
_FILES = {
    split: (
        NeededFile(f"[A-Z]*/{split}-*.parquet", f"{_OFFICIAL}, a folder a subject", size, required=False),
        NeededFile(f"data/{split}-*.parquet", _COPY, size, required=False),
    )
    for split, size in (("validation", "0.35 GB"), ("test", "3.3 GB"))
}


def read(split: str, folder: Path, variant: str) -> list[Question]:
    """The questions by subject's name, each subject in its file's order. Raises where a subject is missing."""
    way, paths = first_found(folder, *_FILES[split])
    folders = groupby(paths, key=lambda path: path.parent)  # of which each has a number of parts of its own
    rows = [row for _, parts in folders for row in read_parquet(list(parts), pictures=_PICTURES)]
    subjects = [_subject(row) for row in rows]
    if lacking := sorted(SUBJECTS.keys() - set(subjects)):
        raise LlavakitError(
            f"{folder} has {len(SUBJECTS) - len(lacking)} of MMMU's {len(SUBJECTS)} subjects and lacks "
            f"{', '.join(lacking)}: put them there from {way.source}"
        )
    order = sorted(range(len(rows)), key=subjects.__getitem__)
    questions = [_question(rows[row], subjects[row], split, variant, turn) for turn, row in enumerate(order)]
    return with_unique_ids(questions, folder)


def _subject(row: ParquetRow) -> str:
    name = text_field(row.values, "id", row.path)
    found = re.fullmatch(r"[^_]+_(.+)_\d+", name)
    if found is None or found[1] not in SUBJECTS:
        raise LlavakitError(f"{row.path}: question {name!r} is of no subject of MMMU's")
    return found[1]


def _question(row: ParquetRow, subject: str, split: str, variant: str, turn: int) -> Question:
    values, where = row.values, row.path
    name, asked = text_field(values, "id", where), text_field(values, "question", where)
    kind = field(values, "question_type", where)
    if kind not in ("multiple-choice", "open"):
        raise LlavakitError(
            f"{where}, question {name}: the type {kind!r} is neither multiple-choice nor open"
        )
    has_options = kind == "multiple-choice"
    options = _options(field(values, "options", where), name, where) if has_options else ()
    answer = field(values, "answer", where)
    truth = _truths(answer) if split != "test" else None
    if truth is not None and (not truth or (options and not lettered(options).keys() >= set(truth))):
        raise LlavakitError(f"{where}, question {name}: {len(options)} options and the answer {answer!r}")
    if variant == "v1.5":
        lines = "".join(f"({letter}) {text}\n" for letter, text in lettered(options).items())
        prompt = f"{asked}\n{lines}\n{DIRECTLY}" if options else f"{asked}\n{SHORT}"
        shown = ["image_1"]
    else:
        prompt = f"{asked}\n{option_lines(options)}\n\n{DIRECTLY}" if options else f"{asked}\n\n{SHORT}"
        shown = sorted({f"image_{number}" for number in re.findall(r"<image ([1-7])>", prompt)})
    return Question(
        id=name,
        pictures=tuple(InParquet(where, row.row, column) for column in shown),
        prompt=prompt,
        truth=truth,
        category=subject,
        meta={"options": options, "answer": answer, "turn": turn},
    )


def _options(cell: Any, name: str, where: Path) -> tuple[str, ...]:
    """Options from a list, or from the text of one as the official files have it."""
    value = _literal(cell)
    if not isinstance(value, list) or not value:
        raise LlavakitError(f"{where}, question {name}: {cell!r:.80} is no list of options")
    return tuple(str(option) for option in value)


def _truths(answer: Any) -> list[str]:
    """Every answer that counts; some are the text of a list."""
    value = _literal(answer) if str(answer).startswith("[") else answer
    return [str(one) for one in (value if isinstance(value, list) else [value])]


def _literal(value: Any) -> Any:
    """The value that a text writes in Python's form; the text itself where it writes none. Runs nothing."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return value


def mark(question: Question, answer: str) -> Verdict:
    """Right when the letter, or a free answer, fits a truth; without a truth (`test`) the credit is nan."""
    options = question.meta["options"]
    if options:
        letter = mmmu_choice(answer, lettered(options))
        parsed, right = letter, letter in (question.truth or ())
        note = "" if letter else "no option found, one is drawn in the headline"
    else:
        found = candidates(answer)
        parsed, right = " | ".join(map(str, found)) or None, fits(found, question.truth or ())
        note = ""
    if question.truth is None:
        return Verdict(question, parsed, math.nan, note or "truth is on the server")
    return Verdict(question, parsed, float(right), note)


def _in_order(verdicts: Sequence[Verdict]) -> Iterator[tuple[Verdict, str | None]]:
    """Verdicts in MMMU's order, an unread one with the letter that MMMU draws for it."""
    generator = random.Random(SEED)
    for verdict in sorted(verdicts, key=lambda verdict: verdict.question.meta["turn"]):
        options = verdict.question.meta["options"]
        drawn = generator.choice(list(lettered(options))) if options and verdict.parsed is None else None
        yield verdict, drawn


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent right with MMMU's draws: of all, by kind of question, by discipline and by subject."""
    parts: dict[str, list[float]] = {"accuracy": []}
    unlucky, even = [], []
    for verdict, drawn in _in_order(verdicts):
        question = verdict.question
        credit, chance = verdict.credit, verdict.credit
        if drawn is not None and question.truth is not None:
            credit = float(drawn in question.truth)
            chance = len(question.truth) / len(question.meta["options"])
        unlucky.append(verdict.credit)
        even.append(chance)
        kind = "with options" if question.meta["options"] else "open"
        for name in ("accuracy", kind, SUBJECTS[question.category], question.category):
            parts.setdefault(name, []).append(credit)
    figures = {
        "accuracy": percent(parts["accuracy"]),
        "unread answers wrong": percent(unlucky),
        "unread answers at their chance": percent(even),
    }
    names = ("with options", "open", *DISCIPLINES, *sorted(SUBJECTS))
    return figures | {name: percent(parts[name]) for name in names if name in parts}


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """What lmms-eval gives, its draws at their chance, since its generator is shared and cannot be repeated.

    It finds letters by a looser rule and takes the text of a list of truths for one truth. Up to 0.7.2 no open question
    can be right; 0.7.3 scores them as MMMU does.
    """
    with_options, open_ones = [], []
    for question in questions:
        options, truth = lettered(question.meta["options"]), question.meta["answer"]
        truths = [str(one) for one in truth] if isinstance(truth, list) else [str(truth)]
        answer = answers.get(question.id, "")
        if options:
            letter = choices_lmms.mmmu(answer, options)
            chance = len(options.keys() & set(truths)) / len(options)
            with_options.append(float(letter in truths) if letter else chance)
        else:
            open_ones.append(float(fits(candidates(answer), truths)))
    return {
        "lmms-eval 0.7.3: mmmu_acc": percent([*with_options, *open_ones]),
        "lmms-eval 0.7.2: mmmu_acc": percent([*with_options, *(0.0 for _ in open_ones)]),
    }


def submit(questions: Sequence[Question], answers: Mapping[str, str], path: Path) -> None:
    """The server's file: a letter, drawn as MMMU draws it where none is found, or the free answer, by question's id.

    Raises LlavakitError when a question has no answer.
    """
    lacking = [question.id for question in questions if question.id not in answers]
    if lacking:
        raise LlavakitError(
            f"{len(lacking)} questions have no answer, {lacking[0]} first: answer all, then submit"
        )
    rows = {}
    for verdict, drawn in _in_order([mark(question, answers[question.id]) for question in questions]):
        question = verdict.question
        rows[question.id] = (drawn or verdict.parsed) if question.meta["options"] else answers[question.id]
    write_whole(path, json.dumps(rows).encode())


_ZOO, _PAPER, _BLOG = "LLaVA model zoo", "lmms-eval paper", "LLaVA-1.6 blog"
_TABLE = (
    ("LLaVA-1.5-7B", 35.3, _PAPER), ("LLaVA-1.5-13B", 36.4, _BLOG), ("LLaVA-1.5-13B", 34.8, _PAPER),
    ("LLaVA-1.6-Vicuna-7B", 35.8, _ZOO), ("LLaVA-1.6-Vicuna-7B", 35.1, _PAPER),
    ("LLaVA-1.6-Vicuna-13B", 36.2, _ZOO), ("LLaVA-1.6-Vicuna-13B", 35.9, _PAPER),
    ("LLaVA-1.6-Mistral-7B", 35.3, _ZOO), ("LLaVA-1.6-Mistral-7B", 33.4, _PAPER),
    ("LLaVA-1.6-34B", 51.1, _ZOO), ("LLaVA-1.6-34B", 46.7, _PAPER),
    ("InstructBLIP-7B", 28.4, _PAPER), ("InstructBLIP-13B", 33.7, _PAPER), ("Qwen-VL-Chat", 27.7, _PAPER),
)  # fmt: skip
_VARIANTS = (
    Variant("v1.5", "first picture alone, (A) before options, <image 1> stays in the text, LLaVA-1.5"),
    Variant("lmms-eval", "all pictures first, A. before options, <image 1> stays in the text, LLaVA-1.6"),
)

BENCHMARKS = (
    Benchmark(
        name="mmmu",
        title="MMMU, val",
        files=_FILES["validation"],
        variants=_VARIANTS,
        read=partial(read, "validation"),
        mark=mark,
        summarise=summarise,
        headline="accuracy",
        mean=False,
        others=others,
        published=(
            Published("LLaVA-1.5-13B", 36.0, "val, MMMU's own run", "MMMU, llava1.5_13b_val.json"),
            *(
                Published(model, value, "val, as lmms-eval asks" if source == _PAPER else "val", source)
                for model, value, source in _TABLE
            ),
        ),
    ),
    Benchmark(
        name="mmmu_test",
        title="MMMU, test, scored by its server",
        files=_FILES["test"],
        variants=_VARIANTS,
        read=partial(read, "test"),
        mark=mark,
        summarise=summarise,
        headline="accuracy",
        mean=False,
        submission=submit,
    ),
)
