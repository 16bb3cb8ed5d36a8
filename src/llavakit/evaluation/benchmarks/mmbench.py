"""MMBench and MMBench-CN: questions with two to four options, asked once for every rotation of their options.

Circular: a question counts when every one of its rotations is right; vanilla: when its first form is. The rotations are
rows of the table, told by the index modulo a million, and not every question has as many as it has options. The option
is read as VLMEvalKit reads it without a judge; what it cannot read is wrong, and a judge may be asked about it.

Three development sets are about: of 2023-07-12 (1,176 questions, LLaVA-1.5's), later ones (1,164), and V1.1, which is
another benchmark. Truth is public for `dev`; `test` is scored by the server.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from llavakit.evaluation.pictures import InBase64, InParquet, PictureSource
from llavakit.evaluation.reading import (
    field,
    first_found,
    read_parquet,
    read_tsv,
    text_field,
    with_unique_ids,
)
from llavakit.evaluation.scoring.choices import REFUSED, lettered, mmbench_choice, option_lines
from llavakit.evaluation.scoring.choices_lmms import static
from llavakit.evaluation.scoring.shares import percent
from llavakit.evaluation.spreadsheet import write_spreadsheet
from llavakit.evaluation.wording import DIRECTLY
from llavakit.synthesis.teacher import Message, TeacherRequest

_LANGUAGES = ("en", "cn")
_DIRECTLY = {"en": DIRECTLY, "cn": "请直接回答选项字母。"}
_LMMS = {"en": DIRECTLY, "cn": "请直接使用所提供的选项字母作为答案回答。"}
_ROTATION = 1_000_000
# the texts that the official tools, which read the table with pandas, take for an empty cell, and LLaVA's two
_ABSENT = {
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null", "none", "NAN", "NONE",
}  # fmt: skip
_OPENMMLAB = "https://download.openmmlab.com/mmclassification/datasets/mmbench"
_OPENCOMPASS = "https://opencompass.openxlab.space/utils/VLMEval"
_COPY = "https://huggingface.co/datasets/lmms-lab-encoder/MMBench"


def _files(language: str, split: str) -> tuple[NeededFile, ...]:
    """The ways to have one split, LLaVA-1.5's first."""
    dated = {
        ("en", "dev"): "mmbench_dev_20230712.tsv",
        ("cn", "dev"): "mmbench_dev_cn_20231003.tsv",
        ("en", "test"): "mmbench_test_en_20231003.tsv",
        ("cn", "test"): "mmbench_test_cn_20231003.tsv",
    }[language, split]
    newer = f"MMBench_{split.upper()}_{language.upper()}.tsv"
    size = "about 0.1 GB" if split == "dev" else "about 0.2 GB"
    return (
        NeededFile(dated, f"{_OPENMMLAB}/{dated}", size, required=False),
        NeededFile(newer, f"{_OPENCOMPASS}/{newer}", size, required=False),
        NeededFile(f"{language}/{split}-*.parquet", _COPY, size, required=False),
    )


def read(language: str, folder: Path, variant: str) -> list[Question]:
    """Every row of the table, rotations included, each a question with the unit of its first form."""
    way, paths = first_found(folder, *_files(language, "test" if variant == "test" else "dev"))
    rows = _from_copy(paths) if way.path.endswith(".parquet") else _from_table(paths[0])
    ask = _as_lmms if variant == "lmms-eval" else _as_llava
    questions = [_question(row, picture, language, ask, paths[0]) for row, picture in rows]
    if 0 < (lacking := sum(not question.truth for question in questions)) < len(questions):
        raise LlavakitError(
            f"{paths[0]}: {lacking} of {len(questions)} rows have no answer, expected all or none: download it again"
        )
    return with_unique_ids(questions, paths[0])


def _from_table(path: Path) -> Iterator[tuple[Mapping[str, Any], PictureSource]]:
    rows = read_tsv(path)
    pictures = {str(row.get("index", "")): row.get("image", "") for row in rows}
    for row in rows:
        text = text_field(row, "image", path)
        # newer tables write a picture once, and the index of its row where it comes again
        text = pictures.get(text, text) if len(text) <= 64 else text
        if len(text) <= 64 and text.strip().isdigit():
            raise LlavakitError(
                f"{path}: row {row.get('index')} has the picture of row {text}, which is not there"
            )
        yield row, InBase64(text)


