"""MM-Vet: 218 free answers, each marked from 0 to 1 by a judge that reads question, truth and answer in a table.

The score is 100 times the mean mark. Every question needs one or more of six capabilities, and there is a mean for each
capability and for each set of them. The judge is shown marked examples first; they are MM-Vet's own, read from its
evaluator, which is opened as text and never run. The variant `own-examples` does without that file, by examples of
llavakit's: another protocol, so another number.

A reply that is no number from 0 to 1 is asked for again, four times, as the official tool does; that then takes it for
0, which is given beside the score, while the score leaves the answer out and counts it.

Judges drift: LLaVA-1.5-7B's published answers gave 31.1 when they were published and 27.9 by MM-Vet's server later.
Compare under one judge alone, by the name and the days that stand in the results.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
    found,
    read_json,
    read_parquet,
    text_field,
    with_unique_ids,
)
from llavakit.evaluation.writing import write_whole
from llavakit.synthesis.teacher import Message, TeacherRequest

JUDGE = "gpt-4-0613"
CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")
TRIES = 5
UNREAD = "the judge gave no number from 0 to 1"
AS_ZERO = "MM-Vet's tool: unread replies as 0"

_REPOSITORY = "https://github.com/yuweihao/MM-Vet"
_ARCHIVE = f"{_REPOSITORY}/releases/download/v1/mm-vet.zip"
OFFICIAL = NeededFile("mm-vet.json", _ARCHIVE, "100 kB, 67 MB with the pictures")
PICTURES = NeededFile("images", _ARCHIVE, "67 MB, 200 pictures", required=False)
COPY = NeededFile(
    "data/test-*.parquet", "https://huggingface.co/datasets/lmms-lab-encoder/MMVet", "67 MB", required=False
)
EVALUATOR = NeededFile("mm-vet_evaluator.py", _REPOSITORY, "15 kB", required=False)
NOTEBOOK = NeededFile("mm-vet_evaluator.ipynb", _REPOSITORY, "20 kB", required=False)

OWN = "own-examples"
_HEADER = "Question | Ground truth | Prediction | Correctness\n--- | --- | --- | ---\n"
_FRUIT = "Which fruits lie on the plate? | apple <AND> pear"
_CLOCK = "What time does the clock show? | 3:15 <OR> a quarter past three"
_HURRY = (
    "Why does the man run? | The doors of the train behind him are closing, and he would have to wait an hour for the "
    "next one."
)
OWN_EXAMPLES = (
    "You mark answers to questions about pictures. Every row of the table has a question, the ground truth, "
    "somebody's prediction and a mark for how correct that is: 0.0 when nothing is right, 1.0 when everything is, and "
    "steps of 0.1 between. A ground truth with <AND> is met when the prediction has all of its parts; one with <OR> "
    "when it has any of them. Extra words do no harm as long as they are true. The last row lacks its mark: write that "
    "number alone.\n\n"
    f"{_HEADER}"
    f"{_FRUIT} | Two bananas. | 0.0\n"
    f"{_FRUIT} | I see an apple. | 0.5\n"
    f"{_FRUIT} | A pear, and next to it a red apple. | 1.0\n"
    f"{_CLOCK} | half past three | 0.0\n"
    f"{_CLOCK} | It shows 3:15 in the afternoon. | 1.0\n"
    f"{_HURRY} | He likes to exercise in the morning. | 0.0\n"
    f"{_HURRY} | He wants to catch a train. | 0.6\n"
)


def read(folder: Path, variant: str) -> list[Question]:
    """The questions of the official file or of the copy as Parquet, in its order, with the judge's examples."""
    whose, examples = ("llavakit's", OWN_EXAMPLES) if variant == OWN else ("MM-Vet's", _official(folder))
    way, paths = first_found(folder, OFFICIAL, COPY)
    rows = _rows(folder, paths[0]) if way is OFFICIAL else _copied(paths)
    questions = []
    for name, row, picture, where in rows:
        told = field(row, "capability", where)
        needed = [one.strip() for one in told.split(",")] if isinstance(told, str) else told
        capabilities = [one for one in CAPABILITIES if one in needed]
        capabilities += sorted({str(one) for one in needed} - set(CAPABILITIES))
        truth = {
            "answer": text_field(row, "answer", where),
            "capabilities": capabilities,
            "judged by": f"{whose} examples",
        }
        text = text_field(row, "question", where)
        meta = {"examples": examples}
        questions.append(Question(name, (picture,), text, truth, category="+".join(capabilities), meta=meta))
    return with_unique_ids(questions, paths[0])


Row = tuple[str, Mapping[str, Any], PictureSource, str]


def _rows(folder: Path, path: Path) -> Iterator[Row]:
    document = read_json(path)
    if not isinstance(document, dict):
        raise LlavakitError(f"{path} holds {type(document).__name__}, expected an object from id to question")
    for name, row in document.items():
        where = f"{path}, question {name}"
        yield name, row, InFile(folder / PICTURES.path / text_field(row, "imagename", where)), where


def _copied(paths: Sequence[Path]) -> Iterator[Row]:
    for row in read_parquet(paths):
        where = f"{row.path}, row {row.row}"
        name = text_field(row.values, "question_id", where)
        yield name, row.values, InParquet(row.path, row.row, "image"), where


