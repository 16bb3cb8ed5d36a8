"""ChartQA: 1,250 questions that people wrote about charts and 1,250 that a model made, by relaxed accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
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
from llavakit.evaluation.scoring.relaxed import relaxed
from llavakit.evaluation.scoring.shares import mean_credit

_SHORT = {
    "v1.5": "Answer the question using a single word or phrase.",
    "v1.6": "Answer the question using a single word or phrase.",
    "lmms-eval": "Answer the question with a single word.",
}
_FROM = "https://huggingface.co/datasets/ahmed-masry/ChartQA, ChartQA Dataset.zip"
HALVES = {half: NeededFile(f"test/test_{half}.json", _FROM, "0.2 MB") for half in ("human", "augmented")}
PICTURES = NeededFile("test/png", _FROM, "1 GB", required=False)
COPY = NeededFile(
    "data/test-*.parquet",
    "https://huggingface.co/datasets/lmms-lab-encoder/ChartQA",
    "0.1 GB",
    required=False,
)


def read(folder: Path, variant: str) -> list[Question]:
    """The questions people wrote, then those that were made."""
    way, paths = first_found(folder, HALVES["human"], COPY)
    if way is COPY:
        return with_unique_ids(list(_from_copy(paths, variant)), paths[0])
    questions = []
    for half, needed in HALVES.items():
        path = first_found(folder, needed)[1][0]
        for number, row in enumerate(read_json(path), 1):
            picture = InFile(folder / PICTURES.path / str(field(row, "imgname", path)))
            asked = f"{text_field(row, 'query', path).strip()}\n{_SHORT[variant]}"
            truth = text_field(row, "label", path)
            questions.append(Question(f"{half}-{number}", (picture,), asked, truth, category=half))
    return with_unique_ids(questions, folder)


def _from_copy(paths: Sequence[Path], variant: str) -> Iterator[Question]:
    there: Counter[str] = Counter()
    for row in read_parquet(paths):
        kind = str(field(row.values, "type", row.path))
        half = kind.removesuffix("_test")
        if half not in HALVES:
            raise LlavakitError(f"{row.path}: the type {kind!r} is neither human_test nor augmented_test")
        there[half] += 1
        asked = f"{text_field(row.values, 'question', row.path).strip()}\n{_SHORT[variant]}"
        truth = text_field(row.values, "answer", row.path)
        picture = InParquet(row.path, row.row, "image")
        yield Question(f"{half}-{there[half]}", (picture,), asked, truth, category=half)


def mark(question: Question, answer: str) -> Verdict:
    """Right by relaxed accuracy, without blanks at the answer's ends, which lmms-eval and VLMEvalKit take off too."""
    said = answer.strip()
    return Verdict(question, said, float(relaxed(said, question.truth)))


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent right of all, and of each half."""
    figures = {"overall": mean_credit(verdicts)}
    for half in HALVES:
        if those := [v for v in verdicts if v.question.category == half]:
            figures[half] = mean_credit(those)
    return figures


_PUBLISHED = (
    ("LLaVA-1.5-7B", 18.2), ("LLaVA-1.5-13B", 18.2), ("LLaVA-1.6-Vicuna-7B", 54.8), ("LLaVA-1.6-Vicuna-13B", 62.2),
    ("LLaVA-1.6-Mistral-7B", 38.8), ("LLaVA-1.6-34B", 68.7), ("InstructBLIP-7B", 12.5), ("InstructBLIP-13B", 12.7),
    ("Qwen-VL-Chat", 60.1),
)  # fmt: skip

BENCHMARK = Benchmark(
    name="chartqa",
    title="ChartQA, test",
    files=(*HALVES.values(), PICTURES, COPY),
    variants=(
        Variant("v1.5", "test, relaxed accuracy, single word or phrase, LLaVA-1.5"),
        Variant("v1.6", "test, relaxed accuracy, single word or phrase, LLaVA-1.6"),
        Variant("lmms-eval", "test, relaxed accuracy, single word, as lmms-eval asks"),
    ),
    read=read,
    mark=mark,
    summarise=summarise,
    headline="overall",
    max_new_tokens=16,
    published=tuple(
        Published(model, value, "lmms-eval, single word", "lmms-eval paper") for model, value in _PUBLISHED
    ),
)
