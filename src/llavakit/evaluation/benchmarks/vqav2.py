"""VQAv2: questions about COCO's pictures with ten people's answers each.

LLaVA reports test-dev, whose answers are on a server (EvalAI 830): this writes the file it takes, with every id of
test2015. The 214,354 questions of val2014 are public and scored here as the server would score what LLaVA uploads: the
answer as the m4c tool writes it, by the official tool, which takes capitals for mistakes where all ten people agree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
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
from llavakit.evaluation.pictures import InFile, InParquet
from llavakit.evaluation.reading import (
    field,
    first_found,
    read_json,
    read_parquet,
    text_field,
    with_unique_ids,
)
from llavakit.evaluation.scoring.shares import percent
from llavakit.evaluation.scoring.vqa_accuracy import (
    lmms_vqav2,
    m4c,
    m4c_accuracy,
    official_accuracy,
    soft_accuracy,
)
from llavakit.evaluation.wording import SHORT
from llavakit.evaluation.writing import write_whole

_FROM = "https://visualqa.org/download.html"
VAL = NeededFile("v2_OpenEnded_mscoco_val2014_questions.json", _FROM, "21 MB", required=False)
ANSWERS = NeededFile("v2_mscoco_val2014_annotations.json", _FROM, "158 MB", required=False)
TEST = NeededFile("v2_OpenEnded_mscoco_test2015_questions.json", _FROM, "44 MB", required=False)
DEV = NeededFile("v2_OpenEnded_mscoco_test-dev2015_questions.json", _FROM, "11 MB", required=False)
PICTURES = NeededFile("val2014", "http://images.cocodataset.org/zips/val2014.zip", "6.2 GB", required=False)
TEST_PICTURES = NeededFile(
    "test2015", "http://images.cocodataset.org/zips/test2015.zip", "12.4 GB", required=False
)
COPY = NeededFile(
    "data/validation-*.parquet",
    "https://huggingface.co/datasets/lmms-lab-encoder/VQAv2",
    "34 GB with pictures",
    required=False,
)


def read_val(folder: Path, variant: str) -> list[Question]:
    """The questions of val2014 with people's answers, in the order of the official file or of the Parquet copy."""
    way, asked = first_found(folder, VAL, COPY)
    if way is COPY:
        return with_unique_ids(list(_from_copy(asked)), asked[0])
    told = first_found(folder, ANSWERS)[1]
    people = {
        field(row, "question_id", told[0]): row for row in field(read_json(told[0]), "annotations", told[0])
    }
    questions = []
    for row in field(read_json(asked[0]), "questions", asked[0]):
        number = field(row, "question_id", asked[0])
        if number not in people:
            raise LlavakitError(
                f"{told[0]} has no answers to question {number} of {asked[0].name}: they are of different versions"
            )
        truth = [text_field(one, "answer", told[0]) for one in field(people[number], "answers", told[0])]
        if not truth:
            raise LlavakitError(f"{told[0]}: question {number} has no answers; download it again")
        category = str(people[number].get("answer_type", ""))
        questions.append(_question(folder / PICTURES.path, "val2014", row, truth, category))
    return with_unique_ids(questions, asked[0])


def _from_copy(paths: Sequence[Path]) -> Iterator[Question]:
    for row in read_parquet(paths):
        name = str(field(row.values, "question_id", row.path))
        truth = [text_field(one, "answer", row.path) for one in row.values.get("answers") or ()]
        if not truth:
            raise LlavakitError(f"{row.path}: question {name} has no answers; download it again")
        asked = f"{text_field(row.values, 'question', row.path).strip()}\n{SHORT}"
        category = str(row.values.get("answer_type") or "")
        yield Question(name, (InParquet(row.path, row.row, "image"),), asked, truth, category=category)


def read_test(folder: Path, variant: str) -> list[Question]:
    """The questions of test-dev. meta: the file of test2015, all of whose ids a submission has to hold."""
    (_, dev), (_, test) = first_found(folder, DEV), first_found(folder, TEST)
    rows = field(read_json(dev[0]), "questions", dev[0])
    known = set(map(str, _ids(test[0])))
    if foreign := [name for row in rows if (name := str(field(row, "question_id", dev[0]))) not in known]:
        raise LlavakitError(
            f"{test[0]} lacks question {foreign[0]} of {dev[0].name}, and {len(foreign)} in all: they are of different "
            "versions"
        )
    # not the ids themselves: what a question knows is written beside its answer
    meta = {"test2015": str(test[0])}
    questions = [_question(folder / TEST_PICTURES.path, "test2015", row, None, "", meta) for row in rows]
    return with_unique_ids(questions, dev[0])


