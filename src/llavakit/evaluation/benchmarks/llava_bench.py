"""LLaVA-Bench, In-the-Wild (60 questions) and COCO (90): free answers beside a reference of GPT-4's, marked by a judge.

The judge is told of the picture in words, never shown it, and gives two numbers, the reference's first. The score is a
ratio of means, in percent: the model's marks over the reference's. The words of its task are LLaVA's, read from its
`rule.json`. A reply without two numbers in its first line is left out and counted. LLaVA's own summary takes it for two
times -1, and one with two spaces or more between the numbers too; its figure stands beside the score.

Judges drift: numbers are comparable under the same judge alone. Published ones were judged by gpt-4-0314.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llavakit.evaluation.benchmark import (
    Benchmark,
    Figures,
    NeededFile,
    Published,
    Question,
    Variant,
    Verdict,
)
from llavakit.evaluation.pictures import InFile
from llavakit.evaluation.reading import field, first_found, read_json, read_lines, text_field, with_unique_ids
from llavakit.synthesis.teacher import Message, TeacherRequest

JUDGE = "gpt-4-0314"
_SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
_KINDS = ("conv", "detail", "complex")
_LLAVA = "https://github.com/haotian-liu/LLaVA"
RULE = NeededFile("rule.json", f"{_LLAVA}, llava/eval/table/rule.json", "12 kB")

_WILD = "https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild"
WILD = {
    "asked": NeededFile("questions.jsonl", _WILD, "10 kB"),
    "context": NeededFile("context.jsonl", _WILD, "20 kB"),
    "reference": NeededFile("answers_gpt4.jsonl", _WILD, "60 kB"),
    "pictures": NeededFile("images", _WILD, "12 MB, 24 pictures", required=False),
}
_COCO = f"{_LLAVA}, playground/data/coco2014_val_qa_eval"
COCO = {
    "asked": NeededFile("qa90_questions.jsonl", _COCO, "12 kB"),
    "context": NeededFile("caps_boxes_coco2014_val_80.jsonl", f"{_LLAVA}, llava/eval/table", "59 kB"),
    "reference": NeededFile("qa90_gpt4_answer.jsonl", _COCO, "41 kB"),
    "pictures": NeededFile(
        "val2014", "http://images.cocodataset.org/zips/val2014.zip", "6.2 GB", required=False
    ),
}


def read(files: Mapping[str, NeededFile], folder: Path, variant: str) -> list[Question]:
    """The questions with what the judge is told: the picture in words, the reference, the rule."""
    paths = {name: first_found(folder, needed)[1][0] for name, needed in files.items() if needed.required}
    rules = read_json(first_found(folder, RULE)[1][0])
    in_the_wild = files is WILD
    contexts = {
        text_field(row, "image", paths["context"]): _context(row, paths["context"], in_the_wild)
        for _, row in read_lines(paths["context"])
    }
    references = {
        text_field(row, "question_id", paths["reference"]): row for _, row in read_lines(paths["reference"])
    }
    questions = []
    for _, row in read_lines(paths["asked"]):
        name, image = (text_field(row, part, paths["asked"]) for part in ("question_id", "image"))
        kind = text_field(row, "category", paths["asked"])
        rule = field(rules, f"llava_bench_{kind}" if in_the_wild else kind, RULE.path)
        truth = {
            "context": field(contexts, image, paths["context"]),
            "reference": text_field(field(references, name, paths["reference"]), "text", paths["reference"]),
            "rule": text_field(rule, "prompt", RULE.path),
        }
        stored = image if in_the_wild else f"COCO_val2014_{image}"
        picture = InFile(folder / files["pictures"].path / stored)
        text = text_field(row, "text", paths["asked"])
        questions.append(Question(name, (picture,), text, truth, category=kind))
    return with_unique_ids(questions, paths["asked"])


def _context(row: Mapping[str, Any], path: Path, in_the_wild: bool) -> str:
    """The picture in words: one caption, or captions a line and, behind an empty line, boxes as corners."""
    if in_the_wild:
        told = field(row, "caption", path)
        return "\n".join(told) if isinstance(told, list) else text_field(row, "caption", path)
    boxes = "\n".join(f"{box['category']}: {box['bbox']}" for box in field(row, "instances", path))
    return "\n".join(field(row, "captions", path)) + "\n\n" + boxes


def ask_judge(question: Question, answer: str) -> TeacherRequest:
    """LLaVA's request: context, question, reference, answer and rule, each under its heading."""
    told = question.truth
    content = (
        f"[Context]\n{told['context']}\n\n[Question]\n{question.prompt}\n\n"
        f"[Assistant 1]\n{told['reference']}\n\n[End of Assistant 1]\n\n"
        f"[Assistant 2]\n{answer}\n\n[End of Assistant 2]\n\n[System]\n{told['rule']}\n\n"
    )
    messages = (Message("system", _SYSTEM), Message("user", content))
    return TeacherRequest(messages, JUDGE, seed=None, temperature=0.2, max_tokens=1024)