def _official(folder: Path) -> str:
    """The text that MM-Vet's evaluator gives to its variable `prompt`."""
    ways = [path for way in (EVALUATOR, NOTEBOOK) for path in found(folder, way)]
    if not ways:
        told = "; or ".join(f"{way.path} ({way.size}) from {way.source}" for way in (EVALUATOR, NOTEBOOK))
        raise LlavakitError(
            f"{folder} lacks the examples that MM-Vet's judge is shown: put there {told}; or take llavakit's own with "
            f"--variant {OWN}, which gives another number"
        )
    path = ways[0]
    if path.suffix == ".ipynb":
        cells = field(read_json(path), "cells", path)
        sources = ["".join(cell.get("source", ())) for cell in cells if cell.get("cell_type") == "code"]
    else:
        sources = [path.read_text("utf-8")]
    for source in sources:
        try:
            parts = ast.parse(source).body
        except (SyntaxError, ValueError):
            continue  # a notebook's cell may hold commands that are no Python
        for part in parts:
            if not isinstance(part, ast.Assign) or not isinstance(part.value, ast.Constant):
                continue
            named = [target.id for target in part.targets if isinstance(target, ast.Name)]
            if "prompt" in named and isinstance(part.value.value, str):
                return part.value.value
    raise LlavakitError(f"{path} assigns no text to `prompt`: download it again")


def answer_id(row: Mapping[str, Any]) -> str:
    """The question of a saved answer: `v1_7`, which LLaVA's files write as the number 7."""
    name = str(row["question_id"] if "question_id" in row else row["id"])
    return f"v1_{name}" if name.isdecimal() else name


def ask_judge(question: Question, answer: str) -> TeacherRequest:
    """One message: the examples, and the answer as the table's last row."""
    truth = question.truth["answer"].replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    row = " | ".join([question.prompt, truth, answer, ""])
    content = f"{question.meta['examples']}\n{row}"
    return TeacherRequest((Message("user", content),), JUDGE, seed=None, temperature=0.0, max_tokens=3)


def ask_judge_again(first: TeacherRequest, asked: int) -> TeacherRequest | None:
    """The same with a line that asks for a digit, at a temperature that rises by a half each time but the first."""
    if asked >= TRIES:
        return None
    content = f"{first.messages[0].content}\nPredict the correctness of the answer (digit): "
    return replace(first, messages=(Message("user", content),), temperature=0.5 * (asked - 1))


def mark(question: Question, answer: str) -> Verdict:
    """No mark: a judge has to be asked."""
    return Verdict(question, None, math.nan, "not judged")


def mark_judged(question: Question, answer: str, reply: str) -> Verdict:
    """The number up to the reply's first space."""
    try:
        score = float(reply.split(" ")[0].strip())
    except ValueError:
        score = math.nan
    if not 0 <= score <= 1:
        return Verdict(question, None, math.nan, UNREAD, {"reply": reply[:500]})
    return Verdict(question, f"{score:g}", score)


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Means in percent of the replies that could be read: of all, of each capability, and of each set of them."""
    all_scores = [verdict.credit for verdict in verdicts]
    figures = {
        "total": _mean(all_scores),
        AS_ZERO: _mean([0.0 if math.isnan(score) else score for score in all_scores]),
    }
    by_capability: dict[str, list[float]] = {name: [] for name in CAPABILITIES}
    by_set: dict[str, list[float]] = {}
    for verdict in verdicts:
        for name in verdict.question.truth["capabilities"]:
            by_capability.setdefault(name, []).append(verdict.credit)
        by_set.setdefault(f"set: {verdict.question.category}", []).append(verdict.credit)
    named = {name: scores for name, scores in by_capability.items() if scores}
    return figures | {name: _mean(scores) for name, scores in {**named, **by_set}.items()}


def _mean(scores: Sequence[float]) -> float:
    known = [score for score in scores if math.isfinite(score)]
    return 100 * math.fsum(known) / len(known) if known else math.nan


def submission(questions: Sequence[Question], answers: Mapping[str, str], path: Path) -> None:
    """The file that MM-Vet's server and evaluator take: answers by question."""
    write_whole(path, json.dumps({question.id: answers[question.id] for question in questions}).encode())


_PUBLISHED = (
    ("LLaVA-1.5-7B", 31.1), ("LLaVA-1.5-13B", 36.1), ("LLaVA-1.5-7B, LoRA", 30.2), ("LLaVA-1.5-13B, LoRA", 38.3),
    ("LLaVA-1.5-13B-HD", 39.4), ("LLaVA-1.6-Vicuna-7B", 43.9), ("LLaVA-1.6-Vicuna-13B", 48.4),
    ("LLaVA-1.6-Mistral-7B", 47.3), ("LLaVA-1.6-34B", 57.4), ("InstructBLIP-7B", 26.2), ("InstructBLIP-13B", 25.6),
)  # fmt: skip

BENCHMARK = Benchmark(
    name="mm_vet",
    title="MM-Vet",
    files=(OFFICIAL, COPY, PICTURES, EVALUATOR, NOTEBOOK),
    variants=(
        Variant("v1.5", "asked as written, judged by MM-Vet's examples"),
        Variant(OWN, "asked as written, judged by llavakit's examples"),
    ),
    read=read,
    mark=mark,
    summarise=summarise,
    headline="total",
    max_new_tokens=1024,
    submission=submission,
    answer_id=answer_id,
    published=tuple(
        Published(
            model,
            value,
            "GPT-4 of its day judges by MM-Vet's examples",
            "LLaVA-1.5 paper and model zoo",
        )
        for model, value in _PUBLISHED
    ),
    ask_judge=ask_judge,
    mark_judged=mark_judged,
    ask_judge_again=ask_judge_again,
    needs_judge=True,
)
