"""Answers of a known form by MathVista's rule: what is read without a model, and what a short answer becomes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavakit.evaluation.scoring.anls import distance
from llavakit.evaluation.scoring.nearest import edit_distance, nearest
from llavakit.evaluation.scoring.typed_answers import Form, Normalised, extracted, normalised

CHOICE = Form("text", ("half past", "quarter", "o'clock"))
WHOLE, DECIMAL, LIST = Form("integer"), Form("float", digits=1), Form("list")


@pytest.mark.parametrize(
    ("reply", "form", "short"),
    [
        ("quarter", CHOICE, "quarter"), (" B\n", CHOICE, "B"), ("(B)", CHOICE, "(B)"), ("(B) quarter", CHOICE, "(B) quarter"),
        # a letter with anything else is left to a model
        ("B.", CHOICE, None), ("b", CHOICE, None), ("D", CHOICE, None), ("(A) quarter", CHOICE, None), ("It is (B)", CHOICE, None),
        ("14", WHOLE, "14"), (" 1_4 ", WHOLE, "14"), ("14.0", WHOLE, None), ("fourteen", WHOLE, None), ("9" * 100_000, WHOLE, None),
        ("1.25", DECIMAL, "1.25"), ("14", DECIMAL, "14.0"), ("1.25 cm", DECIMAL, None), ("[1, 2]", LIST, None),
        ('So. The answer is "14".', WHOLE, "14"), ('The answer is "a". Or "b". x', CHOICE, 'a". Or "b'),
        ('The answer is "a\nb".', CHOICE, None), ("The answer is 14.", WHOLE, None),
        ("", CHOICE, ""), (" \n", WHOLE, ""), ("\x00\x1b[31m14", WHOLE, None),
    ],
)  # fmt: skip
def test_a_short_answer_is_found_without_a_model_or_not_at_all(
    reply: str, form: Form, short: str | None
) -> None:
    assert extracted(reply, form) == short


@pytest.mark.parametrize(
    ("short", "form", "text", "by_distance"),
    [
        ("B", CHOICE, "quarter", False), ("(b) whatever", CHOICE, "quarter", False), ("quarter", CHOICE, "quarter", False),
        ("b", CHOICE, "quarter", True), ("quarters", CHOICE, "quarter", True), ("f(c) is half", CHOICE, "o'clock", False),
        ("(z) half past", CHOICE, "quarter", True), ("", CHOICE, "quarter", True),
        ("12.9", WHOLE, "12", False), ("-0.5", WHOLE, "0", False), ("1e3", WHOLE, "1000", False), ("1,000", WHOLE, None, False),
        ("12 cm", WHOLE, None, False), ("inf", WHOLE, None, False), ("nan", WHOLE, None, False), ("", WHOLE, None, False),
        ("1.25", DECIMAL, "1.2", False), ("1.35", DECIMAL, "1.4", False), ("3", DECIMAL, "3.0", False), ("x", DECIMAL, None, False),
        ("[1, 2]", LIST, "[1, 2]", False), ("[1,2]", LIST, "[1,2]", False),
    ],
)  # fmt: skip
def test_a_short_answer_is_brought_into_its_form(
    short: str, form: Form, text: str | None, by_distance: bool
) -> None:
    assert normalised(short, form) == Normalised(text, by_distance)


def test_the_first_of_equally_near_choices_is_taken() -> None:
    assert nearest("ad", ["ab", "ac"]) == "ab" and nearest("", ["long", "no", "it"]) == "no"


@given(st.text("abé", max_size=40), st.text("abé", max_size=40))
def test_the_fast_distance_is_the_plain_one(one: str, other: str) -> None:
    assert edit_distance(one, other) == distance(one, other)


@pytest.mark.parametrize("reply", ["x" * 100_000, 'The answer is "' * 7_000, "(" * 100_000])
def test_a_very_long_reply_is_read_in_a_moment(reply: str) -> None:
    start = time.perf_counter()
    assert extracted(reply, CHOICE) is None
    normalised(reply, CHOICE)
    assert time.perf_counter() - start < 3
