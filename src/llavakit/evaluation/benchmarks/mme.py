"""MME: 2,374 yes-or-no questions, two a picture, in ten tasks of perception and four of cognition.

A task's score is the percentage of right answers plus that of pictures with both right, so 200 at most; LLaVA-1.5's
"MME" is the sum over perception. LLaVA takes "Please answer yes or no." off a question and asks for a short answer
instead. An answer is yes or no when it is just that, or when its first four characters hold one of them.

A question is known by its picture and its text, since LLaVA's answers and the Hugging Face copy give both questions of
a picture one id, the picture's name: what is saved beside an answer as its prompt tells which of the two it is to.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
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
from llavakit.evaluation.reading import found, read_parquet, text_field, with_unique_ids
from llavakit.evaluation.wording import SHORT

_YES_OR_NO = "Please answer yes or no."
PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
TASKS = (*PERCEPTION, *COGNITION)
FOLDER = NeededFile(
    "MME_Benchmark_release_version",
    "https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation, on request",
    "1 GB, 14 folders",
    required=False,
)
COPY = NeededFile(
    "data/test-*.parquet", "https://huggingface.co/datasets/lmms-lab-encoder/MME", "0.9 GB", required=False
)
_SUFFIXES = (".jpg", ".png", ".jpeg")


def read(folder: Path, variant: str) -> list[Question]:
    """All questions, task by task, the two of a picture together."""
    root = folder / FOLDER.path
    root = root if root.is_dir() else folder
    there = [task for task in TASKS if (root / task).is_dir()]
    if not there:
        if copies := found(folder, COPY):
            return with_unique_ids(_from_copy(copies), copies[0])
        raise LlavakitError(
            f"{folder} lacks the benchmark's files: put there {FOLDER.path} ({FOLDER.size}) from {FOLDER.source}; or "
            f"{COPY.path} ({COPY.size}) from {COPY.source}"
        )
    questions = [question for task in there for question in _task(root / task, task)]
    _whole({question.category for question in questions}, root)
    return with_unique_ids(questions, root)


def _whole(there: Collection[str], where: Path) -> None:
    if missing := [task for task in TASKS if task not in there]:
        raise LlavakitError(f"{where} lacks the tasks {', '.join(missing)}; a sum over fewer is no MME score")


def _task(folder: Path, task: str) -> list[Question]:
    nested = (folder / "questions_answers_YN").is_dir()
    texts = sorted((folder / "questions_answers_YN" if nested else folder).glob("*.txt"))
    pictures = folder / "images" if nested else folder
    questions = []
    for text in texts:
        picture = next(
            (
                pictures / f"{text.stem}{end}"
                for end in _SUFFIXES
                if (pictures / f"{text.stem}{end}").exists()
            ),
            None,
        )
        if picture is None:
            raise LlavakitError(f"{text} has no picture {text.stem} beside it in {pictures}")
        try:
            lines = [line for line in text.read_text("utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise LlavakitError(f"{text} is not text in UTF-8 ({error}): download it again") from error
        rows = [line.split("\t") for line in lines]
        if len(rows) != 2 or any(len(row) != 2 for row in rows):
            raise LlavakitError(f"{text}: expected two lines, each a question, a tab, and Yes or No")
        unit = f"{task}/{text.stem}"
        questions += [_question(unit, task, asked, truth, InFile(picture), text) for asked, truth in rows]
    return questions


def _from_copy(paths: Sequence[Path]) -> list[Question]:
    questions: list[Question] = []
    seen: Counter[str] = Counter()
    for row in read_parquet(paths):
        unit = _picture(text_field(row.values, "question_id", row.path))
        seen[unit] += 1
        task, asked = (text_field(row.values, name, row.path) for name in ("category", "question"))
        truth = text_field(row.values, "answer", row.path)
        picture = InParquet(row.path, row.row, "image")
        questions.append(_question(unit, task, asked, truth, picture, row.path))
    if odd := [unit for unit, number in seen.items() if number != 2]:
        raise LlavakitError(f"{paths[0]}: {odd[0]} has not two questions; a pair is what is scored")
    _whole({question.category for question in questions}, paths[0].parent)
    return questions


def _question(unit: str, task: str, asked: str, truth: str, picture: PictureSource, path: Path) -> Question:
    label = truth.strip().lower()
    if label not in ("yes", "no"):
        raise LlavakitError(f"{path}: a truth is {truth!r}; expected Yes or No")
    text = asked.replace(_YES_OR_NO, "").strip()
    return Question(_id(unit, text), (picture,), f"{text}\n{SHORT}", label, category=task, unit=unit)


def _picture(name: str) -> str:
    """A picture's task and name without its ending, as `count/000000006040.jpg` begins."""
    return next((name.removesuffix(end) for end in _SUFFIXES if name.endswith(end)), name)


