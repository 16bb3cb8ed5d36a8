"""POPE: 3,000 yes-or-no questions each of three splits about objects in 500 pictures of COCO val2014.

LLaVA's "POPE" is the unweighted mean of the three splits' F1, on the questions of POPE's first version (2,910 random
ones); the present files hold 3,000. An answer is read by LLaVA's rule (llava/eval/eval_pope.py): up to the first full
stop, "no" where a word is No, no or not, and yes otherwise, nothing at all included.

What is drawn for an interval is a picture with all its questions: those whose truth is yes are the same in every split,
so that taken one by one they would count three times.

Read from LLaVA's `llava_pope_test.jsonl` with the official labels, which are joined by their order; from the official
files alone; or from the Hugging Face copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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
from llavakit.evaluation.pictures import InFile, InParquet
from llavakit.evaluation.reading import (
    field,
    first_found,
    found,
    read_lines,
    read_parquet,
    text_field,
    with_unique_ids,
)
from llavakit.evaluation.scoring.shares import share
from llavakit.evaluation.wording import SHORT

SPLITS = ("random", "popular", "adversarial")
_FROM = "https://github.com/RUCAIBox/POPE, output/coco (commit e3e39262 for LLaVA's 8,910 questions)"
LABELS = {split: NeededFile(f"coco_pope_{split}.json", _FROM, "0.4 MB", required=False) for split in SPLITS}
LLAVA_FILE = NeededFile(
    "llava_pope_test.jsonl",
    "https://github.com/haotian-liu/LLaVA, eval.zip: playground/data/eval/pope",
    "1.7 MB",
    required=False,
)
PICTURES = NeededFile("val2014", "http://images.cocodataset.org/zips/val2014.zip", "6.2 GB", required=False)
COPY = NeededFile(
    "Full/*.parquet", "https://huggingface.co/datasets/lmms-lab-encoder/POPE", "0.2 GB", required=False
)


def read(folder: Path, variant: str) -> list[Question]:
    """The questions of all three splits, in LLaVA's order where its file is there."""
    questions = _read(folder)
    if lacking := [split for split in SPLITS if not any(q.category == split for q in questions)]:
        raise LlavakitError(
            f"{folder} has no question of the splits {', '.join(lacking)}; a mean over fewer is no POPE score"
        )
    return questions


def _read(folder: Path) -> list[Question]:
    if not all(found(folder, needed) for needed in LABELS.values()):
        if copies := found(folder, COPY):
            return with_unique_ids(list(_from_copy(copies)), copies[0])
        for needed in LABELS.values():
            first_found(folder, needed, COPY)
    labels = {split: [row for _, row in read_lines(folder / needed.path)] for split, needed in LABELS.items()}
    if files := found(folder, LLAVA_FILE):
        return with_unique_ids(list(_from_llava(files[0], labels, folder)), files[0])
    questions = [
        _question(f"{split}-{number}", split, row, row, folder / LABELS[split].path, folder)
        for split in SPLITS
        for number, row in enumerate(labels[split], 1)
    ]
    return with_unique_ids(questions, folder)


def _from_llava(
    path: Path, labels: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path
) -> Iterator[Question]:
    asked: dict[str, int] = dict.fromkeys(SPLITS, 0)
    for _, row in read_lines(path):
        split = text_field(row, "category", path)
        if split not in asked:
            raise LlavakitError(
                f"{path} has a question of the category {split!r}; expected {', '.join(SPLITS)}"
            )
        place, told = asked[split], labels[split]
        if place >= len(told):
            raise LlavakitError(
                f"{path} asks more {split} questions than {LABELS[split].path} has labels ({len(told):,}); they are of "
                "different versions: fetch both anew"
            )
        asked[split] += 1
        if told[place].get("image") != row.get("image"):
            raise LlavakitError(
                f"{path}: {split} question {place + 1} is about {row.get('image')}, and its label about "
                f"{told[place].get('image')}; they are of different versions: fetch both anew"
            )
        yield _question(text_field(row, "question_id", path), split, row, told[place], path, folder)
    for split, number in asked.items():
        if number != len(labels[split]):
            raise LlavakitError(
                f"{path} asks {number:,} {split} questions, {LABELS[split].path} has {len(labels[split]):,} labels; "
                "they are of different versions: fetch both anew"
            )


def _from_copy(paths: Sequence[Path]) -> Iterator[Question]:
    for row in read_parquet(paths):
        split = str(row.values.get("category") or row.path.name.partition("-")[0])
        if split not in SPLITS:
            raise LlavakitError(
                f"{row.path} has a question of the category {split!r}; expected {', '.join(SPLITS)}"
            )
        truth = _truth(field(row.values, "answer", row.path), row.path)
        text = f"{text_field(row.values, 'question', row.path).strip()}\n{SHORT}"
        name = f"{split}-{row.values.get('question_id', row.row)}"
        unit = str(row.values.get("image_source") or "")
        yield Question(name, (InParquet(row.path, row.row, "image"),), text, truth, category=split, unit=unit)


