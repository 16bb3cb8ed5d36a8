"""ScienceQA: 4,241 questions of school science with two to five options, 2,017 of them about a picture.

LLaVA's "SQA" is the part with pictures (IMG) for v1.5 and v1.6, and everything for v1. The letter is read by LLaVA's
rule (llava/eval/eval_science_qa.py); the breakdown is ScienceQA's own (tools/evaluate_acc.py). Read from LLaVA's
`llava_test_CQM-A.json`, from the official `problems.json`, or from the Hugging Face copy.

`NAT`, `SOC`, `LAN` and the grades need `problems.json` or the copy; with LLaVA's file alone they are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from llavakit.evaluation.placed import PLACE
from llavakit.evaluation.reading import (
    field,
    first_found,
    found,
    present,
    read_json,
    read_parquet,
    text_field,
    texts_field,
    with_unique_ids,
)
from llavakit.evaluation.scoring.choices import lettered, llava_letter, option_lines
from llavakit.evaluation.scoring.choices_lmms import whole_or_prefix
from llavakit.evaluation.scoring.shares import mean_credit
from llavakit.evaluation.wording import DIRECTLY

LLAVA_FILE = NeededFile(
    "llava_test_CQM-A.json",
    "https://github.com/haotian-liu/LLaVA, eval.zip: playground/data/eval/scienceqa",
    "1.9 MB",
    required=False,
)
PROBLEMS = NeededFile(
    "problems.json", "https://github.com/lupantech/ScienceQA, data/scienceqa", "33 MB", required=False
)
SPLITS = NeededFile(
    "pid_splits.json", "https://github.com/lupantech/ScienceQA, data/scienceqa", "0.5 MB", required=False
)
PICTURES = NeededFile(
    "images/test",
    "test.zip of https://github.com/lupantech/ScienceQA (tools/download.sh)",
    "0.2 GB",
    required=False,
)
COPY = NeededFile(
    "ScienceQA-FULL/test-*.parquet",
    "https://huggingface.co/datasets/lmms-lab-encoder/ScienceQA",
    "0.2 GB",
    required=False,
)
_SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}


def read(folder: Path, variant: str) -> list[Question]:
    """All test questions, in LLaVA's order where its file is there."""
    way, paths = first_found(folder, LLAVA_FILE, PROBLEMS, COPY)
    if way is COPY:
        return with_unique_ids(list(_from_copy(paths)), paths[0])
    problems = read_json(folder / PROBLEMS.path) if found(folder, PROBLEMS) else {}
    if way is LLAVA_FILE:
        questions = [_from_llava(row, problems, folder, paths[0]) for row in read_json(paths[0])]
        return with_unique_ids(questions, paths[0])
    _, splits = first_found(folder, SPLITS)
    pids = field(read_json(splits[0]), "test", splits[0])
    questions = [_from_problem(str(pid), problems, folder) for pid in pids]
    return with_unique_ids(questions, paths[0])


def read_pictures_only(folder: Path, variant: str) -> list[Question]:
    """The questions that have a picture."""
    questions = [question for question in read(folder, variant) if question.pictures]
    if not questions:
        raise LlavakitError(
            f"{folder}: no question of ScienceQA has a picture there: download its files again"
        )
    return questions


def _from_llava(row: Mapping[str, Any], problems: Mapping[str, Any], folder: Path, path: Path) -> Question:
    pid = str(field(row, "id", path))
    asked, told = (str(field(turn, "value", path)) for turn in field(row, "conversations", path)[:2])
    text = asked.replace("<image>", "").strip()
    meta: dict[str, Any] = {"has_text": text.startswith("Context: "), "options": _options_of(text)}
    if pid in problems:
        meta |= _described(problems[pid], pid)
    picture = (InFile(folder / PICTURES.path / str(row["image"])),) if row.get("image") else ()
    if told.strip() not in lettered([""] * int(meta["options"])):
        raise LlavakitError(
            f"{path}: question {pid} has the answer {told.strip()[:40]!r}, expected the letter of one of its "
            f"{meta['options']} options: download it again"
        )
    return _question(pid, text, told.strip(), picture, meta)