def _id(unit: str, text: str) -> str:
    return f"{unit}: {' '.join(text.split())}"


def answer_id(row: Mapping[str, Any]) -> str:
    """The question of a saved answer: its own id, or of LLaVA's rows the picture and the first line of the prompt."""
    name = str(row["question_id"] if "question_id" in row else row["id"])
    if (unit := _picture(name)) == name:
        return name
    if not isinstance(row.get("prompt"), str):
        raise LlavakitError(
            f"answers: {name} has two questions, and the row does not say by a `prompt` which it is to"
        )
    asked = row["prompt"].replace("<image>", " ").strip().partition("\n")[0]
    return _id(unit, asked.replace(_YES_OR_NO, ""))


def says(answer: str) -> str | None:
    """yes, no, or None, by the official tool's rule."""
    said = answer.lower()
    if said in ("yes", "no"):
        return said
    return next((word for word in ("yes", "no") if word in said[:4]), None)


def mark(question: Question, answer: str) -> Verdict:
    """Right when the rule reads what is true; neither is wrong, and noted."""
    said = says(answer.strip())
    return Verdict(question, said, float(said == question.truth), "" if said else "neither yes nor no")


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Perception and cognition, each the sum of its tasks, or nan where one is missing; and the tasks."""
    figures: Figures = {}
    for task in dict.fromkeys(v.question.category for v in verdicts):
        figures[task] = _score([v for v in verdicts if v.question.category == task])
    sums = {
        name: sum(figures.get(task, math.nan) for task in tasks)
        for name, tasks in (("perception", PERCEPTION), ("cognition", COGNITION))
    }
    return {**sums, **figures}


def _score(verdicts: Sequence[Verdict]) -> float:
    """acc + acc+ of one task."""
    pictures: dict[str, bool] = {}
    for verdict in verdicts:
        unit = verdict.question.unit
        pictures[unit] = pictures.get(unit, True) and verdict.credit == 1.0
    return 100 * sum(v.credit for v in verdicts) / len(verdicts) + 100 * sum(pictures.values()) / len(
        pictures
    )


def _lmms_says(answer: str) -> str | None:
    """lmms-eval drops full stops before it reads, and takes a bare y or n."""
    said = answer.lower().strip().replace(".", "")
    return {"y": "yes", "n": "no"}.get(said) or says(said)


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """What lmms-eval gives, and its paper's sum of perception and cognition."""
    verdicts = []
    for question in questions:
        said = _lmms_says(answers.get(question.id, ""))
        verdicts.append(Verdict(question, said, float(said == question.truth)))
    figures = summarise(verdicts)
    parts = {f"lmms-eval: {name}": figures[name] for name in ("perception", "cognition")}
    return {**parts, "lmms-eval: total": sum(parts.values())}


_PAPER, _ZOO = "LLaVA-1.5 paper, table 4", "LLaVA model zoo"
_PUBLISHED = (
    ("LLaVA-1.5-7B", 1510.7, _PAPER), ("LLaVA-1.5-13B", 1531.3, _PAPER), ("LLaVA-1.6-Vicuna-7B", 1519.0, _ZOO),
    ("LLaVA-1.6-Vicuna-13B", 1575.0, _ZOO), ("LLaVA-1.6-Mistral-7B", 1498.0, _ZOO), ("LLaVA-1.6-34B", 1631.0, _ZOO),
    ("InstructBLIP-13B", 1212.8, _PAPER), ("Qwen-VL-Chat", 1487.5, _PAPER),
)  # fmt: skip

BENCHMARK = Benchmark(
    name="mme",
    title="MME, perception and cognition",
    files=(FOLDER, COPY),
    variants=(
        Variant("v1.5", "perception, acc and acc+, short answer, LLaVA-1.5"),
        Variant("v1.6", "perception, acc and acc+, short answer, LLaVA-1.6"),
    ),
    read=read,
    mark=mark,
    summarise=summarise,
    headline="perception",
    mean=False,
    others=others,
    answer_id=answer_id,
    published=tuple(Published(model, value, "perception", source) for model, value, source in _PUBLISHED),
)
