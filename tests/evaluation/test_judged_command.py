"""`llavakit eval` with a judge behind a real server: what is asked, kept, counted, shown and compared."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import pytest
from PIL import Image

from llavakit.cli.main import main
from llavakit.evaluation.results import read_marked, read_results
from llavakit.synthesis.endpoint.fake import FakeServer, FakeSettings

KINDS = ("conv", "detail", "complex")
COUNT = 6
REVIEWS = ["8 6\nwell", "9 9", "10 5", "8 8", "9 0", "10 8"]
Run = Callable[..., tuple[int, str, str]]


def lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Scores six saved answers to LLaVA-Bench (COCO) by a judge; gives exit code, output and errors."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    data = tmp_path / "data" / "llava_bench_coco"
    data.mkdir(parents=True)
    asked: list[dict[str, object]] = [
        {"question_id": n, "image": "1.jpg", "text": f"Question {n}?", "category": KINDS[n % 3]}
        for n in range(COUNT)
    ]
    lines(data / "qa90_questions.jsonl", asked)
    lines(
        data / "qa90_gpt4_answer.jsonl", [{"question_id": n, "text": f"Reference {n}."} for n in range(COUNT)]
    )
    box = {"category": "cat", "bbox": [0.1, 0.2, 0.3, 0.4]}
    lines(
        data / "caps_boxes_coco2014_val_80.jsonl",
        [{"image": "1.jpg", "captions": ["A cat."], "instances": [box]}],
    )
    rule = {"role": "Assistant", "prompt": "Give each assistant a score from 1 to 10."}
    (data / "rule.json").write_text(json.dumps(dict.fromkeys(KINDS, rule)))
    answers = tmp_path / "answers.jsonl"
    lines(answers, [{"question_id": n, "text": f"A cat, number {n}."} for n in reversed(range(COUNT))])

    def one(url: str, out: Path, *more: str) -> tuple[int, str, str]:
        answered = [] if "--model" in more else ["--answers", str(answers)]
        given = ["--data", str(tmp_path / "data"), "--out", str(out), "--judge", url, *answered]
        with pytest.raises(SystemExit) as end:
            main(["eval", "--benchmarks", "llava_bench_coco", *given, *more])
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    return one


def test_a_sound_judge_gives_a_score_and_its_words_are_kept_with_the_results(
    run: Run, tmp_path: Path
) -> None:
    with FakeServer(FakeSettings(models=("judge",))) as fake:
        code, shown, _ = run(fake.url, tmp_path / "out")
        paid = fake.stats()["paid"]
    assert (code, paid) == (0, COUNT)
    assert (tmp_path / "out" / "judge.sqlite").is_file()
    assert sorted(path.suffix for path in (tmp_path / "data" / "llava_bench_coco").iterdir()) == [
        ".json",
        *[".jsonl"] * 3,
    ]
    result = read_results(tmp_path / "out")["benchmarks"]["llava_bench_coco"]
    marks = [row["parsed"].split() for row in read_marked(tmp_path / "out", "llava_bench_coco")]
    ratio = 100 * sum(float(mine) for _, mine in marks) / sum(float(reference) for reference, _ in marks)
    assert result["score"] == pytest.approx(ratio) and f"overall {ratio:.2f}" in shown
    assert (result["judge"]["asked_as"], result["judge"]["judged"]) == (["gpt-4-0314"], COUNT)


def test_a_judge_that_rambles_is_counted_named_and_left_out(run: Run, tmp_path: Path) -> None:
    with FakeServer(FakeSettings(faults={"malformed": 0.5})) as fake:
        code, shown, _ = run(fake.url, tmp_path / "out")
    rows = read_marked(tmp_path / "out", "llava_bench_coco")
    unread = [row for row in rows if row["parsed"] is None]
    assert code == 0 and 0 < len(unread) < COUNT
    assert all(row["credit"] is None and row["judged"][0].startswith("Sure, here is") for row in unread)
    names = ", ".join(row["llavakit_question"] for row in unread)
    assert f"its reply could not be read on {names}, which are left out of overall" in shown
    result = read_results(tmp_path / "out")["benchmarks"]["llava_bench_coco"]
    assert result["notes"]["the judge gave no two marks"] == len(unread)
    marks = [row["parsed"].split() for row in rows if row["parsed"] is not None]
    ratio = 100 * sum(float(mine) for _, mine in marks) / sum(float(reference) for reference, _ in marks)
    assert result["score"] == pytest.approx(ratio)
    assert "the judge: Sure, here is" in (tmp_path / "out" / "report.html").read_text()


def test_a_judge_that_never_answers_is_given_up_and_the_same_command_asks_for_the_rest(
    run: Run, tmp_path: Path
) -> None:
    out, short = tmp_path / "out", ("--judge-timeout", "0.2", "--judge-attempts", "1")
    with FakeServer(FakeSettings(faults={"silence": 0.5})) as fake:
        code, _, said = run(fake.url, out, *short)
        left = fake.stats()["faults"]["silence"]
    assert code == 2 and 0 < left < COUNT
    assert f"no word on {left} of {COUNT} answers ({left} not judged: no reply; the last time: " in said
    assert "gave no whole answer within 0.2 s); give the command again" in said
    assert not (out / "results.json").exists()
    with FakeServer() as fake:
        code, shown, _ = run(fake.url, out)
        assert (code, fake.stats()["paid"]) == (0, left)
    assert f"{COUNT + left} calls ({left} now)" in shown


def test_answers_that_a_silent_judge_leaves_can_be_left_out(run: Run, tmp_path: Path) -> None:
    short = ("--judge-timeout", "0.2", "--judge-attempts", "1", "--partial")
    with FakeServer(FakeSettings(faults={"silence": 0.5})) as fake:
        code, shown, _ = run(fake.url, tmp_path / "out", *short)
        left = fake.stats()["faults"]["silence"]
    assert code == 0 and f"{COUNT - left} of {COUNT} questions" in shown
    assert f"{left} questions left out for want of the judge's word" in shown


def test_a_judge_that_dies_midway_is_asked_by_the_same_command_for_the_rest_alone(
    run: Run, tmp_path: Path
) -> None:
    out, once = tmp_path / "out", ("--judge-attempts", "1")
    with FakeServer(FakeSettings(slots=1, latency_s=0.05)) as dying:
        killer = threading.Thread(target=end_after, args=(dying, 2))
        killer.start()
        code, _, said = run(dying.url, out, *once)
        killer.join()
    first = dying.stats()
    assert code == 2 and "no word on" in said and 2 <= first["answered"] < COUNT
    with FakeServer() as fake:
        code, shown, _ = run(fake.url, out)
        second = fake.stats()
    assert code == 0 and f"{COUNT} of {COUNT} questions" in shown
    twice = first["paid_by_key"].keys() & second["paid_by_key"].keys()
    assert second["paid_again"] == 0 and len(twice) <= 1, "at most what was under way is paid again"


def end_after(server: FakeServer, answers: int) -> None:
    """Takes the server away when it has answered so many."""
    while server.stats(keys=False)["answered"] < answers:
        time.sleep(0.005)
    server.__exit__(None, None, None)


def test_runs_with_different_judges_are_not_compared(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(tmp_path / name) for name in ("one", "other", "again")]
    with FakeServer() as fake:
        for folder, model in zip(folders, ("judge-a", "judge-b", "judge-a"), strict=True):
            assert run(fake.url, Path(folder), "--judge-model", model)[0] == 0
    with pytest.raises(SystemExit) as end:
        main(["compare", *folders[:2]])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "the runs had different judges" in said and "judge-a" in said and "judge-b" in said
    with pytest.raises(SystemExit) as end:
        main(["compare", folders[0], folders[2]])
    assert end.value.code == 0 and "+0.00" in capsys.readouterr().out


def test_what_a_judge_left_unread_is_left_out_of_a_comparison_and_nothing_is_compared_with_nothing(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for name, said in (("one", REVIEWS), ("other", ["so so", *REVIEWS[1:]]), ("none", ["so so"] * COUNT)):
        saved = tmp_path / f"{name}.jsonl"
        lines(saved, [{"question_id": n, "content": one} for n, one in enumerate(said)])
        folders.append(str(tmp_path / name))
        assert run(f"saved:{saved}", Path(folders[-1]))[0] == 0
    with pytest.raises(SystemExit) as end:
        main(["compare", *folders[:2]])
    assert end.value.code == 0
    assert "1 questions on which a judge gave no marks are left out of the test" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["compare", folders[0], folders[2]])
    assert end.value.code == 2 and "no word of a judge could be read" in capsys.readouterr().err


def test_several_runs_give_the_mean_and_the_deviation(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with FakeServer() as fake:
        code, shown, _ = run(fake.url, out, "--judge-runs", "3")
        assert (code, fake.stats()["paid"]) == (0, 3 * COUNT)
    result = read_results(out)["benchmarks"]["llava_bench_coco"]
    scores = result["judge"]["scores"]
    assert result["score"] == pytest.approx(mean(scores)) and len(scores) == 3
    assert result["judge"]["deviation"] == pytest.approx(stdev(scores))
    assert f"deviation {stdev(scores):.2f}" in shown
    rows = read_marked(out, "llava_bench_coco")
    for place, score in enumerate(scores):
        marks = [row["judged"][place].splitlines()[0].split() for row in rows]
        assert score == pytest.approx(100 * sum(int(b) for _, b in marks) / sum(int(a) for a, _ in marks))


def test_what_the_judge_cost_is_told(run: Run, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('date = "2026-11-26"\n[models."gpt-4-0314"]\ninput = 30\noutput = 60\n')
    with FakeServer() as fake:
        code, shown, _ = run(fake.url, tmp_path / "out", "--judge-prices", str(prices))
        stats = fake.stats()
    cost = (30 * stats["prompt_tokens"] + 60 * stats["completion_tokens"]) / 1e6
    tokens = stats["prompt_tokens"] + stats["completion_tokens"]
    assert code == 0 and f"{COUNT} calls ({COUNT} now); {tokens:,} tokens; cost {cost:.4f}" in shown
    result = read_results(tmp_path / "out")["benchmarks"]["llava_bench_coco"]
    assert result["judge"]["cost"] == pytest.approx(cost)
    code, _, said = run(
        "http://127.0.0.1:9", tmp_path / "o", "--judge-prices", str(prices), "--judge-model", "x"
    )
    assert code == 2 and "asked as x, of which --judge-prices has no price" in said


@pytest.mark.parametrize(
    ("judge", "more", "told"),
    [
        ("http://127.0.0.1:9", ("--judge-attempts", "1"), "Nothing can be reached at http://127.0.0.1:9/v1"),
        ("nobody", (), "There is no teacher 'nobody'"),
        ("local:nowhere", ("--judge-timeout", "5"), "--judge-timeout is for a judge behind an address"),
        (
            "http://127.0.0.1:9",
            ("--judge-timeout", "0"),
            "--judge-timeout is 0, expected more than 0 seconds",
        ),
        ("http://127.0.0.1:9", ("--judge-runs", "0"), "--judge-runs is 0, expected at least 1"),
    ],
)
def test_what_is_wrong_with_a_judge_is_one_sentence(
    run: Run, tmp_path: Path, judge: str, more: tuple[str, ...], told: str
) -> None:
    code, _, said = run(judge, tmp_path / "out", *more)
    assert code == 2 and told in said and said.count("\n") == 1


def test_a_model_is_asked_and_then_judged_in_one_command(
    run: Run, tmp_path: Path, model_folder: Path
) -> None:
    pictures = tmp_path / "data" / "llava_bench_coco" / "val2014"
    pictures.mkdir()
    Image.new("RGB", (32, 32), "red").save(pictures / "COCO_val2014_1.jpg")
    given, out = ("--model", str(model_folder), "--max-new-tokens", "4"), tmp_path / "out"
    short = ("--judge-timeout", "0.2", "--judge-attempts", "1")
    with FakeServer(FakeSettings(faults={"silence": 1.0})) as fake:
        code, shown, said = run(fake.url, out, *given, *short)
    assert code == 2 and f"no word on {COUNT} of {COUNT} answers" in said
    with FakeServer() as fake:
        code, shown, _ = run(fake.url, out, *given)
        assert (code, fake.stats()["paid"]) == (0, COUNT)
    assert f"{COUNT} of {COUNT} questions" in shown and f"({COUNT} now)" in shown
    result = read_results(out)["benchmarks"]["llava_bench_coco"]
    assert result["asking"]["max_new_tokens"] == 4 and result["judge"]["judged"] == COUNT


def test_a_model_on_this_machine_can_judge(run: Run, tmp_path: Path, model_folder: Path) -> None:
    spec, out = f"local:{model_folder}", tmp_path / "out"
    code, shown, _ = run(spec, out)
    assert code == 0 and f"{COUNT} marked: the judge gave no two marks" in shown, "an untrained model rambles"
    result = read_results(out)["benchmarks"]["llava_bench_coco"]
    assert result["score"] is None and result["judge"]["asked_as"] == [spec]
    assert all(isinstance(row["judged"][0], str) for row in read_marked(out, "llava_bench_coco"))


def test_saved_reviews_of_llava_score_without_asking_and_several_files_are_several_runs(
    run: Run, tmp_path: Path
) -> None:
    files = []
    for number, last in enumerate((REVIEWS[5], "so so", REVIEWS[0])):
        files.append(tmp_path / f"review{number}.jsonl")
        rows = [
            {"id": 9, "question_id": n, "category": "x", "content": said, "tuple": [0, 0]}
            for n, said in enumerate([*REVIEWS[:5], last])
        ]
        lines(files[-1], [*reversed(rows), {"question_id": 77, "content": "1 1"}])
    code, shown, _ = run(f"saved:{files[0]}", tmp_path / "one")
    assert (
        code == 0 and f"overall {100 * 36 / 54:.2f}" in shown and "1 saved replies about no question" in shown
    )
    code, shown, _ = run("saved:" + ",".join(map(str, files)), tmp_path / "all")
    result = read_results(tmp_path / "all")["benchmarks"]["llava_bench_coco"]
    assert result["judge"]["scores"] == pytest.approx([100 * 36 / 54, 100 * 28 / 44, 100 * 34 / 52])
    assert result["judge"]["runs"] == 3 and "3 runs" in shown and " calls" not in shown
    code, shown, _ = run(f"saved:{tmp_path / 'all' / 'llava_bench_coco.jsonl'}", tmp_path / "again")
    again = read_results(tmp_path / "again")["benchmarks"]["llava_bench_coco"]
    assert again["judge"]["scores"] == result["judge"]["scores"] and again["figures"] == result["figures"]


def test_a_run_in_which_nothing_could_be_read_leaves_no_mean_and_no_deviation(
    run: Run, tmp_path: Path
) -> None:
    rows: list[dict[str, object]] = [
        {"question_id": n, "content": [said, "so so"]} for n, said in enumerate(REVIEWS)
    ]
    lines(tmp_path / "saved.jsonl", rows)
    code, shown, _ = run(f"saved:{tmp_path / 'saved.jsonl'}", tmp_path / "out")
    assert code == 0 and f"of its runs {100 * 36 / 54:.2f}, nan; deviation nan" in shown
    result = read_results(tmp_path / "out")["benchmarks"]["llava_bench_coco"]
    assert result["score"] is None and result["judge"]["deviation"] is None
    assert result["counts"]["marked in judging 2: the judge gave no two marks"] == 6


@pytest.mark.parametrize(
    ("rows", "more", "told"),
    [
        ([(n, "8 8") for n in range(4)], (), "no word on 2 of 6 answers (2 not judged: no saved reply); score the others"),
        ([(n + 90, "8 8") for n in range(6)], (), "6 of 6 answers (6 saved replies about no question, 6 not judged: no"),
        ([(0, "8 8"), (0, "8 7")], (), "has two replies about question 0 that differ"),
        ([(1, 8), (0, "8 8")], (), "row 1 has a judge's reply that is no text"),
        ([(0, "8 8"), (1, None)], (), "has no judge's reply under `judged` or `content`"),
        ([(0, "8 8")], ("--judge-runs", "2"), "reads replies and asks nobody"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_saved_replies_is_one_sentence(
    run: Run, tmp_path: Path, rows: list[tuple[int, object]], more: tuple[str, ...], told: str
) -> None:
    lines(tmp_path / "saved.jsonl", [{"question_id": n, "content": said} for n, said in rows])
    code, _, said = run(f"saved:{tmp_path / 'saved.jsonl'}", tmp_path / "out", *more)
    assert code == 2 and told in said and said.count("\n") == 1
