"""MMBench: rotations, options that are missing, what is read without a judge and with one, the server's spreadsheet."""

from __future__ import annotations

import base64
import csv
import json
import math
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.marking import mark_answers
from llavakit.evaluation.pictures import picture_bytes
from llavakit.evaluation.results import Scored, finite, verdicts_of, write_submission

EN, CN = load("mmbench"), load("mmbench_cn")
PICTURE = base64.b64encode(b"\xff\xd8" + b"jpeg" * 20).decode()
HEADER = [
    "index",
    "question",
    "hint",
    *"ABCD",
    "answer",
    "category",
    "image",
    "source",
    "l2-category",
    "comment",
    "split",
]
TAIL = ["s", "attribute", "", "dev"]
ROWS = [
    ["0", "Where?", "A map.", "hill", "sea", "", "", "B", "place", PICTURE, *TAIL],
    ["1000000", "Where?", "A map.", "sea", "hill", "nan", "", "A", "place", PICTURE, *TAIL],
    ["5", "How\tmany?", "", "one", "two", "NA", "four", "A", "count", PICTURE, *TAIL],
    ["7", "Colour?", "nan", "red", "tan", "blue", "pink", "C", "count", PICTURE, *TAIL],
    ["1000007", "Colour?", "nan", "tan", "blue", "pink", "red", "B", "count", PICTURE, *TAIL],
    ["2000007", "Colour?", "nan", "blue", "pink", "red", "tan", "A", "count", "7", *TAIL],
]
ANSWERS = {"0": "B", "1000000": "A. sea", "5": "one", "7": "C", "1000007": "It is blue", "2000007": "pink"}


def write(folder: Path, name: str = "mmbench_dev_20230712.tsv", rows: list[list[str]] = ROWS) -> None:
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows([HEADER, *rows])


def test_a_question_counts_when_every_rotation_there_is_is_right(tmp_path: Path) -> None:
    write(tmp_path)
    questions = EN.read(tmp_path, "v1.5")
    assert [question.unit for question in questions] == ["0", "0", "5", "7", "7", "7"]
    figures = EN.summarise([EN.mark(question, ANSWERS[question.id]) for question in questions])
    assert figures == {
        "circular": pytest.approx(200 / 3),
        "vanilla": 100,
        "circular: attribute": pytest.approx(200 / 3),
        "circular: count": 50,
        "circular: place": 100,
    }


def test_the_circular_score_has_an_interval_and_is_the_same_of_saved_marks(tmp_path: Path) -> None:
    write(tmp_path)
    questions = EN.read(tmp_path, "v1.5")
    marked = mark_answers(EN, questions, ANSWERS)
    assert marked.interval.units == 3 and marked.interval.low <= 200 / 3 <= marked.interval.high
    one = Scored(EN, EN.variants[0], questions, ANSWERS, marked, {}, {}, 6)
    saved = [json.loads(json.dumps(finite(row))) for row in one.rows()]
    assert EN.summarise(verdicts_of(saved)) == marked.figures


def test_answers_that_a_cell_cannot_hold_are_counted(tmp_path: Path) -> None:
    write(tmp_path)
    questions = EN.read(tmp_path, "v1.5")
    answers = ANSWERS | {"5": "x" * 100_000}
    marked = mark_answers(EN, questions, answers)
    written = write_submission(tmp_path, Scored(EN, EN.variants[0], questions, answers, marked, {}, {}, 6))
    assert written == (tmp_path / "mmbench-submission.xlsx", 1)


def test_a_question_is_asked_as_llava_does_up_to_the_first_missing_option(tmp_path: Path) -> None:
    write(tmp_path)
    directly = "Answer with the option's letter from the given choices directly."
    first, _, gap, unhinted, *_ = EN.read(tmp_path, "v1.5")
    assert first.prompt == f"A map.\nWhere?\nA. hill\nB. sea\n{directly}"
    assert gap.prompt == f"How\tmany?\nA. one\nB. two\n{directly}"
    assert unhinted.prompt.startswith("Colour?\nA. red\n")
    assert EN.read(tmp_path, "lmms-eval")[0].prompt == (
        f"A map. Where? There are several options:\nA. hill\nB. sea\n\n{directly}"
    )
    write(tmp_path, "MMBench_DEV_CN.tsv")
    assert CN.read(tmp_path, "v1.5")[0].prompt.endswith("\nB. sea\n请直接回答选项字母。")
    # lmms-eval leads in English to the options of either language
    assert CN.read(tmp_path, "lmms-eval")[0].prompt == (
        "A map. Where? There are several options:\nA. hill\nB. sea\n\n请直接使用所提供的选项字母作为答案回答。"
    )


