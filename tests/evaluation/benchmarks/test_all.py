"""What every benchmark keeps to, whichever it is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import all_names, load


@pytest.mark.parametrize("name", all_names())
def test_what_is_missing_is_told_with_its_source_and_size(name: str, tmp_path: Path) -> None:
    benchmark = load(name)
    with pytest.raises(LlavakitError) as told:
        benchmark.read(tmp_path, benchmark.variants[0].name)
    sentence = str(told.value)
    named = [needed for needed in benchmark.files if needed.path.partition("*")[0] in sentence]
    assert named, sentence
    assert any(needed.source in sentence and needed.size in sentence for needed in named), sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("name", all_names())
def test_every_cell_of_a_table_can_say_by_which_protocol_it_came(name: str) -> None:
    benchmark = load(name)
    assert benchmark.name == name and benchmark.title
    assert all(variant.protocol and "\n" not in variant.protocol for variant in benchmark.variants)
    assert all(one.protocol and one.source and math.isfinite(one.value) for one in benchmark.published)


@pytest.mark.parametrize("name", all_names())
def test_nothing_answered_is_no_number_and_no_crash(name: str) -> None:
    benchmark = load(name)
    assert math.isnan(benchmark.summarise([])[benchmark.headline])
    if benchmark.others is not None:
        assert not any(math.isfinite(value) for value in benchmark.others([], {}).values())


@pytest.mark.parametrize("name", all_names())
def test_a_judge_is_whole_or_not_there(name: str) -> None:
    benchmark = load(name)
    assert (benchmark.ask_judge is None) == (benchmark.mark_judged is None)
    assert benchmark.ask_judge is not None or not benchmark.needs_judge


def test_the_documentation_names_all_benchmarks_and_every_way_of_asking() -> None:
    text = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text()
    for name in all_names():
        (row,) = [
            line for line in text.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1]
        ]
        ways = [variant.name for variant in load(name).variants]
        assert all(f"`{way}`" in row for way in ways) or "other scales" in row, (name, ways)
