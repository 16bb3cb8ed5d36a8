"""Words that give the source away are found; a described map, a printed caption and a region's numbers are not."""

from __future__ import annotations

import pytest
from tests.synthesis.quality.planted import reasons, said


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("The caption says that two dogs play.", "names its source"),
        ("According to the description, two dogs play.", "names its source"),
        ("Based on the provided information, two dogs play.", "names its source"),
        ("Several captions mention a frisbee.", "names its source"),
        ("One sentence says that a frisbee flies.", "names its source"),
        ("The dog's bounding box lies on the left.", "names boxes"),
        ("The dog is at the given coordinates.", "names boxes"),
        ("The dog is at [0.1, 0.5, 0.3, 0.8].", "numbers of a box"),
        ("The dog stands at 0.101, 0.522, 0.303, 0.841 on the lawn.", "numbers of a box"),
        ("The breed is not mentioned in the captions.", "says what it was not told"),
        ("It is not specified in the text who owns the dogs.", "says what it was not told"),
        ("Translate the following text into Chinese: two dogs play.", "answers a translation prompt"),
        ("请将以下内容翻译成中文", "answers a translation prompt"),
        ("As instructed, here are two dogs.", "speaks of its instructions"),
    ],
)
def test_a_leak_is_found(answer: str, reason: str) -> None:
    assert reason in reasons(said(answer), "leak")


@pytest.mark.parametrize(
    "answer",
    [
        "The photo caption says ‘Champions 1998’.",
        "GPS coordinates on the screen show where the boat is.",
        "She coordinates her shoes with her bag.",
        "The box beside the door is bound with string.",
        "The coffee costs $0.99, the tea $0.79.",
        "He wears number 23, and 4, 5 and 6 stand behind him.",
        "Based on the picture, it is a sunny day.",
        "Information signs stand along the road.",
    ],
)
def test_an_answer_is_no_leak(answer: str) -> None:
    assert reasons(said(answer), "leak") == []


def test_numbers_are_what_a_region_is_asked_for() -> None:
    assert reasons(said("[0.1, 0.5, 0.3, 0.8]", "Where is the left dog?", kind="region"), "leak") == []


def test_a_run_of_the_instructions_is_an_echo_and_the_line_of_a_short_form_is_not() -> None:
    line = "Answer the question using a single word or phrase."
    told = f"Ask only what the captions settle beyond doubt, and answer as somebody who sees it. {line}"
    echo = said(
        "Ask only what the captions settle beyond doubt, and answer as somebody who sees.", instructions=told
    )
    assert "repeats its instructions" in reasons(echo, "leak", echo_words=8)
    short = said("Two", f"How many dogs?\n{line}", kind="short_answer", instructions=told)
    assert reasons(short, "leak", echo_words=8) == []
