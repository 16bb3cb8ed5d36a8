"""VQA's soft accuracy, with the habits and faults of both tools that compute it."""

from __future__ import annotations

import pytest

from llavakit.evaluation.scoring.vqa_accuracy import (
    lmms_vqav2,
    m4c,
    m4c_accuracy,
    official,
    official_accuracy,
    soft_accuracy,
)


@pytest.mark.parametrize(("agree", "credit"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_credit_by_how_many_of_ten_agree(agree: int, credit: float) -> None:
    people = ["red"] * agree + [f"other {n}" for n in range(10 - agree)]
    assert soft_accuracy("red", people) == pytest.approx(credit)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("The Red Car", "red car"), ("two", "2"), ("none", "0"), ("dont", "don't"), ("3.", "3"), ("19.sep", "19sep"),
        ("3.5", "3.5"), ("black/white", "black white"), ("black / white", "black white"),
        ("1,000", "1000"), ("t-shirt", "t shirt"), ("what? ", "what"), ("a\nb", "b"), ("", ""), ("." * 40, "." * 8),
    ],
)  # fmt: skip
def test_the_official_tool_writes_answers_so(text: str, written: str) -> None:
    assert official(text) == written


@pytest.mark.parametrize(
    ("text", "written"),
    [("Dog's", "dog 's"), ("yes, it is", "yes it is"), ("1,000", "1000"), ("A cat?", "cat")],
)
def test_the_m4c_tool_writes_answers_so(text: str, written: str) -> None:
    assert m4c(text) == written


def test_ten_equal_answers_are_compared_as_they_stand_by_the_official_tool_alone() -> None:
    assert official_accuracy("Yes", ["yes"] * 10) == 0
    assert m4c_accuracy("Yes", ["yes"] * 10) == 1
    assert official_accuracy("Yes", ["yes"] * 9 + ["no"]) == 1


def test_the_tools_part_ways_at_a_possessive() -> None:
    people = ["dog's"] * 9 + ["cat"]
    assert official_accuracy("dog 's", people) == 0 and m4c_accuracy("dog 's", people) == 1


def test_nothing_and_very_long_answers_are_marked() -> None:
    assert official_accuracy("", ["yes"] * 10) == 0
    assert m4c_accuracy("yes " * 25_000, ["yes"] * 10) == 0
    assert official_accuracy("\x00\x07", ["yes"] * 5 + ["no"] * 5) == 0


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("someonell", "someone'll"), ("notve", "not've"), ("hadn'tve", "hadn't've"), ("hadnt've", "hadn't've"),
        ("y'alld've", "y'all'd've"), ("'ows'at", "'ow's'at"), ("somebody'd", "somebodyd"),
        ("im", "im"), ("ive", "ive"), ("shes", "shes"), ("thatd", "thatd"),  # the tools leave these as they are
    ],
)  # fmt: skip
def test_contractions_are_those_of_the_tools_and_no_others(text: str, written: str) -> None:
    assert official(text) == m4c(text) == written


def test_lmms_eval_takes_several_commas_between_digits_for_one() -> None:
    assert (lmms_vqav2("1,,234"), official("1,,234")) == ("1234", "1 234")
    for text in ("1,234", "a,,b", "red, blue", "It's 3.", "n/a"):
        assert lmms_vqav2(text) == official(text)