def _options_of(text: str) -> int:
    """How many options close a text, in order from the last line with an A; an option may go over several lines."""
    count = 0
    for line in text[text.rfind("\nA.") + 1 :].split("\n"):
        count += count < 5 and line[:2] == f"{'ABCDE'[count]}."
    return count


def _from_problem(pid: str, problems: Mapping[str, Any], folder: Path) -> Question:
    problem = field(problems, pid, folder / PROBLEMS.path)
    name = problem.get("image")
    picture = (InFile(folder / PICTURES.path / pid / str(name)),) if name else ()
    return _described_question(pid, problem, picture)


def _from_copy(paths: Sequence[Path]) -> Iterator[Question]:
    have = present(paths, "image")
    for number, row in enumerate(read_parquet(paths)):
        picture = (InParquet(row.path, row.row, "image"),) if have[row.path][row.row] else ()
        # the copy does not say which problem a row is; a number of its own is not one of problems.json
        question = _described_question(f"copy-{number}", row.values, picture)
        yield replace(question, meta={**question.meta, PLACE: number})


def _described_question(pid: str, problem: Mapping[str, Any], picture: tuple[PictureSource, ...]) -> Question:
    where = f"problem {pid}"
    options, answer = texts_field(problem, "choices", where), field(problem, "answer", where)
    if not isinstance(answer, int) or not 0 <= answer < len(options):
        raise LlavakitError(f"{where} has the answer {answer!r}, which is none of its {len(options)} choices")
    hint = field(problem, "hint", where) or ""
    asked = f"{text_field(problem, 'question', where)}\n{option_lines(options)}"
    if hint:
        asked = f"Context: {hint}\n{asked}"
    return _question(pid, asked, "ABCDE"[answer], picture, _described(problem, pid))


def _described(problem: Mapping[str, Any], pid: str) -> dict[str, Any]:
    grade = str(problem.get("grade", ""))
    number = grade.removeprefix("grade")
    return {
        "has_text": bool(problem.get("hint")),
        "options": len(field(problem, "choices", f"problem {pid}")),
        "subject": _SUBJECTS.get(str(problem.get("subject", "")), ""),
        "grade": int(number) if number.isdigit() else 0,
    }


def _question(
    pid: str, text: str, truth: str, picture: tuple[PictureSource, ...], meta: Mapping[str, Any]
) -> Question:
    return Question(
        id=pid,
        pictures=picture,
        prompt=f"{text}\n{DIRECTLY}",
        truth=truth,
        category=str(meta.get("subject", "")),
        meta=meta,
    )


def mark(question: Question, answer: str) -> Verdict:
    """Right when LLaVA's rule reads the true letter; what it cannot read is wrong."""
    letter = llava_letter(answer)
    if letter is None:
        return Verdict(question, None, 0.0, "no letter found")
    beyond = letter not in lettered([""] * int(question.meta["options"]))
    return Verdict(
        question,
        letter,
        float(letter == question.truth and not beyond),
        "letter of no option" if beyond else "",
    )


def _share(verdicts: Sequence[Verdict], keep: Callable[[Question], bool] = lambda question: True) -> float:
    return mean_credit(verdict for verdict in verdicts if keep(verdict.question))


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent right of all, and of each class of ScienceQA's breakdown that has a question."""
    figures = {
        "full": _share(verdicts),
        "IMG": _share(verdicts, lambda question: bool(question.pictures)),
        "TXT": _share(verdicts, lambda question: bool(question.meta["has_text"])),
        "NO": _share(verdicts, lambda question: not question.pictures and not question.meta["has_text"]),
    }
    for name in _SUBJECTS.values():
        figures[name] = _share(
            [verdict for verdict in verdicts if verdict.question.meta.get("subject") == name]
        )
    figures["G1-6"] = _share(verdicts, lambda question: 1 <= question.meta.get("grade", 0) <= 6)
    figures["G7-12"] = _share(verdicts, lambda question: 7 <= question.meta.get("grade", 0) <= 12)
    always = {"full", "IMG"}
    return {name: value for name, value in figures.items() if name in always or not math.isnan(value)}


