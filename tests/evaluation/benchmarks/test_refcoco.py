"""RefCOCO: read from lines and from copies, asked as LLaVA asks, scored by hand on every scale."""

from __future__ import annotations

import io
import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import all_names, load
from llavakit.evaluation.scoring_saved import score_file

NAMES = [name for name in all_names() if name.startswith("refcoco")]
IMAGE = "COCO_train2014_000000000007.jpg"
ROW = {"image": f"data/coco/train2014/{IMAGE}", "sent": "the red dog", "bbox": [50, 25, 150, 75], "width": 200, "height": 100}  # fmt: skip


def write(folder: Path, *rows: dict[str, Any], name: str = "refcoco_val") -> None:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, "PNG")
    return stream.getvalue()


def copy(path: Path, images: list[bytes], **columns: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = pa.array(
        [{"bytes": image, "path": None} for image in images],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    pq.write_table(pa.table({**columns, "image": cells}), path, row_group_size=1)


def test_the_splits_that_papers_score_have_each_a_benchmark() -> None:
    assert NAMES == [
        "refcoco+_testA", "refcoco+_testB", "refcoco+_val", "refcoco_testA", "refcoco_testB", "refcoco_val",
        "refcocog_test", "refcocog_val",
    ]  # fmt: skip
    assert [load(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named_and_the_mixed_copies_are_not_read(tmp_path: Path, name: str) -> None:
    copied = name not in ("refcoco_val", "refcocog_val")
    with pytest.raises(LlavakitError, match=r"\.jsonl \(about 2 MB\) from https://") as told:
        load(name).read(tmp_path, "v1.5")
    assert (".parquet" in str(told.value)) is copied


def test_a_line_is_asked_as_llava_was_trained(tmp_path: Path) -> None:
    write(tmp_path, ROW, {**ROW, "sent": "left  one.", "question_id": 9})
    first, second = load("refcoco_val").read(tmp_path, "v1.5")
    sentence = "Please provide the bounding box coordinate of the region this sentence describes"
    assert (first.id, first.prompt) == ("refcoco_val-0", f"{sentence}: the red dog.")
    assert (second.id, second.prompt) == ("9", f"{sentence}: left one.")
    assert first.pictures[0].path == tmp_path / "train2014" / IMAGE  # type: ignore[union-attr]
    assert first.unit == second.unit == "COCO_train2014_000000000007"


@pytest.mark.parametrize(
    ("variant", "whole", "half", "miss"),
    [
        ("v1.5", "[0.25, 0.375, 0.75, 0.625]", "[0.25, 0.375, 0.5, 0.625]", "[0.25, 0.24, 0.75, 0.75]"),
        ("picture", "[0.25, 0.25, 0.75, 0.75]", "[0.25, 0.25, 0.5, 0.75]", "[0.25, 0.375, 0.5, 0.625]"),
        ("hundredths", "{<25><25><75><75>}", "{<25><25><50><75>}", "[0.25, 0.25, 0.75, 0.75]"),
        ("thousandths", "(250,250),(750,750)", "(250,250),(500,750)", "(250,250),(499,750)"),
        ("pixels", "[50, 25, 150, 75]", "[50, 25, 100, 75]", "[50, 25, 99, 75]"),
    ],
)
def test_every_scale_scores_by_hand(tmp_path: Path, variant: str, whole: str, half: str, miss: str) -> None:
    write(tmp_path, ROW, ROW, ROW, ROW)
    benchmark = load("refcoco_val")
    questions = benchmark.read(tmp_path, variant)
    verdicts = [benchmark.mark(q, a) for q, a in zip(questions, (whole, half, miss, "nowhere"), strict=True)]
    assert [v.credit for v in verdicts] == [1, 1, 0, 0]
    assert [v.facts["iou"] for v in verdicts[:2]] == pytest.approx([1, 0.5])
    assert (verdicts[0].parsed, verdicts[3].parsed) == ("[50.0, 25.0, 150.0, 75.0] in pixels", None)
    figures = benchmark.summarise(verdicts)
    assert (figures["Acc@0.5"], figures["with a box"]) == (50, 75)
    assert figures["mean IoU"] == pytest.approx(100 * (1.5 + verdicts[2].facts["iou"]) / 4)
    assert math.isnan(benchmark.summarise([])["Acc@0.5"])


def test_lmms_eval_takes_numbers_of_the_square_for_those_of_the_picture(tmp_path: Path) -> None:
    write(tmp_path, ROW, ROW)
    benchmark = load("refcoco_val")
    questions = benchmark.read(tmp_path, "v1.5")
    answers = {"refcoco_val-0": "[0.25, 0.375, 0.75, 0.625]", "refcoco_val-1": "[0.25, 0.25, 0.75, 0.75]"}
    assert [benchmark.mark(q, answers[q.id]).credit for q in questions] == [1, 1]
    assert benchmark.others is not None
    # the first covers half of the box for it, the second all; on the square the second has the box as its half
    assert benchmark.others(questions, answers) == {"lmms-eval, 0 to 1 of the picture: ACC@0.5": 100}
    assert benchmark.others(questions, {"refcoco_val-0": "(0.25, 0.25, 0.75, 0.75)"}) == {
        "lmms-eval, 0 to 1 of the picture: ACC@0.5": 0
    }


def test_a_box_is_corners_or_named_otherwise(tmp_path: Path) -> None:
    benchmark = load("refcoco_val")
    bare = {key: value for key, value in ROW.items() if key not in ("bbox", "sent")}
    write(tmp_path, {**bare, "expression": "dog", "bbox_xywh": [50, 25, 100, 50]})
    assert benchmark.read(tmp_path, "pixels")[0].truth["box"] == [50, 25, 150, 75]
    for odd, told in (
        ({"bbox": [50, 25, 40, 50]}, r"name it bbox_xywh"), ({"bbox": [1, 2, 3]}, "expected four numbers"),
        ({"bbox_xywh": [1, 2, 0, 3]}, "expected more than 0"), ({"bbox": ROW["bbox"], "width": 0}, "is 0 wide"),
    ):  # fmt: skip
        write(tmp_path, ROW, {**bare, "sent": "dog", **odd})
        with pytest.raises(LlavakitError, match=told) as error:
            benchmark.read(tmp_path, "pixels")
        assert "refcoco_val.jsonl, line 2" in str(error.value)


def test_the_picture_tells_its_size_where_the_line_does_not(tmp_path: Path) -> None:
    bare = {key: value for key, value in ROW.items() if key not in ("width", "height")}
    write(tmp_path, bare)
    benchmark = load("refcoco_val")
    with pytest.raises(LlavakitError, match="cannot be read"):
        benchmark.read(tmp_path, "v1.5")
    (tmp_path / "train2014").mkdir()
    (tmp_path / "train2014" / IMAGE).write_bytes(png(300, 40))
    assert benchmark.read(tmp_path, "v1.5")[0].truth["size"] == [300, 40]
    head = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    huge = png(300, 40)[:12] + head + struct.pack(">I", zlib.crc32(head)) + png(300, 40)[33:]
    for bad, told in ((b"no picture", "not a picture"), (huge, "pixels")):
        (tmp_path / "train2014" / IMAGE).write_bytes(bad)
        with pytest.raises(LlavakitError, match=f"{IMAGE}: .*{told}.*; its size is needed"):
            benchmark.read(tmp_path, "v1.5")


def test_a_copys_row_has_a_question_for_every_phrase(tmp_path: Path) -> None:
    columns = {
        "question_id": ["1", "2"],
        "question": ["?", "?"],
        "answer": [["left dog", "dog on left"], ["cat"]],
        "bbox": [[10.0, 20.0, 30.0, 40.0], [0.0, 0.0, 5.0, 5.0]],
        "file_name": ["a_0.jpg", "b_1.jpg"],
    }
    benchmark = load("refcoco+_testA")
    path = tmp_path / "RefCOCOplus" / "data" / "testA-00000-of-00001.parquet"
    copy(path, [png(100, 80), png(60, 50)], **columns)
    questions = benchmark.read(tmp_path, "v1.5")
    assert [(q.id, q.unit) for q in questions] == [
        ("refcoco+_testA-copy-0", "a_0.jpg"), ("refcoco+_testA-copy-1", "a_0.jpg"), ("refcoco+_testA-copy-2", "b_1.jpg"),
    ]  # fmt: skip
    assert questions[1].prompt.endswith(": dog on left.")
    assert questions[1].truth == {"box": [10, 20, 40, 60], "size": [100, 80], "scale": "square"}
    assert questions[2].truth["size"] == [60, 50]


def test_awkward_answers(tmp_path: Path) -> None:
    write(tmp_path, *[{**ROW, "sent": f"dog {n}"} for n in range(5)])
    rows = [
        {"question_id": 3, "text": "[" * 100_000},
        {"question_id": 1, "text": ""},
        {"question_id": 0, "text": "\x00[50, 25, 150, 75]\x07"},
        {"question_id": 4, "text": "[150, 75, 50, 25]"},
        {"question_id": 2, "text": "[0.25, 0.25, 0.75, 0.75]"},
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))
    found = score_file("refcoco_val", path, tmp_path, variant="pixels")
    assert [v.credit for v in found.marked.verdicts] == [1, 0, 0, 0, 0]
    assert found.marked.notes == {
        "no box found": 2,
        "nothing understood": 2,
        "numbers of another scale": 1,
        "corners in the wrong order": 1,
    }
    assert found.counts == {
        "answers joined by their question's place in the file": 5,
        "answers that are empty": 1,
        "answers of more than 10,000 characters": 1,
        "answers with control characters": 1,
    }
    path.write_text(json.dumps([{**row, "prompt": "...: dog 1."} for row in rows]))
    with pytest.raises(LlavakitError, match="to another set of questions, or in another order"):
        score_file("refcoco_val", path, tmp_path)
    path.write_text(json.dumps([*rows, {**rows[1], "text": "[1, 2, 3, 4]"}]))
    with pytest.raises(LlavakitError, match="refcoco_val-1 has two answers that differ"):
        score_file("refcoco_val", path, tmp_path)
    path.write_text(json.dumps([{"question_id": "refcoco_val-1", "text": "a"}]))
    with pytest.raises(LlavakitError, match="4 of 5 questions have no answer, refcoco_val-0 first"):
        score_file("refcoco_val", path, tmp_path)
