"""MathVista: both sources, both ways of asking, short answers by rule and by a judge, nearest choices counted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llavakit.cli.main import main
from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.marking import mark_answers
from llavakit.evaluation.pictures import InFile, picture_bytes
from llavakit.evaluation.results import read_results
from llavakit.evaluation.scoring_saved import score_file
from llavakit.synthesis.endpoint.fake import FakeServer, FakeSettings

MINI, TEST = load("mathvista"), load("mathvista_test")


def row(name: str, answer: str, kind: str = "text", choices: list[str] | None = None, **changed: Any) -> Any:
    """A question in the form of the official file."""
    return {
        "question": f"Question {name}?",
        "image": f"images/{name}.jpg",
        "choices": choices,
        "unit": None,
        "precision": None,
        "answer": answer,
        "question_type": "multi_choice" if choices else "free_form",
        "answer_type": kind,
        "pid": name,
        "metadata": {"split": "testmini", "task": "geometry", "skills": ["algebra"]},
    } | changed


HOUR = ["half past", "quarter", "o'clock"]
ROWS = [
    row("1", "quarter", choices=HOUR),
    row("2", "14", "integer", unit="cm"),
    row("3", "1.2", "float", precision=1),
    row("4", "[1, 2]", "list", metadata={"task": "charts", "skills": ["algebra", "logic"]}),
    row("5", "no", choices=["yes", "no"], unit="m"),
]
ANSWERS = {"1": "B", "2": "14", "3": "1.24", "4": "[1, 2]", "5": "(A) yes"}


def write(folder: Path, rows: list[Any] = ROWS, *, queries: bool = True) -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data/testmini.json").write_text(json.dumps({one["pid"]: one for one in rows}))
    if queries:
        (folder / "data/query.json").write_text(
            json.dumps({one["pid"]: f"Query {one['pid']}" for one in rows})
        )
    return folder


def copy(folder: Path, name: str = "testmini", rows: list[Any] = ROWS) -> Path:
    """The hub's copy: digits as a float, pictures in a column, queries in another."""
    (folder / "data").mkdir(parents=True)
    cells = [{"bytes": f"picture {one['pid']}".encode(), "path": None} for one in rows]
    table = pa.Table.from_pylist([{**one, "query": f"Query {one['pid']}"} for one in rows])
    digits = pa.array([one["precision"] for one in rows], pa.float64())
    table = table.set_column(table.column_names.index("precision"), "precision", digits)
    table = table.append_column(
        "decoded_image", pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    )
    pq.write_table(table, folder / f"data/{name}-00000-of-00001-0123abcd.parquet")
    return folder


def test_questions_are_asked_as_lmms_evals_format_task_asks_or_by_the_authors_queries(tmp_path: Path) -> None:
    prompts = {question.id: question.prompt for question in MINI.read(write(tmp_path), "format")}
    letter = "Answer with the option's letter from the given choices directly."
    assert prompts == {
        "1": f"Question 1?\nA. half past\nB. quarter\nC. o'clock\n{letter}",
        "2": "Question 2? (Unit: cm)\nAnswer the question using a single integer number.",
        "3": "Question 3?\nAnswer the question using a single floating-point number with one decimal place.",
        "4": "Question 4?\nAnswer the question using a Python list.",
        "5": f"Question 5? (Unit: m)\nA. yes\nB. no\n{letter}",
    }
    write(tmp_path, [row("3", "1.25", "float", precision=2)])
    assert MINI.read(tmp_path, "format")[0].prompt.endswith("number with two decimal places.")
    assert [question.prompt for question in MINI.read(tmp_path, "query")] == ["Query 3"]


def test_the_copy_reads_as_the_official_file_does(tmp_path: Path) -> None:
    official, copied = MINI.read(write(tmp_path / "a"), "format"), MINI.read(copy(tmp_path / "b"), "format")
    assert [(q.id, q.prompt, q.truth, q.category, q.meta) for q in official] == [
        (q.id, q.prompt, q.truth, q.category, q.meta) for q in copied
    ]
    assert official[0].pictures == (InFile(tmp_path / "a/data/images/1.jpg"),)
    assert picture_bytes(copied[0].pictures[0]) == b"picture 1"
    assert [q.prompt for q in MINI.read(tmp_path / "b", "query")] == [f"Query {n}" for n in range(1, 6)]


def test_figures_are_counted_by_hand(tmp_path: Path) -> None:
    questions = MINI.read(write(tmp_path), "format")
    marked = mark_answers(MINI, questions, ANSWERS)
    assert marked.figures == {
        "accuracy": 80, "without a judge": 80, "without nearest choices": 80, "of choices": 50, "free": 100,
        "answer: text": 50, "answer: integer": 100, "answer: float": 100, "answer: list": 100,
        "task: geometry": 75, "task: charts": 100, "skill: algebra": 80, "skill: logic": 100,
    }  # fmt: skip
    assert marked.score == 80 and marked.notes == {"no rule reads it, taken whole": 1}, (
        "a list is always taken whole"
    )
    assert marked.others["lmms-eval 0.7.3: without a judge, decimals lost"] == 60