def _question(
    name: str, split: str, asked: Mapping[str, Any], told: Mapping[str, Any], path: Path, folder: Path
) -> Question:
    text = text_field(asked, "text", path).partition("\n")[0].strip()
    unit = text_field(asked, "image", path)
    picture = InFile(folder / PICTURES.path / unit)
    truth = _truth(field(told, "label", LABELS[split].path), path)
    return Question(name, (picture,), f"{text}\n{SHORT}", truth, category=split, unit=unit)


def _truth(label: Any, path: Path) -> str:
    if label not in ("yes", "no"):
        raise LlavakitError(f"{path}: a label is {label!r}; expected yes or no")
    return str(label)


def says(answer: str) -> str:
    """`yes` or `no` by LLaVA's rule: splitting is on single spaces, so "no" before a line's end is no "no"."""
    words = answer.partition(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def mark(question: Question, answer: str) -> Verdict:
    """Right when the rule reads what is true. An answer that says neither counts as yes, with a note."""
    said = says(answer)
    bare = answer.strip().rstrip(".!").casefold()
    note = "" if said == "no" or bare.startswith("yes") else "neither yes nor no, read as yes"
    return Verdict(question, said, float(said == question.truth), note)


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Of each split, and the mean F1 of the splits that there are: percent; positive is yes."""
    figures: Figures = {}
    splits = [split for split in SPLITS if any(v.question.category == split for v in verdicts)]
    for split in splits:
        for name, value in _rates([v for v in verdicts if v.question.category == split]).items():
            figures[f"{split} {name}"] = value
    scores = [figures[f"{split} F1"] for split in splits]
    mean = sum(scores) / len(scores) if scores else math.nan
    return {"F1 mean": mean, **figures}


def _rates(verdicts: Sequence[Verdict]) -> Figures:
    said = [(v.parsed == "yes", v.question.truth == "yes") for v in verdicts]
    true_yes = sum(a and b for a, b in said)
    said_yes, are_yes = sum(a for a, _ in said), sum(b for _, b in said)
    precision, recall = share(true_yes, said_yes), share(true_yes, are_yes)
    return {
        "accuracy": share(sum(a == b for a, b in said), len(said)),
        "precision": precision,
        "recall": recall,
        "F1": share(2 * true_yes, said_yes + are_yes),
        "yes ratio": share(said_yes, len(said)),
    }


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """What lmms-eval gives: one F1 over all questions, where only a bare yes or no is either."""
    pairs = [(answers.get(q.id, "").strip().lower(), q.truth) for q in questions]
    true_yes = sum(said == truth == "yes" for said, truth in pairs)
    false_yes = sum(said == "yes" and truth == "no" for said, truth in pairs)
    missed = sum(said == "no" and truth == "yes" for said, truth in pairs)
    right = sum(said == truth for said, truth in pairs)
    return {
        # of no reply that is yes or no it makes 0, where there is no F1
        "lmms-eval: pooled F1": share(2 * true_yes, 2 * true_yes + false_yes + missed or len(pairs)),
        "lmms-eval: accuracy": share(right, len(pairs)),
    }


_PAPER, _ZOO = "LLaVA-1.5 paper, table 4", "LLaVA model zoo"
_PUBLISHED = (
    ("LLaVA-1.5-7B", 85.9, _PAPER),
    ("LLaVA-1.5-13B", 85.9, _PAPER),
    ("LLaVA-1.5-7B-LoRA", 86.4, _ZOO),
    ("LLaVA-1.5-13B-LoRA", 86.7, _ZOO),
    ("LLaVA-1.6-Vicuna-7B", 86.5, _ZOO),
    ("LLaVA-1.6-Vicuna-13B", 86.2, _ZOO),
    ("LLaVA-1.6-Mistral-7B", 86.7, _ZOO),
    ("LLaVA-1.6-34B", 87.7, _ZOO),
    ("InstructBLIP-13B", 78.9, _PAPER),
)

BENCHMARK = Benchmark(
    name="pope",
    title="POPE, object hallucination in three splits",
    files=(*LABELS.values(), LLAVA_FILE, PICTURES, COPY),
    variants=(
        Variant("v1.5", "mean F1 of three splits, short answer, LLaVA-1.5"),
        Variant("v1.6", "mean F1 of three splits, short answer, LLaVA-1.6"),
    ),
    read=read,
    mark=mark,
    summarise=summarise,
    headline="F1 mean",
    mean=False,
    others=others,
    published=tuple(
        Published(
            model,
            value,
            "mean F1 of three splits, 8,910 questions"
            if model.startswith("LLaVA-1.5")
            else "mean F1 of three splits",
            source,
        )
        for model, value, source in _PUBLISHED
    ),
)
