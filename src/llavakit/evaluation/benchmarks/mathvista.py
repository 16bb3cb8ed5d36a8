"""MathVista: mathematics in pictures, a choice among some or a number or a list to be found; testmini and test.

The short answer is taken out of a reply by rules where these suffice; where they do not, a judge may be asked to take
it out, and without one the reply stands for its own short answer. What comes is brought into the question's form and
compared as text. MathVista's tool asks a model with five examples: these are its authors' words, and are used when they
lie in the data folder as `mathvista-extraction.txt`; else the judge is asked in words of this file.

A text that names no choice becomes the nearest one, so that an empty reply may score: such marks are counted, and a
figure tells the score without them. Truth is public for testmini; test is scored by the authors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
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
from llavakit.evaluation.scoring.choices import option_lines
from llavakit.evaluation.scoring.shares import percent
from llavakit.evaluation.scoring.typed_answers import Form, extracted, normalised
from llavakit.evaluation.wording import DIRECTLY
from llavakit.evaluation.writing import write_whole
from llavakit.synthesis.teacher import Message, TeacherRequest

JUDGE = "gpt-4-0613"
NO_ANSWER = "UNANSWERED"
"""What a judge replies, asked in this file's words, where a reply comes to no answer."""

_GITHUB = "https://github.com/lupantech/MathVista"
_HUB = "https://huggingface.co/datasets/AI4Math/MathVista"
OFFICIAL = NeededFile("data/testmini.json", f"{_GITHUB}, data", "0.9 MB", required=False)
QUERIES = NeededFile("data/query.json", f"{_GITHUB}, data", "1.6 MB", required=False)
PICTURES = NeededFile("data/images", f"{_HUB}, images.zip", "about 0.9 GB", required=False)
COPY = NeededFile("data/testmini-*.parquet", _HUB, "0.14 GB", required=False)
TEST = NeededFile("data/test-*.parquet", _HUB, "0.65 GB", required=False)
EXAMPLES = NeededFile(
    "mathvista-extraction.txt",
    f"{_GITHUB}, the text in evaluation/prompts/ext_ans.py",
    "2 kB",
    required=False,
)

_SHORT = {
    "integer": "Answer the question using a single integer number.",
    "float": "Answer the question using a single floating-point number with {digits} decimal {places}.",
    "list": "Answer the question using a Python list.",
}
_OWN = (
    "Below are a question and somebody's reply to it. To which answer does the reply come? Write {form}, and nothing"
    " else. If the reply comes to no answer, write {no_answer}.\n\nQuestion: {query}\n\nReply: {reply}"
)
_FORMS = {
    "text": "the letter of the choice that it takes, such as B",
    "integer": "a whole number in digits, such as 12",
    "float": "a number in digits, such as 3.5",
    "list": "a list in square brackets, such as [3, 5]",
}


def read(ways: Sequence[NeededFile], folder: Path, variant: str) -> list[Question]:
    """The questions in the file's order. The variant `query` needs the authors' queries beside the official file."""
    way, paths = first_found(folder, *ways)
    queries: Mapping[str, Any] = {}
    if way is OFFICIAL and (variant == "query" or found(folder, QUERIES)):
        queries = read_json(first_found(folder, QUERIES)[1][0])
    examples = "".join(map(_text, found(folder, EXAMPLES))).strip()
    rows = _official(paths[0]) if way is OFFICIAL else _copied(paths)
    questions = []
    for name, row, picture, where in rows:
        query = row.get("query") or queries.get(name)
        if query is None and variant == "query":
            raise LlavakitError(f"{where}: question {name} has no query, neither there nor in {QUERIES.path}")
        questions.append(_question(name, row, picture, where, query, variant, examples, way is not TEST))
    return with_unique_ids(questions, paths[0])


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LlavakitError(f"{path} cannot be read as text in UTF-8: {error}") from error


Row = tuple[str, Mapping[str, Any], PictureSource, Path]


def _official(path: Path) -> Iterator[Row]:
    for name, row in read_json(path).items():
        if text_field(row, "pid", path) != name:
            raise LlavakitError(f"{path}: the question {name} calls itself {row['pid']}: download it again")
        yield name, row, InFile(path.parent / text_field(row, "image", path)), path


def _copied(paths: Sequence[Path]) -> Iterator[Row]:
    for row in read_parquet(paths, pictures=("decoded_image",)):
        picture = InParquet(row.path, row.row, "decoded_image")
        yield text_field(row.values, "pid", row.path), row.values, picture, row.path