def _from_copy(paths: Sequence[Path]) -> Iterator[tuple[Mapping[str, Any], PictureSource]]:
    for row in read_parquet(paths):
        yield row.values, InParquet(row.path, row.row, "image")


def _cell(row: Mapping[str, Any], name: str) -> str:
    """A cell's text, "" where the official tools see nothing."""
    value = row.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value) in _ABSENT:
        return ""
    return str(value)


def _options(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The options up to the first that is missing."""
    options: list[str] = []
    for letter in "ABCD":
        text = _cell(row, letter)
        if not text:
            break
        options.append(text)
    return tuple(options)


def _as_llava(row: Mapping[str, Any], language: str) -> str:
    hint = _cell(row, "hint")
    return (
        f"{hint}\n" * bool(hint) + f"{row['question']}\n{option_lines(_options(row))}\n{_DIRECTLY[language]}"
    )


def _as_lmms(row: Mapping[str, Any], language: str) -> str:
    hint = _cell(row, "hint")
    start = f"{hint} {row['question']}" if hint else str(row["question"])
    # the lead is English in both languages; the line of the format, joined by a line end, begins with another
    return f"{start} There are several options:\n{option_lines(_options(row))}\n\n{_LMMS[language]}"


def _question(
    row: Mapping[str, Any],
    picture: PictureSource,
    language: str,
    ask: Callable[[Mapping[str, Any], str], str],
    where: Path,
) -> Question:
    cell = field(row, "index", where)
    try:
        index = int(float(cell))
    except (TypeError, ValueError, OverflowError) as error:
        raise LlavakitError(f"{where} has the index {cell!r}, which is no number") from error
    text_field(row, "question", where)
    options, truth = _options(row), _cell(row, "answer")
    if len(options) < 2 or (truth and truth not in lettered(options)):
        raise LlavakitError(f"{where}, index {index}: {len(options)} options and the answer {truth!r}")
    category = _cell(row, "category")
    return Question(
        id=str(index),
        pictures=(picture,),
        prompt=ask(row, language),
        truth=truth,
        category=category,
        unit=str(index % _ROTATION),
        meta={
            "options": options,
            "question": str(row["question"]),
            "l2-category": _cell(row, "l2-category") or _cell(row, "L2-category"),
            "split": _cell(row, "split"),
            "rotation": index // _ROTATION,
        },
    )


def mark(question: Question, answer: str) -> Verdict:
    """One rotation: right when the option that is read is the true one. Without a truth (`test`) the credit is nan."""
    return _marked(question, mmbench_choice(answer, lettered(question.meta["options"])))


def _marked(question: Question, letter: str | None) -> Verdict:
    if not question.truth:
        return Verdict(question, letter, math.nan, "truth is on the server")
    note = "no option found" if letter is None else "declined" if letter == REFUSED else ""
    return Verdict(question, letter, float(letter == question.truth), note)


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent of questions right in every rotation, and in their first form; circular by category."""
    units: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        units.setdefault(verdict.question.unit, []).append(verdict)
    hits = {unit: _all_right([verdict.credit for verdict in rows]) for unit, rows in units.items()}
    first = [verdict.credit for verdict in verdicts if not verdict.question.meta["rotation"]]
    figures = {"circular": percent(list(hits.values())), "vanilla": percent(first)}
    parts: dict[str, list[float]] = {}
    for unit, rows in units.items():
        question = rows[0].question
        for name in (question.meta["l2-category"], question.category):
            if name:
                parts.setdefault(f"circular: {name}", []).append(hits[unit])
    return figures | {name: percent(part) for name, part in sorted(parts.items())}


def _all_right(credits: list[float]) -> float:
    return math.nan if any(map(math.isnan, credits)) else float(all(credits))


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """What lmms-eval's `static` task gives, which knows no judge either but reads other forms; it is English alone."""
    units: dict[str, bool] = {}
    for question in questions:
        letter = static(answers.get(question.id, ""), lettered(question.meta["options"]))
        units[question.unit] = units.get(question.unit, True) and letter == question.truth
    known = all(question.truth for question in questions)
    return {"lmms-eval: static": percent([float(hit) for hit in units.values()]) if known else math.nan}


_JUDGE = {
    "en": (
        "Below are a question, its options and what somebody replied. Which option does the reply mean? Reply with the"
        " letter of that option alone. If the reply means none of them, reply Z.\n\nQuestion: {question}\n\nOptions:\n"
        "{options}\n\nReply: {answer}\n\nLetter:"
    ),
    "cn": (
        "下面有一个问题、它的选项和某人的回答。这个回答的意思最接近哪个选项？只写出该选项的字母；如果与所有选项都不"
        "相符，写 Z。\n\n问题：{question}\n\n选项：\n{options}\n\n回答：{answer}\n\n字母："
    ),
}


def ask_judge(language: str, question: Question, answer: str) -> TeacherRequest | None:
    """Asks which option is meant, where no rule reads one and there is an answer at all."""
    options = question.meta["options"]
    if mmbench_choice(answer, lettered(options)) or not answer.strip():
        return None
    text = _JUDGE[language].format(
        question=question.meta["question"], options=option_lines(options), answer=answer
    )
    return TeacherRequest((Message("user", text),), temperature=0.0, max_tokens=16)


def mark_judged(question: Question, answer: str, reply: str) -> Verdict:
    """The mark by the letter that the judge gave; a reply without one leaves the answer unread."""
    options = lettered(question.meta["options"])
    return _marked(question, mmbench_choice(answer, options) or mmbench_choice(reply, options))


def submit(questions: Sequence[Question], answers: Mapping[str, str], path: Path) -> None:
    """The server's spreadsheet: LLaVA's columns, a row a rotation. Raises LlavakitError where answers are lacking."""
    lacking = [question.id for question in questions if question.id not in answers]
    if lacking:
        raise LlavakitError(
            f"{len(lacking)} questions have no answer, {lacking[0]} first: answer all, then submit"
        )
    has_truth = any(question.truth for question in questions)
    header = ["index", "question", *"ABCD", "prediction", *(["answer"] if has_truth else []), "split"]
    rows: list[list[str | int | None]] = [list(header)]
    for question in questions:
        options = (*question.meta["options"], None, None, None, None)[:4]
        end = [question.truth, question.meta["split"]] if has_truth else [question.meta["split"]]
        rows.append([int(question.id), question.meta["question"], *options, answers[question.id], *end])
    write_spreadsheet(path, rows)


_PAPER, _ZOO = "LLaVA-1.5 paper, table 4", "LLaVA model zoo"
_PUBLISHED = {  # English, Chinese, source
    "LLaVA-1.5-7B": (64.3, 58.3, _PAPER),
    "LLaVA-1.5-13B": (67.7, 63.6, _PAPER),
    "LLaVA-1.5-7B-LoRA": (66.1, 58.9, _ZOO),
    "LLaVA-1.5-13B-LoRA": (68.5, 61.5, _ZOO),
    "LLaVA-1.5-13B-HD": (68.8, 61.9, _PAPER),
    "LLaVA-1.6-Vicuna-7B": (67.4, 60.6, _ZOO),
    "LLaVA-1.6-Vicuna-13B": (70.0, 64.4, _ZOO),
    "LLaVA-1.6-Mistral-7B": (68.7, 61.2, _ZOO),
    "LLaVA-1.6-34B": (79.3, 79.0, _ZOO),
    "InstructBLIP-7B": (36.0, 23.7, _PAPER),
    "Qwen-VL-Chat": (60.6, 56.7, _PAPER),
}


def _benchmark(language: str, name: str, title: str) -> Benchmark:
    place = _LANGUAGES.index(language)
    return Benchmark(
        name=name,
        title=title,
        files=(*_files(language, "dev"), *_files(language, "test")),
        variants=(
            Variant("v1.5", "dev, circular, letter directly, no judge, LLaVA-1.5"),
            Variant("v1.6", "dev, circular, letter directly, no judge, LLaVA-1.6"),
            Variant("lmms-eval", "dev, circular, lmms-eval's prompt, no judge"),
            Variant("test", "test, to be scored by the server"),
        ),
        read=partial(read, language),
        mark=mark,
        summarise=summarise,
        headline="circular",
        mean=False,
        max_new_tokens=1024,
        others=others if language == "en" else None,
        submission=submit,
        ask_judge=partial(ask_judge, language),
        mark_judged=mark_judged,
        published=tuple(
            Published(model, (english, chinese)[place], "dev, circular", source)
            for model, (english, chinese, source) in _PUBLISHED.items()
        ),
    )


BENCHMARKS = (
    _benchmark("en", "mmbench", "MMBench, English"),
    _benchmark("cn", "mmbench_cn", "MMBench, Chinese"),
)
