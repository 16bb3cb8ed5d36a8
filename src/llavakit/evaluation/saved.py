"""Answers that were saved by llavakit, LLaVA or another tool, joined to the questions they are for.

Read are: lines of JSON or a JSON list of rows, a JSON object from id to answer or to a row, and LLaVA's `output.json`
of ScienceQA (rows under `correct` and `incorrect`). The order is of no account. Nothing is joined by guess: what is
missing, doubled, foreign or odd is counted, and what would make a score wrong is refused.

Knows files and ids. Does not mark.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Benchmark, Question
from llavakit.evaluation.placed import by_place

Row = Mapping[str, Any]

OWN_ID = "llavakit_question"
"""The field under which llavakit saves a question's id, which goes before what a benchmark makes of other fields."""
ID_FIELDS = ("question_id", "questionId", "id", "index")
TEXT_FIELDS = ("prediction", "pred", "response", "text", "answer", "caption")
"""The first of these that a row has; `text` and `answer` beside a prediction are the question and the truth."""
LONG = 10_000
"""Characters past which an answer is counted as very long."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The questions that are scored, their answers by id, and what was noticed, by phrase.

    missing: ids of questions without an answer. unknown: ids of answers without a question.
    """

    questions: tuple[Question, ...]
    answers: dict[str, str]
    counts: dict[str, int]
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def read_rows(path: Path) -> list[Row]:
    """The rows of a file of answers, each with an id and a text under one of their usual names.

    Raises LlavakitError when the file is missing, not whole, or of no form that is known.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise LlavakitError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LlavakitError(f"{path} is not text in UTF-8: {error}") from error
    if not text.strip():
        raise LlavakitError(f"{path} is empty, expected answers: lines of JSON, a JSON list or a JSON object")
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    document = _value(lines[0][1], f"{path}, line {lines[0][0]}") if len(lines) == 1 else _whole(text, path)
    if document is None:
        rows = [_value(line, f"{path}, line {number}") for number, line in lines]
    elif isinstance(document, list):
        rows = document
    elif {"correct", "incorrect"} <= document.keys() and isinstance(document["correct"], list):
        rows = [*document["correct"], *document["incorrect"]]
    elif any(name in document for name in ID_FIELDS) and any(name in document for name in TEXT_FIELDS):
        rows = [document]
    else:
        rows = [
            {**answer, "question_id": name}
            if isinstance(answer, dict)
            else {"question_id": name, "text": answer}
            for name, answer in document.items()
        ]
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise LlavakitError(
                f"{path}, row {place + 1} is {type(row).__name__}, expected an object of JSON"
            )
    return rows


def _whole(text: str, path: Path) -> Any:
    """The file as one JSON value; None when it has to be read line by line."""
    try:
        document = json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, str(path)))
    except (ValueError, RecursionError) as error:
        first = text.lstrip()[:1]
        second = text.strip().split("\n", 1)[0].strip()
        if first == "{" and second.endswith("}"):
            return None
        raise LlavakitError(f"{path} is not whole JSON ({error})") from error
    if not isinstance(document, list | dict):
        raise LlavakitError(
            f"{path} holds {type(document).__name__}, expected a list or an object of answers"
        )
    return document


def _value(line: str, where: str) -> Any:
    try:
        value = json.loads(line, object_pairs_hook=lambda pairs: _once(pairs, where))
    except (ValueError, RecursionError) as error:
        raise LlavakitError(f"{where} is not whole JSON ({error})") from error
    if not isinstance(value, list | dict):
        raise LlavakitError(
            f"{where} holds {type(value).__name__}, expected an object with an id and an answer"
        )
    return value


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """An object, unless a name in it has two values, of which JSON's reader would silently keep the last."""
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made and made[name] != value:
            raise LlavakitError(f"{where}: {name!r} stands there twice with different values; keep one")
        made[name] = value
    return made


