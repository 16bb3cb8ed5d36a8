"""AI2D, test: 3,088 questions with options about diagrams of grade-school science.

There are two tasks with the same questions. In `ai2d` the labels that are asked for are masked in the picture, and the
numbers of LLaVA-1.6 are of this one; in `ai2d_no_mask` the picture shows them. They are never one number, and since
their files look alike, those of `ai2d_no_mask` are looked for in a folder of their own.

A question is known by its row's number, from 0, since the copies give it no id. Published numbers are lmms-eval's, so
its rule is the rule here: the letter before a full stop at the start, else all of it without case and punctuation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
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
from llavakit.evaluation.pictures import InParquet
from llavakit.evaluation.reading import (
    ParquetRow,
    field,
    first_found,
    read_parquet,
    text_field,
    with_unique_ids,
)
from llavakit.evaluation.scoring.choices import (
    bare_letter,
    lettered,
    mmbench_choice,
    option_lines,
)
from llavakit.evaluation.scoring.choices_lmms import prefix_or_all
from llavakit.evaluation.scoring.shares import percent
from llavakit.evaluation.wording import DIRECTLY

_HUB = "https://huggingface.co/datasets"
MASKED = (NeededFile("data/test-*.parquet", f"{_HUB}/lmms-lab-encoder/ai2d", "140 MB"),)
NO_MASK = (
    NeededFile(
        "no_mask/data/test-*.parquet", f"{_HUB}/lmms-lab/ai2d-no-mask, data", "237 MB", required=False
    ),
    NeededFile(
        "no_mask/test.parquet", f"{_HUB}/Efficient-Large-Model/ai2d-no-mask", "237 MB", required=False
    ),
)


def read(ways: Sequence[NeededFile], folder: Path, variant: str) -> list[Question]:
    """The questions in the copy's order."""
    paths = first_found(folder, *ways)[1]
    return with_unique_ids([_question(n, row) for n, row in enumerate(read_parquet(paths))], paths[0])


def _question(number: int, row: ParquetRow) -> Question:
    listed = field(row.values, "options", row.path)
    if not isinstance(listed, list):
        raise LlavakitError(f"{row.path}, row {row.row}: the options are {listed!r:.60}, expected a list")
    options = [str(option) for option in listed]
    place = str(field(row.values, "answer", row.path)).strip()
    if not (place.isdecimal() and int(place) < len(options) <= 26):
        raise LlavakitError(
            f"{row.path}, row {row.row}: the answer is {place!r}, expected the place of one of {len(options)} options"
        )
    letters = lettered(options)
    return Question(
        id=str(number),
        pictures=(InParquet(row.path, row.row, "image"),),
        prompt=f"{text_field(row.values, 'question', row.path)}\n{option_lines(options)}\n{DIRECTLY}",
        truth=list(letters)[int(place)],
        meta={"options": letters},
    )


def mark(question: Question, answer: str) -> Verdict:
    """Right when what is left of the answer is the true letter."""
    letter = prefix_or_all(answer).upper()
    if letter not in question.meta["options"]:
        return Verdict(question, None, 0.0, "no letter of an option")
    return Verdict(question, letter, float(letter == question.truth))


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent right."""
    return {"accuracy": percent([verdict.credit for verdict in verdicts])}


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """What LLaVA's rule for SEED-Bench gives, a letter and nothing else, and VLMEvalKit's without a judge."""
    said = [(question, answers.get(question.id, "")) for question in questions]
    return {
        "bare letter: accuracy": percent([float(bare_letter(text) == q.truth) for q, text in said]),
        "VLMEvalKit: Overall, no judge": percent(
            [float(mmbench_choice(text, q.meta["options"]) == q.truth) for q, text in said]
        ),
    }


_PUBLISHED = (
    ("LLaVA-1.5-7B", 54.8), ("LLaVA-1.5-13B", 59.5), ("LLaVA-1.6-Vicuna-7B", 66.6), ("LLaVA-1.6-Vicuna-13B", 70.0),
    ("LLaVA-1.6-Mistral-7B", 60.8), ("LLaVA-1.6-34B", 74.9), ("InstructBLIP-7B", 33.8), ("InstructBLIP-13B", 36.8),
    ("Qwen-VL-Chat", 45.9),
)  # fmt: skip


def _benchmark(name: str, title: str, ways: tuple[NeededFile, ...], labels: str) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        files=ways,
        variants=(
            Variant("v1.6", f"test, {labels}, letter directly, LLaVA-1.6"),
            Variant("v1.5", f"test, {labels}, letter directly, LLaVA-1.5"),
        ),
        read=partial(read, ways),
        mark=mark,
        summarise=summarise,
        headline="accuracy",
        max_new_tokens=16,
        others=others,
        published=tuple(
            Published(model, value, f"test, {labels}, lmms-eval", "lmms-eval paper")
            for model, value in (_PUBLISHED if ways is MASKED else ())
        ),
    )


BENCHMARKS = (
    _benchmark("ai2d", "AI2D, test, labels masked", MASKED, "masked"),
    _benchmark("ai2d_no_mask", "AI2D, test, labels not masked", NO_MASK, "not masked"),
)