def test_an_empty_answer_may_score_and_is_counted(tmp_path: Path) -> None:
    questions = MINI.read(write(tmp_path), "format")
    marked = mark_answers(MINI, questions, dict.fromkeys(ANSWERS, ""))
    # the shortest choices are `quarter`, the first of two with seven letters, and `no`, and both are true
    assert [verdict.credit for verdict in marked.verdicts] == [1, 0, 0, 0, 1]
    assert marked.score == 40 and marked.figures["without nearest choices"] == 0
    assert marked.notes == {
        "empty: the nearest choice": 2,
        "empty: no integer": 1,
        "empty: no float": 1,
        "empty": 1,
        "nothing understood": 2,
    }
    assert marked.others["MathVista: without a judge, empty replies ignored"] == 0


@pytest.mark.parametrize(
    ("answer", "parsed", "credit", "note"),
    [
        ("B", "quarter", 1, ""), ("quarter", "quarter", 1, ""), ("(B) quarter", "quarter", 1, ""),
        ("It is (B).", "quarter", 1, "no rule reads it, taken whole"),
        ('The answer is "quarter".', "quarter", 1, ""),
        ("Quarter", "quarter", 1, "no rule reads it, taken whole: the nearest choice"),
        ("B.", "quarter", 1, "no rule reads it, taken whole: the nearest choice"),
        ("A.", "quarter", 1, "no rule reads it, taken whole: the nearest choice"),
        ("\x00\x1b[31mC", "quarter", 1, "no rule reads it, taken whole: the nearest choice"),
        # as far from every choice as it is long
        ("y" * 100_000, "half past", 0, "no rule reads it, taken whole: the nearest choice"),
    ],
)  # fmt: skip
def test_a_choice_is_named_or_the_nearest(
    tmp_path: Path, answer: str, parsed: str, credit: float, note: str
) -> None:
    verdict = MINI.mark(MINI.read(write(tmp_path), "format")[0], answer)
    assert (verdict.parsed, verdict.credit, verdict.note) == (parsed, credit, note)


def test_a_judge_is_asked_only_where_no_rule_reads_the_answer(tmp_path: Path) -> None:
    choice, whole, decimal, many, _ = MINI.read(write(tmp_path), "format")
    assert MINI.ask_judge is not None and MINI.mark_judged is not None
    for question, answer in ((choice, "B"), (choice, " "), (whole, "14"), (decimal, "1.24")):
        assert MINI.ask_judge(question, answer) is None
    request = MINI.ask_judge(whole, "There are fourteen.")
    assert request is not None and (request.temperature, request.model) == (0, "gpt-4-0613")
    sent = request.messages[0].content
    assert "Query 2" in sent and "There are fourteen." in sent and "a whole number" in sent
    assert MINI.ask_judge(many, "1 and 2") is not None
    judged = MINI.mark_judged(whole, "There are fourteen.", "14\n")
    assert (judged.credit, judged.facts["alone"], judged.note) == (1, 0, "read by the judge")
    assert MINI.mark_judged(choice, "no idea", "UNANSWERED").parsed is None
    assert MINI.mark_judged(choice, "the B one", "b").note == "read by the judge: the nearest choice"
    figures = MINI.summarise(
        [judged, MINI.mark(choice, "B"), MINI.mark_judged(choice, "no idea", "UNANSWERED")]
    )
    assert figures["accuracy"] == pytest.approx(200 / 3)
    # alone, `no idea` is nearest to `quarter`
    assert figures["without a judge"] == pytest.approx(200 / 3)
    assert figures["without nearest choices"] == pytest.approx(200 / 3)


def test_the_authors_examples_are_sent_where_they_lie_in_the_folder(tmp_path: Path) -> None:
    (write(tmp_path) / "mathvista-extraction.txt").write_text("\nRead the examples.\n\n")
    assert MINI.ask_judge is not None
    request = MINI.ask_judge(MINI.read(tmp_path, "format")[1], "There are fourteen.")
    assert request is not None
    assert request.messages[0].content == (
        "Read the examples.\n\nQuery 2\n\nThere are fourteen.\n\nExtracted answer: "
    )
    (tmp_path / "mathvista-extraction.txt").write_bytes(b"\xff")
    with pytest.raises(LlavakitError, match=r"mathvista-extraction.txt cannot be read as text in UTF-8"):
        MINI.read(tmp_path, "format")


