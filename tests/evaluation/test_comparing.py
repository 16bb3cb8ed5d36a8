"""Two runs are compared on the same questions only, and a difference is as sure as it is said to be."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llavakit.cli.main import main
from llavakit.errors import LlavakitError
from llavakit.evaluation import benchmarks
from llavakit.evaluation.benchmark import Question, Verdict
from llavakit.evaluation.comparing import Compared, Paired, compare, mcnemar, paired, paired_figures
from llavakit.evaluation.intervals import bootstrap
from llavakit.evaluation.results import read_results


def rows(credits: Sequence[float], unit: int = 0) -> list[dict[str, Any]]:
    return [
        {"llavakit_question": str(place), "credit": credit, "unit": f"u{place // unit}" if unit else ""}
        for place, credit in enumerate(credits)
    ]


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (8, 2, 2 * (1 + 10 + 45) / 1024)],
)
def test_mcnemar_is_the_exact_binomial(better: int, worse: int, p: float) -> None:
    assert mcnemar(better, worse) == pytest.approx(p)
    assert mcnemar(worse, better) == pytest.approx(p)
    assert 0 < mcnemar(3000, 1000) < 1e-100


def test_right_and_wrong_answers_are_tested_by_mcnemar_in_any_order() -> None:
    first = rows([1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    second = rows([1, 0, 1, 1, 1, 1, 1, 1, 1, 1])
    found = paired(first, second[::-1])
    assert (found.first, found.second, found.better, found.worse) == (20.0, 90.0, 8, 1)
    assert found.method.startswith("McNemar, exact")
    assert found.p == pytest.approx(2 * (1 + 9) / 512)
    assert found.low < found.difference == 70 < found.high


def test_pairs_and_parts_of_a_credit_are_tested_by_units() -> None:
    first, second = rows([0.3, 0.6] * 50, unit=2), rows([0.6, 0.6] * 50, unit=2)
    found = paired(first, second)
    assert found.method == "paired bootstrap over units"
    assert (found.units, found.better) == (50, 50)
    assert found.difference == pytest.approx(15) and found.p < 0.001
    same = paired(first, first)
    assert (same.difference, same.p, same.low, same.high) == (0, 1.0, 0, 0)


def test_numbers_are_shown_whole_in_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = Compared("mme", "perception", (500.0, 1475.0), Paired(500, 1475, 725, 1300, 5e-5, 180, 20, 1187, "bootstrap"), ())  # fmt: skip
    monkeypatch.setattr("llavakit.evaluation.comparing.compare", lambda first, second: [found])
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path), str(tmp_path)])
    shown = capsys.readouterr().out
    for part in ("500.00", "1475.00", "+975.00", "+725.00 to +1300.00", "5.0e-05", "180 / 20"):
        assert part in shown
    assert "mme: perception, bootstrap" in shown


def test_few_units_cannot_speak_surely_even_where_all_say_the_same() -> None:
    first, second = (rows([credit] * 3) for credit in (0.1, 0.3))
    found = paired(first, second)
    assert (found.better, found.worse, found.p) == (3, 0, 0.25), "as three coins that fall alike"


def verdicts(right: Callable[[int], bool], split: str = "random") -> list[Verdict]:
    """Answers to 200 questions of POPE's, every second truly yes."""
    made = []
    for number in range(200):
        truth = ("yes", "no")[number % 2]
        said = truth if right(number) else ("no", "yes")[number % 2]
        question = Question(str(number), (), "?", truth, category=split)
        made.append(Verdict(question, said, float(said == truth)))
    return made


def test_a_headline_that_is_no_mean_is_tested_itself() -> None:
    pope = benchmarks.load("pope")
    first, second = verdicts(lambda number: number % 5 > 0), verdicts(lambda number: number % 10 > 0)
    found = paired_figures(pope, first, second[::-1])
    assert found.first == pytest.approx(pope.summarise(first)["F1 mean"]) == pytest.approx(80)
    assert found.second == pytest.approx(pope.summarise(second)["F1 mean"])
    assert (found.better, found.worse, found.units) == (20, 0, 200)
    assert 0 < found.low < found.difference < found.high and found.p <= 0.002
    same = paired_figures(pope, first, first[::-1])
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1.0)
    turned = verdicts(lambda number: (number + 2) % 5 > 0)
    assert paired_figures(pope, first, turned).p > 0.2, "as many right, others: no difference"