def join(
    benchmark: Benchmark, questions: Sequence[Question], rows: Sequence[Row], *, partial: bool = False
) -> Joined:
    """Answers by the ids of their questions.

    partial: scores the questions that have an answer, whole units only. Raises LlavakitError when a question has no
    answer (unless partial), when one has two that differ, or when nothing is left to score.
    """
    counts: Counter[str] = Counter()
    known = {question.id for question in questions}
    answers: dict[str, str] = {}
    unknown: dict[str, None] = {}
    ids = [id_of(benchmark, row, place) for place, row in enumerate(rows)]
    if placed := by_place(benchmark.name, questions, rows, ids):
        ids, counts["answers joined by their question's place in the file"] = placed, len(placed)
    for place, row in enumerate(rows):
        name, text = ids[place], _text(row, place)
        counts["answers whose prediction is null, their response taken"] += _is_unpredicted(row)
        if name not in known:
            counts["answers to no question"] += 1
            unknown[name] = None
        elif name not in answers:
            answers[name] = text
        elif answers[name] == text:
            counts["answers given twice, the same"] += 1
        else:
            raise LlavakitError(
                f"question {name} has two answers that differ ({_short(answers[name])} and {_short(text)}); keep one"
            )
    missing = [question.id for question in questions if question.id not in answers]
    scored = list(questions)
    if missing and not partial:
        foreign = (
            f"; {len(unknown)} answers are to no question, such as {next(iter(unknown))}" if unknown else ""
        )
        raise LlavakitError(
            f"{benchmark.name}: {len(missing)} of {len(questions)} questions have no answer, {missing[0]} first"
            f"{foreign}; answer them all, or score what is there with --partial"
        )
    if missing:
        counts["questions without an answer, left out"] = len(missing)
        gone = {question.unit for question in questions if question.unit and question.id not in answers}
        scored = [question for question in questions if question.id in answers and question.unit not in gone]
        broken = len(questions) - len(missing) - len(scored)
        if broken:
            counts["answered questions of units that are not whole, left out"] = broken
    if not scored:
        raise LlavakitError(f"{benchmark.name}: none of its {len(questions)} questions can be scored")
    kept = {question.id: answers[question.id] for question in scored}
    counts.update(oddities(kept.values()))
    return Joined(tuple(scored), kept, dict(+counts), tuple(missing), tuple(unknown))


def id_of(benchmark: Benchmark, row: Row, place: int) -> str:
    """The question that a row is about; raises LlavakitError, with the row's place, when it names none."""
    if OWN_ID in row:
        return str(row[OWN_ID])
    if benchmark.answer_id is not None:
        try:
            return benchmark.answer_id(row)
        except (KeyError, TypeError, ValueError, LlavakitError) as error:
            raise LlavakitError(f"answers, row {place + 1} names no question: {error}") from error
    there = {name: row[name] for name in ID_FIELDS if name in row}
    for value in there.values():
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
    for name, value in there.items():
        raise LlavakitError(
            f"answers, row {place + 1}: {name} is {value!r:.60}, expected a text or a whole number"
        )
    raise LlavakitError(
        f"answers, row {place + 1} has no id under {', '.join(ID_FIELDS)} (it has: {', '.join(row) or 'nothing'})"
    )


def _is_unpredicted(row: Row) -> bool:
    """Whether a tool that makes predictions of responses, as MathVista's does, made none of this one."""
    return row.get("prediction", "") is None and isinstance(row.get("response"), str)


def _text(row: Row, place: int) -> str:
    for name in TEXT_FIELDS[_is_unpredicted(row) :]:
        if name in row:
            value = row[name]
            if isinstance(value, str):
                return value
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                return str(value)
            raise LlavakitError(f"answers, row {place + 1}: {name} is {value!r:.60}, expected text")
    raise LlavakitError(
        f"answers, row {place + 1} has no answer under {', '.join(TEXT_FIELDS)} (it has: {', '.join(row)})"
    )


def oddities(answers: Iterable[str]) -> Counter[str]:
    """How many answers are empty, very long, or hold control characters."""
    counts: Counter[str] = Counter()
    for answer in answers:
        counts["answers that are empty"] += not answer.strip()
        counts[f"answers of more than {LONG:,} characters"] += len(answer) > LONG
        counts["answers with control characters"] += any(
            unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
            for character in answer[:LONG]
            if not character.isprintable()
        )
    return +counts


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
