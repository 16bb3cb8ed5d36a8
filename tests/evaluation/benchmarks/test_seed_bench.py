"""SEED-Bench: the bare letter, pictures apart from videos, and the copy's frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.pictures import InFile, picture_bytes

ALL, IMAGE = load("seed_bench"), load("seed_bench_image")


def row(number: str, kind: str, dimension: int, answer: str = "A") -> dict[str, Any]:
    options = {f"choice_{letter}": f"{letter}!" for letter in "abcd"}
    return options | {
        "question_id": number,
        "data_id": f"{number}.5_x",
        "data_type": kind,
        "question_type_id": dimension,
        "question": "What is it?",
        "answer": answer,
    }


ROWS = [row("1", "image", 1), row("2", "image", 9, "B"), row("v3", "video", 10, "C")]
ANSWERS = {"1": "A", "2": "B. b!", "v3": "C"}


def write(folder: Path) -> None:
    (folder / "SEED-Bench.json").write_text(json.dumps({"questions": ROWS, "question_type": {}}))


def test_only_a_bare_letter_counts_and_lmms_eval_takes_more(tmp_path: Path) -> None:
    write(tmp_path)
    questions = ALL.read(tmp_path, "v1.5")
    verdicts = [ALL.mark(question, ANSWERS[question.id]) for question in questions]
    assert verdicts[1].note == "no bare letter"
    figures = ALL.summarise(verdicts)
    assert figures == {
        "all": pytest.approx(200 / 3),
        "image": 50,
        "video": 100,
        "Scene Understanding": 100,
        "Text Understanding": 0,
        "Action Recognition": 100,
    }
    assert ALL.others is not None
    assert ALL.others(questions, ANSWERS)["lmms-eval: seed_all"] == 100
    assert len(IMAGE.read(tmp_path, "v1.5")) == 2


def test_the_letter_is_asked_for_or_the_options_are_ranked(tmp_path: Path) -> None:
    write(tmp_path)
    directly = "Answer with the option's letter from the given choices directly."
    assert ALL.read(tmp_path, "v1.5")[0].prompt == f"What is it?\nA. a!\nB. b!\nC. c!\nD. d!\n{directly}"
    ranked = ALL.read(tmp_path, "ranked")[0]
    assert (ranked.prompt, ranked.choices) == ("What is it?", ("a!", "b!", "c!", "d!"))


def test_pictures_are_found_with_a_dot_in_the_name_and_frames_by_the_question(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("SEED-Bench-image/1.5_x", "SEED-Bench-video-image/v3.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    first, _, video = ALL.read(tmp_path, "v1.5")
    assert first.pictures == (InFile(tmp_path / "SEED-Bench-image/1.5_x"),)
    assert video.pictures == (InFile(tmp_path / "SEED-Bench-video-image/v3.png"),)


def test_of_the_copys_frames_the_middle_one_is_shown(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    cells = [[{"bytes": b"only", "path": None}], [{"bytes": b"%d" % n, "path": "p"} for n in range(8)]]
    rows = [ROWS[0] | {"image": cells[0]}, ROWS[2] | {"image": cells[1]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data/test-00000-of-00001.parquet")
    still, video = ALL.read(tmp_path, "v1.5")
    assert picture_bytes(still.pictures[0]) == b"only"
    assert picture_bytes(video.pictures[0]) == b"3"


def test_a_submission_has_every_answer_or_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    questions = ALL.read(tmp_path, "v1.5")
    assert ALL.submission is not None
    with pytest.raises(LlavakitError, match="1 questions have no answer, v3 first"):
        ALL.submission(questions, {"1": "A", "2": "B"}, tmp_path / "up.jsonl")
    ALL.submission(questions, ANSWERS, tmp_path / "up.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "up.jsonl").read_text().splitlines()]
    assert lines[1] == {"question_id": "2", "prediction": "B. b!"}
