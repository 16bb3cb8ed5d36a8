"""What holds for stage 1's pairs: every caption with a picture becomes one, the rest is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llavakit.cli.main import app
from llavakit.data.readers.llava import read_llava
from llavakit.errors import LlavakitError
from llavakit.synthesis.kinds import BRIEF_QUESTIONS
from llavakit.synthesis.pairs import write_pairs


def test_captions_become_answers_to_brief_questions(tmp_path: Path) -> None:
    source = tmp_path / "in.tsv"
    source.write_text(
        "".join(f"a dog number {n}\tphotos/{n}.jpg\n" for n in range(60)) + "no picture\n\tx.jpg\n"
    )
    for name in ("out.json", "out.jsonl"):
        written, left_out = write_pairs(source, tmp_path / name)
        assert written == 60 and left_out == {"a row that names no picture": 1, "an empty caption": 1}
        rows = [row.conversation for row in read_llava(tmp_path / name)]
        assert len(rows) == 60 and all(row is not None for row in rows)
    listed = json.loads((tmp_path / "out.json").read_text())
    assert listed[3]["image"] == "photos/3.jpg" and listed[3]["conversations"][1]["value"] == "a dog number 3"
    asked = {row["conversations"][0]["value"] for row in listed}
    assert asked == {f"<image>\n{question}" for question in BRIEF_QUESTIONS}


def test_pictures_of_coco_are_named_by_their_file(tmp_path: Path) -> None:
    source, target = tmp_path / "in.json", tmp_path / "out.json"
    told = [{"id": 1, "image_id": 5, "caption": "A dog."}, {"id": 2, "image_id": 6, "caption": "A cat."}]
    source.write_text(json.dumps({"images": [{"id": 5, "file_name": "5.jpg"}], "annotations": told}))
    written, left_out = write_pairs(source, target)
    assert written == 1 and left_out.total() == 1
    assert json.loads(target.read_text())[0]["image"] == "5.jpg"


def test_which_question_is_asked_does_not_depend_on_the_order(tmp_path: Path) -> None:
    lines = [f"a dog number {n}\t{n}.jpg\n" for n in range(20)]
    (tmp_path / "a.tsv").write_text("".join(lines))
    (tmp_path / "b.tsv").write_text("".join(reversed(lines)))
    asked = []
    for name in ("a", "b"):
        write_pairs(tmp_path / f"{name}.tsv", tmp_path / f"{name}.json")
        rows = json.loads((tmp_path / f"{name}.json").read_text())
        asked.append({row["image"]: row["conversations"] for row in rows})
    assert asked[0] == asked[1]


def test_mistakes_are_told_and_nothing_is_left_behind(tmp_path: Path) -> None:
    source = tmp_path / "in.tsv"
    source.write_text("no picture\n")
    with pytest.raises(LlavakitError, match="1 times a row that names no picture"):
        write_pairs(source, tmp_path / "out.json")
    with pytest.raises(LlavakitError, match="ends in"):
        write_pairs(source, tmp_path / "out.tsv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.tsv"]


def test_the_command_tells_what_it_wrote(tmp_path: Path) -> None:
    source = tmp_path / "in.tsv"
    source.write_text("a dog\tx.jpg\nno picture\n")
    done = CliRunner().invoke(app, ["data", "pairs", str(source), "--out", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    assert "1 pairs" in done.output and "left out 1: a row that names no picture" in done.output