def test_drawing_both_runs_together_makes_a_small_difference_sure() -> None:
    pope = benchmarks.load("pope")
    first = verdicts(lambda number: number % 3 > 0)
    second = verdicts(lambda number: number % 3 > 0 or number % 8 == 1)
    found = paired_figures(pope, first, second)
    alone = [bootstrap(pope, some) for some in (first, second)]
    assert alone[0].high > alone[1].low, "their own intervals overlap"
    assert found.low > 0 and found.p < 0.05


def test_other_questions_are_refused() -> None:
    with pytest.raises(LlavakitError, match="not to the same questions"):
        paired(rows([1, 0]), rows([1]))
    some = verdicts(bool)
    with pytest.raises(LlavakitError, match="not to the same questions"):
        paired_figures(benchmarks.load("pope"), some, some[1:])


@pytest.fixture
def run(seed_bench: Path, tmp_path: Path) -> Callable[[str, Callable[[int], str]], Path]:
    """Makes a run's folder out of an answer to each question by its number."""

    def made(name: str, answer: Callable[[int], str]) -> Path:
        saved = tmp_path / f"{name}.json"
        saved.write_text(json.dumps({str(number): answer(number) for number in range(12)}))
        arguments = ["eval", "--answers", str(saved), "--benchmarks", "seed_bench_image"]
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--data", str(seed_bench), "--out", str(tmp_path / name)])
        assert end.value.code == 0
        return tmp_path / name

    return made


def test_two_runs_are_shown_side_by_side(
    run: Callable[[str, Callable[[int], str]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, right = run("wrong", lambda number: "no"), run("right", lambda number: "ABCD"[number % 4])
    with pytest.raises(SystemExit) as end:
        main(["compare", str(wrong), str(right)])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "+100.00" in shown and "12 / 0" in shown and "0.0005" in shown


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda one: one["hashes"].update(questions="x"), "different questions"),
        (lambda one: one["hashes"]["data"].update({"SEED-Bench.json": "x"}), "differ in SEED-Bench.json"),
        (lambda one: one.update(judge={"answered_as": ["x"], "runs": 1}), "different judges"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    run: Callable[[str, Callable[[int], str]], Path],
    change: Callable[[dict[str, Any]], None],
    told: str,
) -> None:
    first, second = run("first", lambda number: "A"), run("second", lambda number: "B")
    document = read_results(second)
    change(document["benchmarks"]["seed_bench_image"])
    (second / "results.json").write_text(json.dumps(document))
    with pytest.raises(LlavakitError, match=told):
        compare(first, second)


def test_another_way_of_asking_is_told(run: Callable[[str, Callable[[int], str]], Path]) -> None:
    first, second = run("first", lambda number: "A"), run("second", lambda number: "B")
    document = read_results(second)
    document["benchmarks"]["seed_bench_image"].update(protocol="another", asking={"condition": "blind"})
    (second / "results.json").write_text(json.dumps(document))
    told = " ".join(compare(first, second)[0].told)
    assert "protocols differ" in told and "condition: not told; blind" in told


def test_runs_without_anything_in_common_and_folders_that_are_no_runs_are_refused(
    run: Callable[[str, Callable[[int], str]], Path], tmp_path: Path
) -> None:
    first = run("first", lambda number: "A")
    document = read_results(first)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.json").write_text(json.dumps({**document, "benchmarks": {}}))
    with pytest.raises(LlavakitError, match="no benchmark in common"):
        compare(first, tmp_path / "other")
    with pytest.raises(LlavakitError, match="expected a folder of"):
        compare(first, tmp_path / "nowhere")
