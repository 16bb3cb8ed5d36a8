"""RefCOCO, RefCOCO+ and RefCOCOg: the box of what a phrase refers to, right from an IoU of 0.5 on (Acc@0.5).

Read are lines of JSON, as Qwen-VL's authors publish the splits, and the Parquet copies of the Hugging Face hub. The
original `refs(...).p` are pickles, and opening one runs what stands in it: they are not read. The copies of RefCOCO val
and RefCOCOg val have 8,811 and 7,573 regions, which is 5,000 more each than papers score and as many as Google's own
split has; which are which cannot be seen, and they are not read either.

A line has `image`, `sent` or `expression`, `bbox` as corners in pixels or `bbox_xywh`, and `width` and `height`; where
it lacks these, the picture tells. A copy's row has several phrases, each a question.

The variant says on which scale the answer's numbers are. The prompt is that of LLaVA-1.5's training data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast, get_args

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Benchmark, Figures, NeededFile, Question, Variant, Verdict
from llavakit.evaluation.pictures import InFile, InParquet, PictureSource, named, picture_bytes
from llavakit.evaluation.placed import PLACE
from llavakit.evaluation.reading import (
    field,
    first_found,
    read_lines,
    read_parquet,
    text_field,
    texts_field,
    with_unique_ids,
)
from llavakit.evaluation.scoring.boxes import Corners, Scale, area, iou, lmms_hit, pointed
from llavakit.images.pixels import PictureError, picture_size

_PROMPT = "Please provide the bounding box coordinate of the region this sentence describes: {}."
_SCALES: dict[str, Scale] = {
    "v1.5": "square", **{scale: scale for scale in get_args(Scale) if scale != "square"}
}  # fmt: skip
"""A variant's scale; its name is the scale's but for LLaVA-1.5's own."""

PICTURES = NeededFile(
    "train2014", "http://images.cocodataset.org/zips/train2014.zip", "13.5 GB", required=False
)
_LINES = "https://ofasys-wlcb.oss-cn-wulanchabu.aliyuncs.com/Qwen-VL/evaluation"
_SETS = {
    "refcoco": ("RefCOCO", "refcoco", ("val", "testA", "testB")),
    "refcoco+": ("RefCOCO+", "refcoco%2B", ("val", "testA", "testB")),
    "refcocog": ("RefCOCOg", "refcocog", ("val", "test")),
}
_COPIES = {
    ("refcoco", "testA"): ("RefCOCO", "0.1 GB"),
    ("refcoco", "testB"): ("RefCOCO", "0.1 GB"),
    ("refcoco+", "val"): ("RefCOCOplus", "0.3 GB"),
    ("refcoco+", "testA"): ("RefCOCOplus", "0.1 GB"),
    ("refcoco+", "testB"): ("RefCOCOplus", "0.1 GB"),
    ("refcocog", "test"): ("RefCOCOg", "0.9 GB"),
}
"""The copies whose regions are those of the split that papers score, each below a folder of its name: their files are
named alike."""


def read(name: str, lines: NeededFile, copy: NeededFile | None, folder: Path, variant: str) -> list[Question]:
    """The phrases of a split in the file's order; those of one picture are one unit."""
    way, paths = first_found(folder, lines, *([copy] if copy else []))
    scale = _SCALES[variant]
    if way is copy:
        return with_unique_ids(list(_from_copy(name, paths, scale)), paths[0])
    return with_unique_ids(list(_from_lines(name, paths[0], folder, scale)), paths[0])


def _from_lines(name: str, path: Path, folder: Path, scale: Scale) -> Iterator[Question]:
    for place, (where, row) in enumerate(read_lines(path)):
        image = PurePosixPath(str(field(row, "image", where)))
        picture = InFile(folder / PICTURES.path / image.name)
        size = (row["width"], row["height"]) if {"width", "height"} <= row.keys() else _size(picture)
        if not all(_is_number(side) and side > 0 for side in size):
            raise LlavakitError(f"{where}: the picture is {size[0]!r} wide and {size[1]!r} high")
        phrase = text_field(row, "expression" if "expression" in row else "sent", where)
        named = next((str(row[one]) for one in ("question_id", "id") if one in row), None)
        meta = {PLACE: place} if named is None else {}
        corners = _corners(row, where)
        yield _question(named or f"{name}-{place}", picture, phrase, corners, size, scale, image.stem, meta)


def _corners(row: Mapping[str, Any], where: str) -> Corners:
    """The true box of a line; one that is named as corners and cannot be is refused."""
    if "bbox_xywh" in row:
        return _from_size(row["bbox_xywh"], where)
    box = _four(field(row, "bbox", where), where)
    if not area(box):
        raise LlavakitError(
            f"{where}: bbox {list(box)} is not left, top, right, bottom; name it bbox_xywh if it is left, top, width, "
            "height"
        )
    return box