def marks(reply: str) -> tuple[float, float] | None:
    """The two numbers of a reply's first line, with a comma or without between them."""
    parts = reply.partition("\n")[0].replace(",", " ").split(" ")
    words = [part for part in parts if part] if len(parts) != 2 else parts
    if len(words) != 2:
        return None
    try:
        first, second = float(words[0]), float(words[1])
    except ValueError:
        return None
    return (first, second) if math.isfinite(first) and math.isfinite(second) else None


def marks_of_llava(reply: str) -> tuple[float, float]:
    """The same as LLaVA's script reads it: nothing but one space or comma between; -1 and -1 for any other line."""
    words = reply.partition("\n")[0].replace(",", " ").split(" ")
    try:
        return (float(words[0]), float(words[1])) if len(words) == 2 else (-1.0, -1.0)
    except ValueError:
        return -1.0, -1.0


def mark(question: Question, answer: str) -> Verdict:
    """No mark: a judge has to be asked."""
    return Verdict(question, None, math.nan, "not judged")


def mark_judged(question: Question, answer: str, reply: str) -> Verdict:
    """The judge's mark of the answer, out of ten."""
    strict, found = list(marks_of_llava(reply)), marks(reply)
    if found is None:
        unread = {"reply": reply[:500], "llava": strict}
        return Verdict(question, None, math.nan, "the judge gave no two marks", unread)
    reference, mine = found
    facts = {"reference": reference, "mine": mine, "llava": strict}
    note = "" if 0 <= reference <= 10 and 0 <= mine <= 10 else "a mark that is not from 0 to 10"
    return Verdict(question, f"{reference:g} {mine:g}", min(1.0, max(0.0, mine / 10)), note, facts)


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """The ratio of means over all questions and of each kind, in percent, of the replies that could be read.

    Beside it the same of all replies as LLaVA's summary reads them.
    """
    figures = {"overall": _ratio(verdicts)}
    for kind in _KINDS:
        those = [v for v in verdicts if v.question.category == kind]
        if those:
            figures[kind] = _ratio(those)
    strict = [v.facts["llava"] for v in verdicts if "llava" in v.facts]
    return figures | {"LLaVA's script: unread replies as -1 -1": _share(strict)}


def _ratio(verdicts: Sequence[Verdict]) -> float:
    return _share([(v.facts["reference"], v.facts["mine"]) for v in verdicts if "mine" in v.facts])


def _share(pairs: Sequence[Sequence[float]]) -> float:
    reference = sum(pair[0] for pair in pairs)
    return 100 * sum(pair[1] for pair in pairs) / reference if reference else math.nan


_PUBLISHED = (
    ("LLaVA-1.5-7B", 65.4), ("LLaVA-1.5-13B", 72.5), ("LLaVA-1.6-Vicuna-7B", 81.6), ("LLaVA-1.6-Vicuna-13B", 87.3),
    ("LLaVA-1.6-Mistral-7B", 83.2), ("LLaVA-1.6-34B", 89.6), ("InstructBLIP-7B", 60.9), ("InstructBLIP-13B", 58.2),
)  # fmt: skip
_VARIANTS = (Variant("v1.5", "asked as written, judged beside GPT-4's answer, mean ratio"),)

BENCHMARKS = (
    Benchmark(
        name="llava_bench_wild",
        title="LLaVA-Bench (In-the-Wild)",
        files=(*WILD.values(), RULE),
        variants=_VARIANTS,
        read=partial(read, WILD),
        mark=mark,
        summarise=summarise,
        headline="overall",
        mean=False,
        max_new_tokens=1024,
        published=tuple(
            Published(model, value, "mean of judge's runs", "LLaVA-1.5 paper and model zoo")
            for model, value in _PUBLISHED
        ),
        ask_judge=ask_judge,
        mark_judged=mark_judged,
        needs_judge=True,
    ),
    Benchmark(
        name="llava_bench_coco",
        title="LLaVA-Bench (COCO)",
        files=(*COCO.values(), RULE),
        variants=_VARIANTS,
        read=partial(read, COCO),
        mark=mark,
        summarise=summarise,
        headline="overall",
        mean=False,
        max_new_tokens=1024,
        published=(Published("LLaVA v1", 85.1, "gpt-4-0314 judges", "LLaVA paper, table 4"),),
        ask_judge=ask_judge,
        mark_judged=mark_judged,
        needs_judge=True,
    ),
)