def test_the_command_asks_the_judge_and_tells_what_rules_alone_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path / "mathvista")
    (tmp_path / "mathvista/mathvista-extraction.txt").write_text("Read the examples.")
    (tmp_path / "answers.json").write_text(json.dumps(ANSWERS | {"2": "There are fourteen."}))
    given = [
        "--answers",
        str(tmp_path / "answers.json"),
        "--data",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
    ]
    with FakeServer(FakeSettings(models=("judge",))) as fake, pytest.raises(SystemExit) as end:
        main(["eval", "--benchmarks", "mathvista", "--judge", fake.url, *given])
    assert end.value.code == 0, capsys.readouterr().err
    result = read_results(tmp_path / "out")["benchmarks"]["mathvista"]
    assert result["judge"]["judged"] == 2, "the whole number and the list"
    assert result["figures"]["without a judge"] == 60
    assert "data/query.json" in result["hashes"]["data"]
    assert "mathvista-extraction.txt" in result["hashes"]["data"]


def test_awkward_saved_answers_are_counted_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data, path = write(tmp_path / "mathvista"), tmp_path / "answers.json"
    texts = ANSWERS | {"2": "1" * 100_000, "3": "", "5": "\x00no\x07"}
    path.write_text(json.dumps(dict(reversed(texts.items()))))
    scored = score_file("mathvista", path, data)
    assert scored.marked.score == 60 and scored.marked.notes["no rule reads it, taken whole: no integer"] == 1
    assert scored.counts["answers that are empty"] == scored.counts["answers with control characters"] == 1
    assert scored.counts["answers of more than 10,000 characters"] == 1
    rows = [{"id": name, "response": text} for name, text in texts.items()]
    path.write_text(json.dumps([*rows, rows[0]]))
    assert score_file("mathvista", path, data).counts["answers given twice, the same"] == 1
    path.write_text(json.dumps([*rows, {"id": "1", "response": "C"}]))
    with pytest.raises(LlavakitError, match="question 1 has two answers that differ"):
        score_file("mathvista", path, data)
    path.write_text(json.dumps(rows[1:]))
    with pytest.raises(LlavakitError, match="1 of 5 questions have no answer, 1 first"):
        score_file("mathvista", path, data)
    assert score_file("mathvista", path, data, partial=True).marked.score == 50


def test_the_authors_files_of_results_give_their_marks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data, path = write(tmp_path / "mathvista"), tmp_path / "output.json"
    # what the authors' tool made of each response, with their judge's help
    made = {
        "1": ("quarter", True),
        "2": (None, False),
        "3": ("1.2", True),
        "4": ("[1, 2]", True),
        "5": ("yes", False),
    }
    results = {
        one["pid"]: {
            **one,
            "response": "It says 14 and (B).",
            "prediction": made[one["pid"]][0],
            "true_false": made[one["pid"]][1],
        }
        for one in ROWS
    }
    path.write_text(json.dumps(results, indent=2))
    scored = score_file("mathvista", path, data)
    assert {v.question.id: bool(v.credit) for v in scored.marked.verdicts} == {
        name: right for name, (_, right) in made.items()
    }
    assert scored.counts == {"answers whose prediction is null, their response taken": 1}


def test_what_is_missing_or_unusable_is_told(tmp_path: Path) -> None:
    with pytest.raises(LlavakitError, match=r"data/testmini.json \(0.9 MB\).*; or data/testmini-\*.parquet"):
        MINI.read(tmp_path, "format")
    write(tmp_path, queries=False)
    with pytest.raises(LlavakitError, match=r"put there data/query.json \(1.6 MB\)"):
        MINI.read(tmp_path, "query")
    for bad, told in (
        (row("1", "", "integer"), "question 1 has no answer"),
        (row("1", "x", question_type="multi_choice"), "is one of choices and has none"),
        (row("1", "1.2", "float"), "wants a float with None digits"),
        (row("1", "x", "text"), "wants a text"),
    ):
        with pytest.raises(LlavakitError, match=told):
            MINI.read(write(tmp_path, [bad]), "format")
    (tmp_path / "data/testmini.json").write_text(json.dumps({"1": row("2", "14", "integer")}))
    with pytest.raises(LlavakitError, match="the question 1 calls itself 2"):
        MINI.read(tmp_path, "format")
    (tmp_path / "data/query.json").write_text("{}")
    write(tmp_path, queries=False)
    with pytest.raises(LlavakitError, match="question 1 has no query"):
        MINI.read(tmp_path, "query")


def test_the_test_split_has_no_score_here_and_goes_to_its_authors(tmp_path: Path) -> None:
    questions = TEST.read(copy(tmp_path, "test", [one | {"answer": ""} for one in ROWS]), "format")
    marked = mark_answers(TEST, questions, ANSWERS)
    assert all(math.isnan(value) for value in marked.figures.values())
    assert marked.notes["truth is with the authors"] == 4
    assert TEST.submission is not None
    TEST.submission(questions, ANSWERS | {"1": "B\n\x07"}, tmp_path / "up.json")
    assert json.loads((tmp_path / "up.json").read_text()) == ANSWERS | {"1": "B\n\x07"}
    with pytest.raises(LlavakitError, match="4 questions have no answer, 2 first"):
        TEST.submission(questions, {"1": "B"}, tmp_path / "up.json")


def test_of_no_answers_at_all_every_figure_is_nan() -> None:
    assert all(math.isnan(value) for value in MINI.summarise([]).values())
