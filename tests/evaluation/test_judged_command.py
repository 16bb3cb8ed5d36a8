"""`llavakit eval` with a judge behind a real server: what is asked, kept, counted, shown and compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llavakit.cli.main import main
from llavakit.evaluation.results import read_marked, read_results
from llavakit.synthesis.endpoint.fake import FakeServer, FakeSettings

KINDS = ("conv", "detail", "complex")
COUNT = 6
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
        given = [
            "--answers",
            str(answers),
            "--data",
            str(tmp_path / "data"),
            "--out",
            str(out),
            "--judge",
            url,
        ]
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
