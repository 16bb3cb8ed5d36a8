"""Too short, too long and loops are found by the limits of the kind."""

from __future__ import annotations

import pytest
from tests.synthesis.quality.planted import candidate, reasons, said

LONG = " ".join(f"Thing number {number} stands in place {number * 7}." for number in range(30))


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (said("Two dogs.", kind="detail"), "too short"),
        (said("Because.", kind="reasoning"), "too short"),
        (said(LONG, kind="short_answer"), "too long"),
        (said("The dog is very very very very happy."), "repeats itself"),
        (said("The dogs play on the lawn near a bench. " * 5), "repeats itself"),
        (said("aaaaaaaaaaaaaaaaaaaaaa"), "repeats itself"),
        (candidate(("Who is here?", "Dogs."), ("Who is here?", "Two dogs.")), "asks the same twice"),
    ],
)
def test_a_fault_of_length_is_found(one: object, reason: str) -> None:
    assert reason in reasons(one, "length")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "one",
    [
        said("2", kind="short_answer"),
        said("A", kind="multiple_choice"),
        said(LONG, kind="detail"),
        said("No, no, there is no cat: the left one is a dog, the right one is a dog."),
    ],
)
def test_what_the_kind_allows_passes(one: object) -> None:
    assert reasons(one, "length") == []  # type: ignore[arg-type]


def test_limits_can_be_set_for_one_kind() -> None:
    assert reasons(said("Two dogs.", kind="detail"), "length", words={"detail": [1, 9]}) == []


@pytest.mark.parametrize("period", range(1, 9))
def test_a_phrase_of_any_length_four_times_in_a_row_is_found_and_three_times_is_not(period: int) -> None:
    phrase = " ".join(f"word{place}" for place in range(period))
    assert reasons(said(f"Look: {phrase} {phrase} {phrase} {phrase}."), "length") == ["repeats itself"]
    assert reasons(said(f"Look: {phrase} {phrase} {phrase}."), "length") == []
