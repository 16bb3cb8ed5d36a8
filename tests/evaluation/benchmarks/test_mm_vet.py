"""MM-Vet: what the judge is asked and asked again, how its words are read, and the means, counted by hand."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llavakit.cli.main import main
from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.benchmarks.mm_vet import OWN_EXAMPLES, ask_judge, ask_judge_again, mark_judged
from llavakit.evaluation.judge import Judge
from llavakit.evaluation.pictures import InFile, picture_bytes
from llavakit.evaluation.results import read_results
from llavakit.evaluation.scoring_saved import score_file
from llavakit.synthesis.asking import Limits
from llavakit.synthesis.endpoint.fake import FakeServer, FakeSettings
from llavakit.synthesis.teacher import Teacher, TeacherReply, TeacherRequest, Usage

MM_VET = load("mm_vet")
EXAMPLES = (
    "Mark it.\n\nQuestion | Ground truth | Prediction | Correctness\n--- | --- | --- | ---\nq | t | p | 0.5\n"
)
ROWS = {
    "v1_0": ("What is x?", "-1<AND>-5", ["math", "ocr"], "png"),
    "v1_1": ("What plant?", "fern", ["rec"], "jpg"),
    "v1_2": ("Who is it?", "a nurse<OR>a doctor", ["know", "rec"], "jpg"),
    "v1_3": ("What plant is | next?", "moss", ["rec"], "jpg"),
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The official file with four questions, and an evaluator that assigns its examples to `prompt`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "mm_vet"
    folder.mkdir(parents=True)
    document = {
        name: {"imagename": f"{name}.{ending}", "question": question, "answer": answer, "capability": needed, "imagesource": "x"}
        for name, (question, answer, needed, ending) in ROWS.items()
    }  # fmt: skip
    (folder / "mm-vet.json").write_text(json.dumps(document))
    (folder / "mm-vet_evaluator.py").write_text(f"import nothing_that_exists\nprompt = {EXAMPLES!r}\n")
    return folder


class Says:
    """A judge that says what a function says; remembers what it was asked."""

    name = "says"

    def __init__(self, say: Callable[[str], str]) -> None:
        self.say = say
        self.asked: list[TeacherRequest] = []

    async def reply(self, request: TeacherRequest) -> TeacherReply:
        self.asked.append(request)
        return TeacherReply(self.say(request.messages[0].content), "judge", "length", Usage(9, 3))


def judge(says: Teacher) -> Judge:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Teacher]:
        yield says

    return Judge("says", opened, limits=Limits(attempts=1, more_room=1.0))


def test_the_judge_is_shown_the_examples_and_the_answer_as_the_last_row(data: Path) -> None:
    question = MM_VET.read(data, "v1.5")[0]
    request = ask_judge(question, "x = -5")
    assert request.messages[0].content == f"{EXAMPLES}\nWhat is x? | -1 <AND> -5 | x = -5 | "
    assert len(request.messages) == 1 and request.messages[0].role == "user"
    assert (request.model, request.temperature, request.max_tokens) == ("gpt-4-0613", 0, 3)
    assert question.prompt == "What is x?", "the model is asked the bare question"
    assert question.pictures == (InFile(data / "images" / "v1_0.png"),)


def test_a_reply_that_cannot_be_read_is_asked_for_again_five_times_in_all_and_warmer(data: Path) -> None:
    first = ask_judge(MM_VET.read(data, "v1.5")[1], "a fern")
    again = [ask_judge_again(first, asked) for asked in range(1, 6)]
    assert again[4] is None
    assert [request.temperature for request in again[:4] if request is not None] == [0, 0.5, 1, 1.5]
    line = "\nPredict the correctness of the answer (digit): "
    assert all(
        request.messages[0].content == first.messages[0].content + line for request in again[:4] if request
    )


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("0.5", 0.5), ("1.0", 1), ("0", 0), ("0.3 |", 0.3), ("1\n", 1), ("1e-1", 0.1), (".7 because", 0.7),
        ("", None), ("1.1", None), ("-0.1", None), ("nan", None), ("inf", None), (" 0.5", None), ("0.5|", None),
        ("0.5\nso", None), ("Score: 1", None), ("1" * 100_000, None), ("\x00", None), ("half", None),
    ],
)  # fmt: skip
def test_the_number_before_the_first_space_is_the_mark(data: Path, reply: str, score: float | None) -> None:
    verdict = mark_judged(MM_VET.read(data, "v1.5")[0], "a", reply)
    if score is None:
        assert (
            verdict.parsed is None and math.isnan(verdict.credit) and "no number from 0 to 1" in verdict.note
        )
    else:
        assert verdict.credit == score and not verdict.note


def test_means_of_all_of_capabilities_and_of_sets_of_them(data: Path) -> None:
    replies = ["0.5", "1.0", "0.2", "who knows"]
    verdicts = [mark_judged(q, "a", r) for q, r in zip(MM_VET.read(data, "v1.5"), replies, strict=True)]
    figures = MM_VET.summarise(verdicts)
    assert figures == {
        "total": pytest.approx(100 * 1.7 / 3),
        "MM-Vet's tool: unread replies as 0": pytest.approx(100 * 1.7 / 4),
        "rec": pytest.approx(60),
        "ocr": 50,
        "know": pytest.approx(20),
        "math": 50,
        "set: ocr+math": 50,
        "set: rec": 100,
        "set: rec+know": pytest.approx(20),
    }
    nothing = MM_VET.summarise([MM_VET.mark(question, "a") for question in MM_VET.read(data, "v1.5")])
    assert math.isnan(nothing["total"])


def save(folder: Path, answers: object) -> Path:
    path = folder / "answers.json"
    path.write_text(json.dumps(answers))
    return path


def test_saved_answers_are_joined_by_both_kinds_of_ids_and_judged(data: Path, tmp_path: Path) -> None:
    long, odd = "fern " * 20_000, "a \x00nurse\x1b"
    official = {"v1_3": "", "v1_2": odd, "v1_1": long, "v1_0": "x = -1 or -5"}
    rows = [{"question_id": int(name[3:]), "prompt": "?", "text": text} for name, text in official.items()]

    def say(content: str) -> str:
        if content.endswith("(digit): "):
            return "0.4"
        return "well," if "| fern |" in content else "0.9"

    found = []
    for name, saved in (("official", official), ("llava", [*rows, rows[0], {"question_id": 9, "text": "?"}])):
        says = Says(say)
        out = tmp_path / name
        scored = score_file("mm_vet", save(tmp_path, saved), data.parent, judge=judge(says), folder=out)
        assert len(says.asked) == 5, "four answers, and one asked for again"
        assert scored.marked.score == pytest.approx(100 * (0.9 + 0.4 + 0.9 + 0.9) / 4)
        assert scored.counts["replies of the judge that could not be read, asked for again"] == 1
        assert scored.counts["answers of more than 10,000 characters"] == 1
        assert (
            scored.counts["answers that are empty"] == scored.counts["answers with control characters"] == 1
        )
        assert scored.judge is not None and scored.judge["calls"] == 5
        assert scored.judge_replies["v1_1"] == ("0.4",)
        found.append(scored)
    assert found[1].counts["answers given twice, the same"] == found[1].counts["answers to no question"] == 1
    again = Says(say)
    score_file(
        "mm_vet", tmp_path / "answers.json", data.parent, judge=judge(again), folder=tmp_path / "llava"
    )
    assert not again.asked, "nothing is paid for twice"
    with pytest.raises(LlavakitError, match=r"1 of 4 questions have no answer, v1_0 first"):
        score_file("mm_vet", save(tmp_path, rows[:3]), data.parent, judge=judge(again), folder=tmp_path / "c")
    with pytest.raises(LlavakitError, match="question v1_3 has two answers that differ"):
        score_file(
            "mm_vet", save(tmp_path, [*rows, {"question_id": 3, "text": "?"}]), data.parent, judge=judge(again), folder=tmp_path / "c"
        )  # fmt: skip


def test_a_judge_that_never_gives_a_number_is_counted_and_scores_nothing(data: Path, tmp_path: Path) -> None:
    says = Says(lambda content: "0.5" if "fern" not in content else " " if "(digit)" in content else "?")
    answers = save(tmp_path, dict.fromkeys(ROWS, "a fern in words") | {"v1_0": "x", "v1_2": "y", "v1_3": "z"})
    scored = score_file("mm_vet", answers, data.parent, judge=judge(says), folder=tmp_path / "out")
    assert len(says.asked) == 3 + 5
    assert scored.marked.notes == {"the judge gave no number from 0 to 1": 1, "nothing understood": 1}
    assert scored.marked.score == pytest.approx(50)
    assert scored.marked.figures["MM-Vet's tool: unread replies as 0"] == pytest.approx(37.5)


def test_a_notebook_and_the_copy_as_parquet_give_the_same_questions(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "data").mkdir(parents=True)
    cells = [
        {"cell_type": "markdown", "source": ["prompt = 'not this'"]},
        {"cell_type": "code", "source": ["!pip install openai\n", "prompt = 'nor this'"]},
        {"cell_type": "code", "source": ["model = 'm'\n", f"prompt = {EXAMPLES!r}"]},
    ]
    (copy / "mm-vet_evaluator.ipynb").write_text(json.dumps({"cells": cells}))
    columns = {
        "question_id": list(ROWS),
        "image": [{"bytes": name.encode(), "path": None} for name in ROWS],
        "question": [row[0] for row in ROWS.values()],
        "answer": [row[1] for row in ROWS.values()],
        "capability": [",".join(row[2]) for row in ROWS.values()],
    }
    pq.write_table(pa.table(columns), copy / "data" / "test-00000-of-00001.parquet")
    official, copied = MM_VET.read(data, "v1.5"), MM_VET.read(copy, "v1.5")
    for one, other in zip(official, copied, strict=True):
        assert (one.id, one.prompt, one.truth, one.meta) == (other.id, other.prompt, other.truth, other.meta)
        assert picture_bytes(other.pictures[0]) == other.id.encode()


def test_without_the_official_examples_only_the_variant_with_llavakits_own_is_judged(data: Path) -> None:
    (data / "mm-vet_evaluator.py").unlink()
    with pytest.raises(
        LlavakitError, match=r"mm-vet_evaluator\.py \(15 kB\) from https.*--variant own-examples"
    ):
        MM_VET.read(data, "v1.5")
    question = MM_VET.read(data, "own-examples")[1]
    assert ask_judge(question, "moss").messages[0].content == f"{OWN_EXAMPLES}\nWhat plant? | fern | moss | "
    assert (
        "llavakit's examples" in MM_VET.variants[1].protocol and "llavakit's" in question.truth["judged by"]
    )


def test_own_examples_are_seven_rows_of_the_official_table() -> None:
    head, _, rows = OWN_EXAMPLES.partition("--- | --- | --- | ---\n")
    assert head.endswith("Question | Ground truth | Prediction | Correctness\n")
    marks = [line.split(" | ") for line in rows.splitlines()]
    assert len(marks) == 7 and all(len(row) == 4 and 0 <= float(row[3]) <= 1 for row in marks)


def test_files_that_are_missing_or_damaged_are_named(data: Path, tmp_path: Path) -> None:
    (data / "mm-vet_evaluator.py").write_text("prompt = make()\nprompted = 'x'\n")
    with pytest.raises(LlavakitError, match="assigns no text to `prompt`"):
        MM_VET.read(data, "v1.5")
    (data / "mm-vet.json").write_text(json.dumps({"v1_0": {"question": "?", "answer": "!"}}))
    with pytest.raises(LlavakitError, match=r"question v1_0 has no field 'capability'|no field 'imagename'"):
        MM_VET.read(data, "own-examples")
    (data / "mm-vet.json").write_text("[]")
    with pytest.raises(LlavakitError, match="holds list, expected an object from id to question"):
        MM_VET.read(data, "own-examples")
    (data / "mm-vet.json").unlink()
    with pytest.raises(LlavakitError, match=r"mm-vet\.json \(100 kB.*mm-vet\.zip; or data/test-\*\.parquet"):
        MM_VET.read(data, "own-examples")


def test_the_servers_file_has_every_answer_by_its_id(data: Path, tmp_path: Path) -> None:
    questions = MM_VET.read(data, "v1.5")
    assert MM_VET.submission is not None
    MM_VET.submission(questions, dict.fromkeys(ROWS, "a"), tmp_path / "s")
    assert json.loads((tmp_path / "s").read_text()) == dict.fromkeys(ROWS, "a")


def test_a_server_that_rambles_is_asked_again_by_the_command(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, out = save(tmp_path, dict.fromkeys(ROWS, "a fern")), tmp_path / "out"
    with (
        FakeServer(FakeSettings(seed=1, faults={"malformed": 0.5})) as fake,
        pytest.raises(SystemExit) as end,
    ):
        main(["eval", "--answers", str(saved), "--benchmarks", "mm_vet", "--data", str(data.parent), "--judge", fake.url, "--out", str(out)])  # fmt: skip
    assert end.value.code == 0
    again = fake.stats()["paid"] - len(ROWS)
    assert again > 0
    assert f"{again} replies of the judge that could not be read, asked for again" in capsys.readouterr().out
    result = read_results(out)["benchmarks"]["mm_vet"]
    assert 0 <= result["score"] <= 100 and result["judge"]["calls"] == again + len(ROWS)
    assert result["hashes"]["data"].keys() == {"mm-vet.json", "mm-vet_evaluator.py"}
    assert json.loads((out / "mm_vet-submission.json").read_text()) == dict.fromkeys(ROWS, "a fern")


def test_saved_grades_of_the_official_tool_score_as_it_does(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"v1_0": ["0.5", "0.5"], "v1_1": ["1.0", "0.8"], "v1_2": ["0.2", "0.2"], "v1_3": ["None", "0.0"]}
    grades = {
        name: {"model": ["gpt-4-0613"] * 2, "content": replies, "score": [0.0, 0.0]}
        for name, replies in said.items()
    }
    path, out = tmp_path / "grades.json", tmp_path / "out"
    path.write_text(json.dumps(grades))
    saved = save(tmp_path, dict.fromkeys(ROWS, "a fern"))
    with pytest.raises(SystemExit) as end:
        main(["eval", "--answers", str(saved), "--benchmarks", "mm_vet", "--data", str(data.parent), "--judge", f"saved:{path}", "--out", str(out)])  # fmt: skip
    assert end.value.code == 0 and "answered as gpt-4-0613; 4 answers; 2 runs" in capsys.readouterr().out
    result = read_results(out)["benchmarks"]["mm_vet"]
    assert result["judge"]["scores"] == pytest.approx([100 * 1.7 / 3, 100 * 1.5 / 4])
    official = result["figures"]["MM-Vet's tool: unread replies as 0"]
    assert official == pytest.approx((100 * 1.7 / 4 + 100 * 1.5 / 4) / 2)
