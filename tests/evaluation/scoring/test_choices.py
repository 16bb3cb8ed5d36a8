"""The rules by which tools read a letter, each at the place where it differs from the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavakit.evaluation.scoring import choices
from llavakit.evaluation.scoring.choices import mmbench_choice, mmmu_choice

PETS = {"A": "a cat", "B": "a dog", "C": "a bird", "D": "a fish"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B. a dog", "B"),
        ("I would say it is B.", "B"),
        ("A is what I see in the picture, surely", None),  # an early article, and no text
        ("A man walks a dog", "B"),  # "A" stands early; one text is held
        ("A dog", "A"),  # among four words an article counts
        ("A or B", None),
        ("The correct answer is (C), not any of the rest here", "C"),
        ("a bird", "C"),
        ("A BIRD", "A"),
        ("a dog and a bird", None),
        ("Cannot determine the answer", "Z"),
        ("Z", "Z"),
        ("Failed to obtain answer via API", None),
        ("", None),
        ("a dog " + "x" * 100_000, None),
    ],
)
def test_mmbench(answer: str, letter: str | None) -> None:
    assert mmbench_choice(answer, PETS) == letter


def test_mmbench_leaves_the_options_it_was_given_as_they_were() -> None:
    options = {"A": "Cat", "B": "Dog"}
    assert mmbench_choice("a dog", options) == "B"
    assert options == {"A": "Cat", "B": "Dog"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(A) no, (C)", "C"),
        ("A and then D", "D"),
        ("(A) or B", "A"),  # brackets win
        ("NASA said so", None),
        ("a dog", None),  # five words or fewer: no texts
        ("what we see here is a dog", "B"),
        ("not a dog as some say, but a cat", "A"),  # the last one
        ("", None),
    ],
)
def test_mmmu(answer: str, letter: str | None) -> None:
    assert mmmu_choice(answer, PETS) == letter


@pytest.mark.parametrize(
    ("rule", "answer", "letter"),
    [
        (choices.bare_letter, "B", "B"),
        (choices.bare_letter, "B.", None),
        (choices.bare_letter, "AB", None),
        (choices.lmms_first_character, "Because", "B"),
        (choices.lmms_scienceqa, "b", "B"),
        (choices.lmms_scienceqa, "B.", "B"),
        (choices.lmms_scienceqa, "B dog", None),
        (choices.lmms_prefix, "B. dog", "b"),
        (choices.lmms_prefix, "(B)", "b"),
        (choices.lmms_prefix, "b", "b"),
        (choices.lmms_extracted, "The answer is B", "B"),
        (choices.lmms_extracted, "NASA", "A"),
        (choices.lmms_extracted, "", None),
    ],
)
def test_the_others(rule: object, answer: str, letter: str | None) -> None:
    assert callable(rule) and rule(answer) == letter


@given(st.text(max_size=60))
def test_no_text_is_too_odd(answer: str) -> None:
    for rule in (choices.llava_letter, choices.bare_letter, choices.lmms_extracted, choices.lmms_scienceqa):
        rule(answer)
    assert mmbench_choice(answer, PETS) in {None, *"ABCDZ"}
    assert mmmu_choice(answer, PETS) in {None, *"ABCD"}