def _from_size(value: Any, where: str) -> Corners:
    left, top, width, height = _four(value, where)
    if width <= 0 or height <= 0:
        raise LlavakitError(f"{where}: a box is {width} wide and {height} high, expected more than 0")
    return left, top, left + width, top + height


def _four(value: Any, where: str) -> Corners:
    if not isinstance(value, list) or len(value) != 4 or not all(_is_number(one) for one in value):
        raise LlavakitError(f"{where}: a box is {value!r:.60}, expected four numbers")
    return cast(Corners, tuple(float(one) for one in value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _from_copy(name: str, paths: Sequence[Path], scale: Scale) -> Iterator[Question]:
    number = 0
    for row in read_parquet(paths):
        where, picture = f"{row.path}, row {row.row}", InParquet(row.path, row.row, "image")
        corners, size = _from_size(field(row.values, "bbox", where), where), _size(picture)
        image = str(row.values.get("file_name") or where)
        for phrase in texts_field(row.values, "answer", where):
            yield _question(f"{name}-copy-{number}", picture, phrase, corners, size, scale, image, {})
            number += 1


def _size(picture: PictureSource) -> tuple[int, int]:
    """Width and height, from the head of the picture."""
    try:
        return picture_size(picture_bytes(picture))
    except PictureError as error:
        raise LlavakitError(f"{named(picture)}: {error}; its size is needed for its boxes") from error


def _question(
    name: str,
    picture: PictureSource,
    phrase: str,
    corners: Corners,
    size: Sequence[float],
    scale: Scale,
    image: str,
    meta: Mapping[str, Any],
) -> Question:
    asked = _PROMPT.format(" ".join(phrase.split()).removesuffix("."))
    truth = {"box": list(corners), "size": list(size), "scale": scale}
    return Question(name, (picture,), asked, truth, unit=image, meta=meta)


def mark(question: Question, answer: str) -> Verdict:
    """Right from an overlap of a half on."""
    truth = question.truth
    found = pointed(answer, truth["scale"], *truth["size"])
    if found.box is None:
        return Verdict(question, None, 0.0, found.note, {"iou": 0.0})
    overlap = iou(found.box, cast(Corners, tuple(truth["box"])))
    said = f"[{', '.join(f'{number:.1f}' for number in found.box)}] in pixels"
    return Verdict(question, said, float(overlap >= 0.5), found.note, {"iou": overlap})


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    """Percent right; the mean overlap in percent; percent of answers with a box."""
    count = len(verdicts)
    if not count:
        return dict.fromkeys(("Acc@0.5", "mean IoU", "with a box"), math.nan)
    return {
        "Acc@0.5": 100 * sum(verdict.credit for verdict in verdicts) / count,
        "mean IoU": 100 * sum(verdict.facts["iou"] for verdict in verdicts) / count,
        "with a box": 100 * sum(verdict.parsed is not None for verdict in verdicts) / count,
    }


def others(questions: Sequence[Question], answers: Mapping[str, str]) -> Figures:
    """What lmms-eval gives, which takes all numbers for parts of the picture."""
    hits = [lmms_hit(answers.get(q.id, ""), tuple(q.truth["box"]), *q.truth["size"]) for q in questions]
    return {"lmms-eval, 0 to 1 of the picture: ACC@0.5": 100 * sum(hits) / len(hits) if hits else math.nan}


_VARIANTS = (
    Variant("v1.5", "Acc@0.5, 0 to 1 of the padded square, LLaVA-1.5"),
    Variant("picture", "Acc@0.5, 0 to 1 of the picture"),
    Variant("hundredths", "Acc@0.5, 0 to 100 of the picture"),
    Variant("thousandths", "Acc@0.5, 0 to 1000 of the picture"),
    Variant("pixels", "Acc@0.5, pixels of the picture"),
)


def _benchmarks() -> Iterator[Benchmark]:
    for family, (title, place, splits) in _SETS.items():
        for split in splits:
            name = f"{family}_{split}"
            source = f"{_LINES}/{place}/{place}_{split}.jsonl"
            lines = NeededFile(f"{name}.jsonl", source, "about 2 MB")
            copy = None
            if (family, split) in _COPIES:
                repository, size = _COPIES[family, split]
                hub = f"https://huggingface.co/datasets/lmms-lab-encoder/{repository}"
                copy = NeededFile(f"{repository}/data/{split}-*.parquet", hub, size, required=False)
            yield Benchmark(
                name=name,
                title=f"{title}, {split}",
                files=(lines, PICTURES, *([copy] if copy else [])),
                variants=_VARIANTS,
                read=partial(read, name, lines, copy),
                mark=mark,
                summarise=summarise,
                headline="Acc@0.5",
                max_new_tokens=64,
                others=others,
            )


BENCHMARKS = tuple(_benchmarks())
