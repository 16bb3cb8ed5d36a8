"""A reply that was cut, cannot be read or has its roles swapped is found; a whole one in any usual form passes."""

from __future__ import annotations

import pytest
from tests.synthesis.quality.planted import candidate, reasons, said

from llavakit.synthesis.kinds import BRIEF_QUESTIONS, DETAIL_QUESTIONS
from llavakit.synthesis.quality import form


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (said("The dogs play.", finish="length"), "cut at the token limit"),
        (said("The dogs play.", finish="content_filter"), "withheld by a content filter"),
        (said("The dogs play.", finish="mystery"), "unknown finish reason"),
        (candidate(unreadable="no Answer:"), "unreadable"),
        (candidate(), "nothing was read"),
        (said("  "), "empty answer"),
        (said("The dogs play.", question=""), "empty question"),
        (said("The dogs\x00 play."), "control characters"),
        (said("The dog \ufffd plays."), "control characters"),
        (said("两只狗在草地上玩飞盘。"), "unexpected script"),
        (said("They play.\nQuestion: What is red?"), "markup in the answer"),
        (said("They play. <|im_end|>"), "markup in the answer"),
        (said("What is the dog doing on the lawn?", "The dog runs after a frisbee."), "roles swapped"),
        (said("Describe the image.", "The image shows two dogs on a lawn."), "roles swapped"),
        (said("The two dogs play on the lawn with a red frisbee and the"), "ends mid-sentence"),
        (
            said(
                "Two dogs play together on the lawn. One of them, the white one, leaps for the frisbee above it"
            ),
            "ends mid-sentence",
        ),
    ],
)
def test_a_fault_of_form_is_found(one: object, reason: str) -> None:
    assert reasons(one, "form") == [reason]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "one",
    [
        said("Yes", "Is there a dog?", kind="short_answer"),
        said("B", "Which is it?\nA. a cat\nB. a dog", kind="multiple_choice"),
        said("[0.1, 0.2, 0.3, 0.4]", "Where is the dog?", kind="region"),
        said("Two dogs on a lawn", "Give a short caption for this picture.", kind="brief"),
        said("They play.\n\n1. A brown dog\n2. A white dog\n3. A red frisbee and a bench beside a lawn"),
        said("It is a café named “Zoë’s”, with naïve art."),
        said("The dogs seem to ask: shall we play?", "What would the dogs say?"),
        *(said("A lawn, and on it two dogs.", one) for one in (*DETAIL_QUESTIONS, *BRIEF_QUESTIONS)),
        said("Is it a game? Yes. They play with a frisbee.", "Set the whole scene out in words."),
        said("Two dogs play on a lawn.", "Take me through the picture…"),
    ],
)
def test_a_whole_reply_passes(one: object) -> None:
    assert reasons(one, "form") == []  # type: ignore[arg-type]


def test_letters_that_the_settings_expect_are_no_fault() -> None:
    assert reasons(said("两只狗在草地上玩飞盘。"), "form", scripts=["LATIN", "CJK"]) == []


def test_the_quick_look_for_plain_text_passes_nothing_that_the_pattern_finds() -> None:
    found = [chr(code) for code in range(0x11000) if form._CONTROL.search(f"A {chr(code)} dog.")]
    assert len(found) > 2000  # the controls, the marks of direction, the surrogates
    assert not any(form._is_plain(f"A {letter} dog.") for letter in found)
    assert all(map(form._is_plain, ("A dog.", "A dog.\nA cat.", "~ !")))