def _question(
    name: str,
    row: Mapping[str, Any],
    picture: PictureSource,
    where: Path,
    query: str | None,
    variant: str,
    examples: str,
    has_truth: bool,
) -> Question:
    form = _form(name, row, where)
    asked, unit = text_field(row, "question", where), row.get("unit")
    if unit:
        asked = f"{asked} (Unit: {unit})"
    lines = [asked, option_lines(form.choices), DIRECTLY] if form.choices else [asked, _short(form)]
    if query is not None and not isinstance(query, str):
        raise LlavakitError(f"{where}: the query of question {name} is {query!r:.60}, expected text")
    prompt = query if variant == "query" and query else "\n".join(lines).strip()
    truth = row.get("answer")
    if has_truth and not truth:
        raise LlavakitError(f"{where}: question {name} has no answer; download it again")
    metadata = row.get("metadata") or {}
    return Question(
        id=name,
        pictures=(picture,),
        prompt=prompt,
        truth=text_field(row, "answer", where) if has_truth else None,
        category=str(metadata.get("task") or ""),
        meta={
            "form": form,
            "query": query or prompt,
            "examples": examples,
            "skills": tuple(metadata.get("skills") or ()),
        },
    )


def _form(name: str, row: Mapping[str, Any], where: Path) -> Form:
    kind = text_field(row, "answer_type", where)
    there = row.get("choices") or []
    if not isinstance(there, list):
        raise LlavakitError(f"{where}: the choices of question {name} are {there!r:.60}, expected a list")
    choices = tuple(map(str, there))
    digits = row.get("precision")
    if field(row, "question_type", where) != "multi_choice":
        choices = ()
    elif not choices:
        raise LlavakitError(f"{where}: question {name} is one of choices and has none")
    if kind not in _FORMS or (not choices and (kind == "text" or (kind == "float" and digits is None))):
        raise LlavakitError(
            f"{where}: question {name} wants a {kind} with {digits} digits, which no rule reads"
        )
    return Form(kind, choices, int(digits or 0))  # the copy has the digits as a float


def _short(form: Form) -> str:
    number = {1: "one", 2: "two", 3: "three"}.get(form.digits, str(form.digits))
    return _SHORT[form.kind].format(digits=number, places="place" if form.digits == 1 else "places")


def mark(question: Question, answer: str) -> Verdict:
    """Right when the reply's short answer, else the reply itself, is the truth in the question's form."""
    short = extracted(answer, question.meta["form"])
    if short is None:
        return _marked(question, answer.strip(), "no rule reads it, taken whole")
    return _marked(question, short, "" if short else "empty")


def _marked(question: Question, short: str, note: str) -> Verdict:
    form: Form = question.meta["form"]
    result = normalised(short, form)
    told = "the nearest choice" if result.nearest else f"no {form.kind}" if result.text is None else ""
    note = ": ".join(part for part in (note, told) if part)
    if question.truth is None:
        return Verdict(question, result.text, math.nan, note or "truth is with the authors")
    credit = float(result.text == question.truth)
    facts = {"alone": credit, "sure": 0.0 if result.nearest else credit}
    return Verdict(question, result.text, credit, note, facts)


def ask_judge(question: Question, answer: str) -> TeacherRequest | None:
    """Which short answer a reply comes to; None where the rules take it out, or the reply is empty."""
    form: Form = question.meta["form"]
    if extracted(answer, form) is not None:
        return None
    query, examples = question.meta["query"], question.meta["examples"]
    text = (
        f"{examples}\n\n{query}\n\n{answer}\n\nExtracted answer: "
        if examples
        else _OWN.format(form=_FORMS[form.kind], no_answer=NO_ANSWER, query=query, reply=answer)
    )
    return TeacherRequest((Message("user", text),), JUDGE, seed=None, temperature=0.0, max_tokens=256)