def _ids(path: Path) -> list[int]:
    return [int(field(row, "question_id", path)) for row in field(read_json(path), "questions", path)]


def _question(
    pictures: Path,
    split: str,
    row: Mapping[str, object],
    truth: object,
    category: str,
    meta: Mapping[str, object] | None = None,
) -> Question:
    number = int(str(field(row, "image_id", split)))
    picture = InFile(pictures / f"COCO_{split}_{number:012d}.jpg")
    asked = f"{text_field(row, 'question', split).strip()}\n{SHORT}"
    return Question(
        str(field(row, "question_id", split)), (picture,), asked, truth, category=category, meta=meta or {}
    )


def mark(question: Question, answer: str) -> Verdict:
    """Soft accuracy by the official tool of what LLaVA uploads; an answer for the server gets no credit here."""
    uploaded = m4c(answer)
    if question.truth is None:
        return Verdict(question, uploaded, math.nan, "the truth is on a server")
    return Verdict(question, uploaded, official_accuracy(uploaded, question.truth))


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent of all, and by type of answer."""
    figures = {"accuracy": percent([v.credit for v in verdicts])}
    for name in sorted({v.question.category for v in verdicts} - {""}):
        figures[name] = percent([v.credit for v in verdicts if v.question.category == name])
    return figures


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """By the official tool on answers as they stand, by the m4c tool, and by lmms-eval, which always normalises."""
    said = [(answers.get(q.id, ""), q.truth) for q in questions if q.truth is not None]
    return {
        "vqaEval, answers as they stand: accuracy": percent([official_accuracy(*pair) for pair in said]),
        "m4c: accuracy": percent([m4c_accuracy(*pair) for pair in said]),
        "lmms-eval: exact_match": percent(
            [soft_accuracy(lmms_vqav2(a), [lmms_vqav2(t) for t in told]) for a, told in said]
        ),
    }


def submission(questions: Sequence[Question], answers: Mapping[str, str], path: Path) -> None:
    """The file that the server takes: every id of test2015, with nothing for those outside test-dev.

    Raises LlavakitError when a question of test-dev has no answer.
    """
    if lacking := [question.id for question in questions if question.id not in answers]:
        raise LlavakitError(
            f"{len(lacking)} questions have no answer, {lacking[0]} first: answer all, then submit"
        )
    every = _ids(Path(questions[0].meta["test2015"])) if questions else []
    rows = [{"question_id": number, "answer": m4c(answers.get(str(number), ""))} for number in every]
    write_whole(path, json.dumps(rows).encode())


_PAPER, _ZOO = "LLaVA-1.5 paper, table 3", "LLaVA model zoo"
_PUBLISHED = (
    ("LLaVA-1.5-7B", 78.5, _PAPER), ("LLaVA-1.5-13B", 80.0, _PAPER), ("LLaVA-1.5-13B-HD", 81.8, _PAPER),
    ("LLaVA-1.6-Vicuna-7B", 81.8, _ZOO), ("LLaVA-1.6-Vicuna-13B", 82.8, _ZOO), ("LLaVA-1.6-Mistral-7B", 82.2, _ZOO),
    ("LLaVA-1.6-34B", 83.7, _ZOO), ("Qwen-VL-Chat", 78.2, _PAPER),
)  # fmt: skip
_VARIANTS = (Variant("v1.5", "short answer, LLaVA-1.5"), Variant("v1.6", "short answer, LLaVA-1.6"))

BENCHMARKS = (
    Benchmark(
        name="vqav2_val",
        title="VQAv2, val2014",
        files=(VAL, ANSWERS, PICTURES, COPY),
        variants=_VARIANTS,
        read=read_val,
        mark=mark,
        summarise=summarise,
        headline="accuracy",
        others=others,
    ),
    Benchmark(
        name="vqav2",
        title="VQAv2, test-dev, scored by its server",
        files=(DEV, TEST, TEST_PICTURES),
        variants=_VARIANTS,
        read=read_test,
        mark=mark,
        summarise=summarise,
        headline="accuracy",
        submission=submission,
        published=tuple(Published(model, value, "test-dev", source) for model, value, source in _PUBLISHED),
    ),
)
