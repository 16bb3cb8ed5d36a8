"""`llavakit eval` on saved answers: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from llavakit.cli.main import main
from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Benchmark, Question, Variant, Verdict
from llavakit.evaluation.comparing import compare
from llavakit.evaluation.page import write_report
from llavakit.evaluation.results import read_marked, read_results, write_results
from llavakit.evaluation.scoring_saved import scored

ROOT = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("LLAVAKIT_GOLDEN", ROOT.parent / "shared" / "golden")) / "scienceqa"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ScienceQA of three questions, in a folder of its name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "data" / "scienceqa"
    folder.mkdir(parents=True)
    problem = {"question": "Which?", "choices": ["trout", "whale"], "answer": 1, "hint": "", "image": None}
    subjects = {"1": "natural science", "2": "natural science", "5": "social science"}
    problems = {
        name: {**problem, "subject": subject, "grade": "grade3"} for name, subject in subjects.items()
    }
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps({"test": ["1", "2", "5"]}))
    return tmp_path / "data"


def answers(folder: Path, texts: dict[str, str]) -> str:
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps({"question_id": n, "text": t}) + "\n" for n, t in texts.items()))
    return str(path)


def run(*arguments: str) -> None:
    main(["eval", *arguments])


def test_a_score_is_shown_and_written_with_all_it_was_made_from(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = answers(tmp_path, {"1": "B", "2": "A", "5": "no idea", "9": "B"})
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        run("--answers", saved, "--benchmarks", "scienceqa", "--data", str(data), "--out", str(out))
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "full 33.33" in shown
    assert "1 answers to no question" in shown
    assert "1 marked: no letter found" in shown
    result = read_results(out)["benchmarks"]["scienceqa"]
    assert result["score"] == pytest.approx(100 / 3)
    assert result["figures"]["IMG"] is None, "a share of nothing is null"
    assert result["categories"]["NAT"] == {"mean_credit": 50.0, "questions": 2}
    assert set(result["hashes"]["data"]) == {"problems.json", "pid_splits.json"}
    marked = read_marked(out, "scienceqa")
    assert [(row["llavakit_question"], row["parsed"], row["credit"]) for row in marked] == [
        ("1", "B", 1.0),
        ("2", "A", 0.0),
        ("5", None, 0.0),
    ]


def test_marked_answers_score_the_same_again(data: Path, tmp_path: Path) -> None:
    saved = answers(tmp_path, {"1": "B", "2": "A", "5": "no idea"})
    first, second = tmp_path / "first", tmp_path / "second"
    for source, out in ((saved, first), (str(first / "scienceqa.jsonl"), second)):
        with pytest.raises(SystemExit):
            run("--answers", source, "--benchmarks", "scienceqa", "--data", str(data), "--out", str(out))
    assert read_results(first)["benchmarks"] == read_results(second)["benchmarks"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--benchmarks", "nonsense", "--answers", "ANSWERS"], "no benchmark named 'nonsense'"),
        (["--benchmarks", "scienceqa,scienceqa_img", "--answers", "ANSWERS"], "give --answers once for each"),
        (["--benchmarks", "scienceqa", "--answers", "ANSWERS", "--variant", "v9"], "no variant 'v9'"),
        (["--benchmarks", "scienceqa", "--answers", "nowhere"], "nowhere cannot be read"),
        (["--benchmarks", "scienceqa", "--answers", "ANSWERS"], "2 of 3 questions have no answer"),
        (["--benchmarks", " ,", "--answers", "ANSWERS"], "--benchmarks names none"),
        (
            ["--benchmarks", "scienceqa", "--answers", "ANSWERS", "--condition", "blind", "--limit", "2"],
            "--condition, --limit say how a model is asked",
        ),
        (["--benchmarks", "scienceqa", "--answers", "ANSWERS", "--device", "cpu"], "--device say"),
        (
            ["--benchmarks", "scienceqa", "--model", "m", "--out", "o", "--device", "tpu"],
            "the device 'tpu' here",
        ),
        (
            ["--benchmarks", "scienceqa", "--model", "m", "--out", "o", "--device", "meta"],
            "the device 'meta' here",
        ),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    saved = answers(tmp_path, {"1": "B"})
    with pytest.raises(SystemExit) as end:
        run(*[saved if one == "ANSWERS" else one for one in arguments], "--data", str(data))
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert told in shown and shown.count("\n") == 1


def test_results_are_never_overwritten(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = answers(tmp_path, {"1": "B", "2": "A", "5": "B"})
    arguments = ("--answers", saved, "--benchmarks", "scienceqa", "--data", str(data), "--out", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 0
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2
    assert "holds results already" in capsys.readouterr().err


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="LLaVA's published answers are not here")
def test_published_answers_give_the_published_score(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = GOLDEN / "answers-llava-v1.5-13b_output.json"
    with pytest.raises(SystemExit):
        run("--answers", str(saved), "--benchmarks", "scienceqa_img", "--data", str(GOLDEN))
    assert "IMG 71.64" in capsys.readouterr().out


def test_what_a_server_takes_is_written_and_no_score_is_made_up_without_truth(
    tmp_path: Path, seed_bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "all.json"
    path.write_text(json.dumps({str(number): "A" for number in range(12)}))
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        run(
            "--answers", str(path), "--benchmarks", "seed_bench_image", "--data", str(seed_bench), "--out", str(out)
        )  # fmt: skip
    assert end.value.code == 0
    lines = (out / "seed_bench_image-submission.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"question_id": "0", "prediction": "A"}
    assert "for the server of seed_bench_image" in capsys.readouterr().out


def test_a_test_set_without_truth_has_null_for_a_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def without(question: Question, answer: str) -> Verdict:
        return Verdict(question, answer, math.nan, "the truth is on a server")

    toy = Benchmark(
        name="toy",
        title="Toy",
        files=(),
        variants=(Variant("test", "test"),),
        read=lambda folder, variant: [],
        mark=without,
        summarise=lambda verdicts: {"accuracy": math.nan},
        headline="accuracy",
    )
    questions = [Question(str(number), (), "?", None, category="ab"[number % 2]) for number in range(9)]
    one = scored(toy, toy.variants[0], questions, {question.id: "x" for question in questions}, {}, {}, 9)
    write_report(tmp_path, {"model": "m"}, [one])
    write_results(tmp_path, {"model": "m"}, [one])
    result = read_results(tmp_path)["benchmarks"]["toy"]
    assert result["score"] is None and result["interval"]["low"] is None
    assert result["notes"] == {"the truth is on a server": 9}
    assert 'data-verdict="no mark"' in (tmp_path / "report.html").read_text()
    with pytest.raises(LlavakitError, match="cannot be compared"):
        compare(tmp_path, tmp_path)


def test_a_part_of_a_servers_questions_is_told_to_be_no_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data" / "Annotations").mkdir(parents=True)
    rows = [{"image": f"VizWiz_test_0000000{n}.jpg", "question": "What?"} for n in range(2)]
    (tmp_path / "data" / "Annotations" / "test.json").write_text(json.dumps(rows))
    saved = answers(tmp_path, {"VizWiz_test_00000000.jpg": "a cup"})
    ways = ("--benchmarks", "vizwiz", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"))
    with pytest.raises(SystemExit) as end:
        run("--answers", saved, *ways, "--partial")
    assert end.value.code == 0
    told = "nothing for the server of vizwiz: it takes answers to all 2 questions, and 1 are there"
    assert told in capsys.readouterr().out
    assert not list((tmp_path / "out").glob("*submission*"))