def mark_judged(question: Question, answer: str, reply: str) -> Verdict:
    """The mark of the short answer that the judge gave. What the rules alone say goes along."""
    alone = mark(question, answer).facts["alone"]
    if reply.strip() == NO_ANSWER:
        return Verdict(question, None, 0.0, "the judge finds no answer", {"alone": alone, "sure": 0.0})
    judged = _marked(question, reply.strip(), "read by the judge")
    return replace(judged, facts={**judged.facts, "alone": alone})


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent right: of all, by rules alone, without nearest choices; by question, answer, task and skill."""
    parts: dict[str, list[float]] = {"accuracy": []}
    for verdict in verdicts:
        question, form = verdict.question, verdict.question.meta["form"]
        names = ["accuracy", "of choices" if form.choices else "free", f"answer: {form.kind}"]
        names += [f"task: {question.category}"] * bool(question.category)
        for name in [*names, *(f"skill: {skill}" for skill in question.meta["skills"])]:
            parts.setdefault(name, []).append(verdict.credit)
    figures = {"accuracy": percent(parts.pop("accuracy"))}
    for name, fact in (("without a judge", "alone"), ("without nearest choices", "sure")):
        figures[name] = percent([verdict.facts.get(fact, math.nan) for verdict in verdicts])
    return figures | {name: percent(part) for name, part in sorted(parts.items())}


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """What two tools give for the same short answers, taken by rules alone.

    MathVista's own has an option by which an empty reply is no choice. lmms-eval rounds to a number of digits that its
    copy has as a float, which fails, so that no decimal can be right there (0.7.3).
    """
    whole, floatless = [], []
    for question in questions:
        verdict = mark(question, answers.get(question.id, ""))
        empty = not answers.get(question.id, "").strip()
        whole.append(0.0 if empty and question.meta["form"].choices else verdict.credit)
        floatless.append(0.0 if question.meta["form"].kind == "float" else verdict.credit)
    return {
        "MathVista: without a judge, empty replies ignored": percent(whole),
        "lmms-eval 0.7.3: without a judge, decimals lost": percent(floatless),
    }


def submit(questions: Sequence[Question], answers: Mapping[str, str], path: Path) -> None:
    """The file that the authors take by mail: replies by question. Raises LlavakitError when one is lacking."""
    lacking = [question.id for question in questions if question.id not in answers]
    if lacking:
        raise LlavakitError(
            f"{len(lacking)} questions have no answer, {lacking[0]} first: answer all, then submit"
        )
    rows = {question.id: answers[question.id] for question in questions}
    write_whole(path, json.dumps(rows, indent=1).encode())


_ZOO, _PAPER, _BLOG = "LLaVA model zoo", "lmms-eval paper", "LLaVA-1.6 blog"
_TABLE = (
    ("LLaVA-1.5-7B", 26.7, _PAPER), ("LLaVA-1.5-13B", 27.6, _BLOG), ("LLaVA-1.5-13B", 26.4, _PAPER),
    ("LLaVA-1.6-Vicuna-7B", 34.6, _ZOO), ("LLaVA-1.6-Vicuna-7B", 34.4, _PAPER),
    ("LLaVA-1.6-Vicuna-13B", 35.3, _ZOO), ("LLaVA-1.6-Vicuna-13B", 35.1, _PAPER),
    ("LLaVA-1.6-Mistral-7B", 37.7, _ZOO), ("LLaVA-1.6-Mistral-7B", 37.4, _PAPER),
    ("LLaVA-1.6-34B", 46.5, _ZOO), ("LLaVA-1.6-34B", 46.0, _PAPER),
    ("InstructBLIP-7B", 23.4, _PAPER), ("InstructBLIP-13B", 25.0, _PAPER), ("Qwen-VL-Chat", 24.6, _PAPER),
)  # fmt: skip
_VARIANTS = (
    Variant("format", "short answer as lmms-eval's format task asks, rules first, nearest choice"),
    Variant("query", "MathVista's own query with its hint, rules first, nearest choice"),
)

BENCHMARKS = (
    Benchmark(
        name="mathvista",
        title="MathVista, testmini",
        files=(OFFICIAL, QUERIES, PICTURES, COPY, EXAMPLES),
        variants=_VARIANTS,
        read=partial(read, (OFFICIAL, COPY)),
        mark=mark,
        summarise=summarise,
        headline="accuracy",
        max_new_tokens=1024,
        others=others,
        ask_judge=ask_judge,
        mark_judged=mark_judged,
        published=(
            Published("LLaVA (LLaMA-2-13B)", 26.1, "testmini, query, a judge extracts", "MathVista, results"),
            *(
                Published(model, value, "testmini, a judge extracts", source)
                for model, value, source in _TABLE
            ),
        ),
    ),
    Benchmark(
        name="mathvista_test",
        title="MathVista, test, scored by its authors",
        files=(TEST, EXAMPLES),
        variants=_VARIANTS,
        read=partial(read, (TEST,)),
        mark=mark,
        summarise=summarise,
        headline="accuracy",
        max_new_tokens=1024,
        submission=submit,
    ),
)
