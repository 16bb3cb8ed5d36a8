"""Free answers by MMMU's rule: what is picked out of an answer, and which candidate makes it right."""

from __future__ import annotations

import math
import time

import pytest

from llavakit.evaluation.scoring.open_answers import candidates, fits, normalised


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("Blue.", {"blue"}),
        ("The colour is blue.", {"blue"}),
        # the shortest end behind a clue, whichever clue comes last in the sentence
        ("So the final answer is therefore 12 apples", {"12 apples", 12.0}),
        # a full stop ends nothing, so the end behind the last clue runs on
        ("It is 5. And more", {"5. and more", 5.0}),
        # one candidate a line; an equals sign counts in the last alone
        ("x = 3\ny = 4", {4.0}),
        ("x = 3", {3.0}),
        # where the end behind one clue is empty, the next clue's is taken
        ("the result is \nso 7", {"is", 7.0}),
        ("it is :", {"it is :"}),
        # each form of number: with commas, with an exponent, and plain
        # and the parts of a number with commas or an exponent
        ("1,234 or 1.5e3 or -.25", {"1,234 or 1.5e3 or -.25", 1234.0, 234.0, 1500.0, 1.0, 3.0, -0.25}),
        ("12,34", {1234.0, 34.0}),
        ("3.14159", {3.14}),
        ("b", {" b", "b "}),
        ("", {""}),
        ("\x00\x1b[31mred", {"\x00\x1b[31mred"}),
    ],
)
def test_candidates_are_picked_out_by_clues_and_numbers(answer: str, found: set[str | float]) -> None:
    assert set(candidates(answer)) == found


@pytest.mark.parametrize(
    ("answer", "truths", "right"),
    [
        ("The answer is 5.2", ["5.2"], True),
        ("about 5.204 volts", ["5.2"], True),
        ("about 5.21 volts", ["5.2"], False),
        ("1,000", ["1000"], True),
        # a text is right where it is held, a number only where it stands as one
        ("either red or blue", ["blue"], True),
        ("the 15th", ["15"], False),
        # a single letter has to stand beside a blank
        ("b", ["b"], True),
        ("pick b", ["b"], True),
        ("cab", ["b"], False),
        ("4", ["three", "4.0"], True),
        ("", ["x"], False),
        ("x", [], False),
    ],
)
def test_an_answer_is_right_when_a_candidate_fits_a_truth(
    answer: str, truths: list[str], right: bool
) -> None:
    assert fits(candidates(answer), truths) is right


def test_what_python_takes_for_a_number_is_one() -> None:
    assert normalised(" 1_000 ") == (1000.0,) and normalised("Infinity") == (math.inf,)
    assert not fits(candidates("nan"), ["nan"])


@pytest.mark.parametrize("part", ["1", "1,", "1,111", "1e", "1.1", "is ", "\n", "=", "-"])
def test_a_very_long_answer_takes_no_more_than_its_length(part: str) -> None:
    start = time.perf_counter()
    candidates(part * (100_000 // len(part)))
    assert time.perf_counter() - start < 2
