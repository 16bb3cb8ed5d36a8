"""SEED-Bench (v1): 19,242 questions with four options, 14,233 about pictures and 5,009 about videos, in 12 dimensions.

LLaVA asks for the letter and shows one middle frame of a video; only an answer that is nothing but the letter counts
(scripts/convert_seed_for_submission.py). The official tool compares the likelihoods of the options instead: that is the
variant `ranked`, whose answer is the letter of the likeliest. The Hugging Face copy lacks 1,252 of the videos, so its
`all` and `video` stand beside no published number; `image` does.
"""

from __future__ import annotations

import json
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
from llavakit.evaluation.pictures import InFile, InParquet, PictureSource
from llavakit.evaluation.reading import (
    field,
    first_found,
    present,
    read_json,
    read_parquet,
    text_field,
    with_unique_ids,
)
from llavakit.evaluation.scoring.choices import bare_letter, option_lines
from llavakit.evaluation.scoring.choices_lmms import first_character
from llavakit.evaluation.wording import DIRECTLY
from llavakit.evaluation.writing import write_whole

QUESTIONS = NeededFile(
    "SEED-Bench.json", "https://huggingface.co/datasets/AILab-CVPR/SEED-Bench", "about 8 MB", required=False
)
PICTURES = NeededFile(
    "SEED-Bench-image",
    "https://huggingface.co/datasets/AILab-CVPR/SEED-Bench",
    "14,233 files",
    required=False,
)
FRAMES = NeededFile(
    "SEED-Bench-video-image",
    "middle frames, one picture a question named by its id, by LLaVA's scripts/extract_video_frames.py",
    "5,009 files",
    required=False,
)
COPY = NeededFile(
    "data/test-*.parquet",
    "https://huggingface.co/datasets/lmms-lab-encoder/SEED-Bench",
    "about 27 GB",
    required=False,
)
_DIMENSIONS = (
    "Scene Understanding",
    "Instance Identity",
    "Instance Attributes",
    "Instance Location",
    "Instances Counting",
    "Spatial Relation",
    "Instance Interaction",
    "Visual Reasoning",
    "Text Understanding",
    "Action Recognition",
    "Action Prediction",
    "Procedure Understanding",
)


def read(folder: Path, variant: str) -> list[Question]:
    """Every question, a video by its middle frame."""
    way, paths = first_found(folder, QUESTIONS, COPY)
    if way is COPY:
        return with_unique_ids(list(_from_copy(paths, variant)), paths[0])
    stems = {
        place.path: {path.stem: path for path in sorted((folder / place.path).glob("*"))}
        for place in (PICTURES, FRAMES)
    }
    questions = []
    for row in field(read_json(paths[0]), "questions", paths[0]):
        video = field(row, "data_type", paths[0]) == "video"
        place = folder / (FRAMES if video else PICTURES).path
        stem = text_field(row, "question_id" if video else "data_id", paths[0])
        # pictures come without an ending in their names, so a dot in one does not begin an ending
        whole = place / stem
        picture = whole if not video and whole.is_file() else stems[place.name].get(stem, whole)
        questions.append(_question(row, variant, (InFile(picture),), paths[0]))
    return with_unique_ids(questions, paths[0])


def read_pictures_only(folder: Path, variant: str) -> list[Question]:
    """The questions about pictures."""
    return [question for question in read(folder, variant) if question.meta["data_type"] == "image"]


def _from_copy(paths: Sequence[Path], variant: str) -> Iterator[Question]:
    counts = present(paths, "image")
    for row in read_parquet(paths):
        frames = counts[row.path][row.row]
        middle = max(0, frames - 1) // 2
        picture = (InParquet(row.path, row.row, "image", middle),) if frames else ()
        yield _question(row.values, variant, picture, row.path)


def _question(
    row: Mapping[str, Any], variant: str, picture: tuple[PictureSource, ...], where: Path
) -> Question:
    options = tuple(text_field(row, f"choice_{letter}", where) for letter in "abcd")
    asked, truth = text_field(row, "question", where), text_field(row, "answer", where)
    if len(truth) != 1 or truth not in "ABCD":
        raise LlavakitError(
            f"{where}: question {row.get('question_id')} has the answer {truth!r}, which is no letter"
        )
    kind, number = text_field(row, "data_type", where), int(field(row, "question_type_id", where))
    if kind not in ("image", "video"):
        raise LlavakitError(
            f"{where}: question {row.get('question_id')} is about a {kind!r}; expected image or video, which is what "
            "SEED-Bench's first version has"
        )
    ranked = variant == "ranked"
    return Question(
        id=text_field(row, "question_id", where),
        pictures=picture,
        prompt=asked if ranked else f"{asked}\n{option_lines(options)}\n{DIRECTLY}",
        truth=truth,
        choices=options if ranked else (),
        category=_DIMENSIONS[number - 1] if 1 <= number <= len(_DIMENSIONS) else f"type {number}",
        meta={"data_type": kind},
    )


