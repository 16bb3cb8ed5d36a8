"""The report shows every score with its interval and protocol beside published ones, and odd answers as they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llavakit.cli.main import main
from llavakit.evaluation.benchmark import Question, Verdict
from llavakit.evaluation.page import CARDS, _spread, printable


def test_the_page_holds_scores_categories_and_odd_answers(seed_bench: Path, tmp_path: Path) -> None:
    texts = {str(number): "ABCD"[number % 4] for number in range(12)}
    texts |= {"1": "<script>alert(1)</script>", "2": "C\x00\ud800", "3": ""}
    saved = tmp_path / "answers.json"
    saved.write_text(json.dumps(texts))
    (seed_bench / "SEED-Bench-image" / "p5").unlink()
    out = tmp_path / "out"
    arguments = ["eval", "--answers", str(saved), "--benchmarks", "seed_bench_image"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--data", str(seed_bench), "--out", str(out)])
    assert end.value.code == 0
    text = (out / "report.html").read_text("utf-8")
    assert "75.00" in text and "letter directly, middle frame, LLaVA-1.5" in text
    assert "LLaVA-1.6-Vicuna-7B" in text and "InstructBLIP-7B" in text and "this run" in text
    assert text.count('class="track"') == 2, "a bar a category"
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert r"C\x00\ud800" in text and "(empty)" in text
    assert len(re.findall(r'data-verdict="wrong"', text)) == 3
    assert "nan" not in re.sub(r"data:image[^\"]*", "", text)


def test_each_benchmark_stands_beside_the_file_that_was_scored(seed_bench: Path, tmp_path: Path) -> None:
    arguments = ["eval", "--benchmarks", "seed_bench_image,seed_bench", "--data", str(seed_bench)]
    for name, numbers in (("image", range(12)), ("all", range(100))):
        saved = tmp_path / f"{name}.json"
        saved.write_text(json.dumps({str(number): "A" for number in numbers}))
        arguments += ["--answers", str(saved)]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--partial", "--out", str(tmp_path / "out")])
    assert end.value.code == 0
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    ours = re.findall(r"<b>([^<]*\.json)</b>", text)
    assert [Path(one).name for one in ours] == ["image.json", "all.json"]


def test_right_and_wrong_are_both_shown_when_there_are_both() -> None:
    def verdicts(right: int, total: int) -> list[Verdict]:
        return [
            Verdict(Question(str(place), (), "?", ""), "", float(place < right)) for place in range(total)
        ]

    for right, total in ((500, 1000), (999, 1000), (0, 1000), (3, 10)):
        shown = _spread(verdicts(right, total))
        assert len(shown) == min(CARDS, total)
        assert sum(one.credit == 1 for one in shown) >= min(right, CARDS // 2)
        assert sum(one.credit == 0 for one in shown) >= min(total - right, CARDS // 2)
        assert [int(one.question.id) for one in shown] == sorted({int(one.question.id) for one in shown})


def test_a_long_answer_is_cut_and_says_so() -> None:
    assert printable("x" * 100_000).endswith("… (100,000 characters)")