def test_a_picture_written_once_is_found_from_the_other_rows(tmp_path: Path) -> None:
    write(tmp_path)
    questions = EN.read(tmp_path, "v1.5")
    assert {picture_bytes(question.pictures[0]) for question in questions} == {base64.b64decode(PICTURE)}
    write(tmp_path, rows=[*ROWS[:-1], [*ROWS[-1][:9], "12345", *TAIL]])
    with pytest.raises(LlavakitError, match="picture of row 12345"):
        EN.read(tmp_path, "v1.5")


def test_the_copy_reads_as_the_table_does(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "copy/en").mkdir(parents=True)
    records = [dict(zip(HEADER, row, strict=True)) for row in ROWS]
    copied = [
        {
            **row,
            "index": int(row["index"]),
            "image": {"bytes": b"x", "path": None},
            "L2-category": "attribute",
        }
        for row in records
    ]
    pq.write_table(pa.Table.from_pylist(copied), tmp_path / "copy/en/dev-00000-of-00001.parquet")
    table, copy = EN.read(tmp_path, "v1.5"), EN.read(tmp_path / "copy", "v1.5")
    assert [(q.id, q.prompt, q.truth, q.unit) for q in table] == [
        (q.id, q.prompt, q.truth, q.unit) for q in copy
    ]


def test_a_judge_is_asked_only_where_no_rule_reads_an_option(tmp_path: Path) -> None:
    write(tmp_path)
    question = EN.read(tmp_path, "v1.5")[0]
    assert EN.ask_judge is not None and EN.mark_judged is not None
    for read in ("B", "the sea", "Cannot determine the answer", "  "):
        assert EN.ask_judge(question, read) is None
    request = EN.ask_judge(question, "water, with waves and salt")
    assert request is not None and "B. sea" in request.messages[0].content and request.temperature == 0
    assert EN.mark(question, "water, with waves and salt").note == "no option found"
    assert EN.mark_judged(question, "water, with waves and salt", "B").credit == 1
    assert EN.mark_judged(question, "water, with waves and salt", "Z").note == "declined"
    assert EN.mark_judged(question, "water, with waves and salt", "who knows").parsed is None


def test_what_lmms_eval_reads_is_said_beside(tmp_path: Path) -> None:
    write(tmp_path)
    assert EN.others is not None
    assert EN.others(EN.read(tmp_path, "v1.5"), ANSWERS) == {"lmms-eval: static": pytest.approx(200 / 3)}
    assert CN.others is None, "its Chinese task has no score without a judge"


def test_a_table_has_all_answers_or_none(tmp_path: Path) -> None:
    write(tmp_path, rows=[[*row[:7], "" if row[0] == "5" else row[7], *row[8:]] for row in ROWS])
    with pytest.raises(LlavakitError, match="1 of 6 rows have no answer, expected all or none"):
        EN.read(tmp_path, "v1.5")


def test_the_test_split_has_no_score_here_and_goes_to_the_server_as_a_spreadsheet(tmp_path: Path) -> None:
    hidden = [[*row[:7], "", *row[8:]] for row in ROWS]
    write(tmp_path, "MMBench_TEST_EN.tsv", hidden)
    questions = EN.read(tmp_path, "test")
    figures = EN.summarise([EN.mark(question, "A") for question in questions])
    assert math.isnan(figures["circular"]) and math.isnan(figures["vanilla"])
    assert EN.submission is not None
    with pytest.raises(LlavakitError, match="5 questions have no answer, 1000000 first"):
        EN.submission(questions, {"0": "A"}, tmp_path / "up.xlsx")
    odd = ANSWERS | {"0": "<B> & \x07 _x0007_" + "x" * 100_000}
    EN.submission(questions, odd, tmp_path / "up.xlsx")
    rows = cells(tmp_path / "up.xlsx")
    assert rows[0] == ["index", "question", "A", "B", "C", "D", "prediction", "split"]
    assert rows[1][:6] == ["0", "Where?", "hill", "sea", "", ""]
    assert rows[1][6].startswith("<B> & _x0007_ _x005F_x0007_xxx") and len(rows[1][6]) < 32_800
    assert rows[3][1] == "How\tmany?" and rows[3][6] == "one"


def cells(path: Path) -> list[list[str]]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for name in archive.namelist():
            ElementTree.fromstring(archive.read(name))
        sheet = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    return [["".join(cell.itertext()) for cell in row] for row in sheet[0]]


def test_a_table_that_cannot_be_right_is_refused(tmp_path: Path) -> None:
    write(tmp_path, rows=[[*ROWS[0][:7], "D", *ROWS[0][8:]]])
    with pytest.raises(LlavakitError, match="index 0: 2 options and the answer 'D'"):
        EN.read(tmp_path, "v1.5")
    write(tmp_path, rows=[ROWS[0], ROWS[0]])
    with pytest.raises(LlavakitError, match="two questions have the id 0"):
        EN.read(tmp_path, "v1.5")
    write(tmp_path, rows=[ROWS[0][:5]])
    with pytest.raises(LlavakitError, match="not as many cells as the header"):
        EN.read(tmp_path, "v1.5")