def summarise_pictures(verdicts: Sequence[Verdict]) -> Figures:
    """Percent right of those with a picture, and of each class among them, which is no class of all questions."""
    figures = summarise(verdicts)
    return {"IMG": figures.pop("IMG")} | {
        f"IMG, {name}": value for name, value in figures.items() if name != "full"
    }


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """What lmms-eval gives, and what ScienceQA's own tool is expected to give, which guesses where it reads nothing."""
    if not questions:
        return {"lmms-eval: exact_match": math.nan, "ScienceQA: expected accuracy": math.nan}
    lmms = guessed = 0.0
    for question in questions:
        answer = answers.get(question.id, "")
        lmms += whole_or_prefix(answer) == question.truth
        verdict = mark(question, answer)
        unread = verdict.parsed is None or verdict.note
        guessed += 1 / max(1, int(question.meta["options"])) if unread else verdict.credit
    count = len(questions)
    return {
        "lmms-eval: exact_match": 100 * lmms / count,
        "ScienceQA: expected accuracy": 100 * guessed / count,
    }


def output_answers(document: Mapping[str, Any]) -> dict[str, str]:
    """Answers by id out of an `output.json` of LLaVA's: rows under `correct` and `incorrect`, `pred` each."""
    rows = [*field(document, "correct", "output.json"), *field(document, "incorrect", "output.json")]
    answers: dict[str, str] = {}
    for row in rows:
        pid = str(field(row, "question_id", "a row of output.json"))
        if pid in answers:
            raise LlavakitError(f"output.json answers question {pid} twice")
        answers[pid] = str(field(row, "pred", "a row of output.json"))
    return answers


_PAPER = "LLaVA-1.5 paper, table 3"
_ZOO = "LLaVA model zoo"
_PICTURES = (
    ("LLaVA-1.5-7B", 66.8, _PAPER),
    ("LLaVA-1.5-13B", 71.6, _PAPER),
    ("LLaVA-1.5-7B-LoRA", 68.4, _ZOO),
    ("LLaVA-1.5-13B-LoRA", 71.2, _ZOO),
    ("LLaVA-1.5-13B-HD", 71.0, _PAPER),
    ("LLaVA-1.6-Vicuna-7B", 70.1, _ZOO),
    ("LLaVA-1.6-Vicuna-13B", 73.6, _ZOO),
    ("LLaVA-1.6-Mistral-7B", 72.8, _ZOO),
    ("LLaVA-1.6-34B", 81.8, _ZOO),
    ("InstructBLIP-7B", 60.5, _PAPER),
    ("InstructBLIP-13B", 63.1, _PAPER),
    ("Qwen-VL-Chat", 68.2, _PAPER),
)
_VARIANTS = (
    Variant("v1.5", "test, letter directly, LLaVA-1.5"),
    Variant("v1.6", "test, letter directly, LLaVA-1.6"),
)
_FILES = (LLAVA_FILE, PROBLEMS, SPLITS, PICTURES, COPY)

BENCHMARKS = (
    Benchmark(
        name="scienceqa",
        title="ScienceQA, all 4,241 test questions",
        files=_FILES,
        variants=_VARIANTS,
        read=read,
        mark=mark,
        summarise=summarise,
        headline="full",
        max_new_tokens=1024,
        others=others,
        published=(
            Published(
                "LLaVA-v1-13B, tuned on ScienceQA", 90.898, "full", "LLaVA, test_sqa_llava_13b_v0.json"
            ),
        ),
    ),
    Benchmark(
        name="scienceqa_img",
        title="ScienceQA, the 2,017 test questions with a picture",
        files=_FILES,
        variants=_VARIANTS,
        read=read_pictures_only,
        mark=mark,
        summarise=summarise_pictures,
        headline="IMG",
        max_new_tokens=1024,
        others=others,
        published=tuple(
            Published(model, value, "IMG, letter directly", source) for model, value, source in _PICTURES
        ),
    ),
)