def mark(question: Question, answer: str) -> Verdict:
    """Right when the answer is the true letter and nothing else."""
    letter = bare_letter(answer)
    return Verdict(question, letter, float(letter == question.truth), "" if letter else "no bare letter")


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent right of all, of pictures, of videos and of each dimension."""
    parts: dict[str, list[float]] = {"all": [], "image": [], "video": []}
    for verdict in verdicts:
        for name in ("all", str(verdict.question.meta["data_type"]), verdict.question.category):
            parts.setdefault(name, []).append(verdict.credit)
    return {name: 100 * sum(part) / len(part) if part else math.nan for name, part in parts.items()}


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """What lmms-eval gives, which takes an answer's first character."""
    parts: dict[str, list[bool]] = {"all": []}
    for question in questions:
        right = first_character(answers.get(question.id, "")) == question.truth
        for name in ("all", str(question.meta["data_type"])):
            parts.setdefault(name, []).append(right)
    return {
        f"lmms-eval: seed_{name}": 100 * sum(part) / len(part) if part else math.nan
        for name, part in parts.items()
    }


def submit(questions: Sequence[Question], answers: Mapping[str, str], path: Path) -> None:
    """The leaderboard's file: a line of JSON a question. Raises LlavakitError when one has no answer."""
    lacking = [question.id for question in questions if question.id not in answers]
    if lacking:
        raise LlavakitError(
            f"{len(lacking)} questions have no answer, {lacking[0]} first: answer all, then submit"
        )
    rows = [{"question_id": question.id, "prediction": answers[question.id]} for question in questions]
    write_whole(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


_TABLE = {  # all, image, video
    "LLaVA-1.5-7B": (58.6, 66.1, 37.3),
    "LLaVA-1.5-13B": (61.6, 68.2, 42.7),
    "LLaVA-1.5-13B-HD": (62.6, 70.1, 41.3),
    "InstructBLIP-7B": (53.4, 58.8, 38.1),
    "Qwen-VL-Chat": (58.2, 65.4, 37.8),
}
_LORA = {"LLaVA-1.5-7B-LoRA": 60.1, "LLaVA-1.5-13B-LoRA": 61.3}
_V16 = {
    "LLaVA-1.6-Vicuna-7B": 70.2,
    "LLaVA-1.6-Vicuna-13B": 71.9,
    "LLaVA-1.6-Mistral-7B": 72.2,
    "LLaVA-1.6-34B": 75.9,
}
_PAPER, _ZOO = "LLaVA-1.5 paper, table 4", "LLaVA model zoo"
_FILES = (QUESTIONS, PICTURES, FRAMES, COPY)
_VARIANTS = (
    Variant("v1.5", "letter directly, middle frame, LLaVA-1.5"),
    Variant("v1.6", "letter directly, middle frame, LLaVA-1.6"),
    Variant("ranked", "likelihood of the four options"),
)

BENCHMARKS = (
    Benchmark(
        name="seed_bench",
        title="SEED-Bench, pictures and videos",
        files=_FILES,
        variants=_VARIANTS,
        read=read,
        mark=mark,
        summarise=summarise,
        headline="all",
        others=others,
        submission=submit,
        published=(
            *(Published(model, row[0], "all, letter directly", _PAPER) for model, row in _TABLE.items()),
            *(Published(model, value, "all, letter directly", _ZOO) for model, value in _LORA.items()),
        ),
    ),
    Benchmark(
        name="seed_bench_image",
        title="SEED-Bench, the 14,233 questions about pictures",
        files=_FILES,
        variants=_VARIANTS,
        read=read_pictures_only,
        mark=mark,
        summarise=summarise,
        headline="image",
        others=others,
        submission=submit,
        published=(
            *(Published(model, row[1], "image, letter directly", _PAPER) for model, row in _TABLE.items()),
            *(Published(model, value, "image, letter directly", _ZOO) for model, value in _V16.items()),
        ),
    ),
)
