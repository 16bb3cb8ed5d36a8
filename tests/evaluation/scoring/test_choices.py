"""The rules by which tools read a letter, each at the place where it differs from the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavakit.evaluation.scoring import choices, choices_lmms
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
        (choices.leading_letter, " b. a dog", "B"),
        (choices.leading_letter, "Because", "B"),
        (choices.leading_letter, "(C) a bird", "C"),
        (choices.leading_letter, "Option d", "D"),
        (choices.leading_letter, "The answer\nis a", "A"),
        (choices.leading_letter, "The correct answer is A", None),
        (choices.leading_letter, "E", None),
        (choices.leading_letter, "(", None),
        (choices.leading_letter, "", None),
        (choices_lmms.first_character, "Because", "B"),
        (choices_lmms.whole_or_prefix, "b", "B"),
        (choices_lmms.whole_or_prefix, "B.", "B"),
        (choices_lmms.whole_or_prefix, "B dog", None),
        (choices_lmms.prefix_or_all, "B. dog", "b"),
        (choices_lmms.prefix_or_all, "(B)", "b"),
        (choices_lmms.prefix_or_all, "b", "b"),
        (choices_lmms.extracted, "The answer is B", "B"),
        (choices_lmms.extracted, "NASA", "A"),
        (choices_lmms.extracted, "", None),
    ],
)
def test_letters_alone(rule: object, answer: str, letter: str | None) -> None:
    assert callable(rule) and rule(answer) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A", "A"),
        ("(B).", "B"),
        ("A man walks his dog", "A"),  # no single word, no text; the surest form is the start
        ("A man walks a dog", "B"),
        ("It says B. and C:", "B"),
        ("", None),
    ],
)
def test_lmms_evals_mmbench(answer: str, letter: str | None) -> None:
    assert choices_lmms.static(answer, PETS) == letter


def test_lmms_evals_mmmu_takes_the_end_of_a_word_for_a_letter() -> None:
    assert (choices_lmms.mmmu("NASA said so", PETS), mmmu_choice("NASA said so", PETS)) == ("A", None)


@given(st.text(max_size=60))
def test_no_text_is_too_odd(answer: str) -> None:
    for rule in (
        choices.llava_letter,
        choices.bare_letter,
        choices_lmms.extracted,
        choices_lmms.whole_or_prefix,
    ):
        rule(answer)
    assert mmbench_choice(answer, PETS) in {None, *"ABCDZ"}
    assert mmmu_choice(answer, PETS) in {None, *"ABCD"}
