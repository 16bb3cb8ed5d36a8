"""A reply that declines or was given nothing is found; an answer that is sorry for somebody, or quotes a sign, is not."""

from __future__ import annotations

import pytest
from tests.synthesis.quality.planted import reasons, said


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I'm sorry, but I can't help with that request.", "declines"),
        ("I’m sorry, I cannot identify people.", "declines"),
        ("As an AI language model, I have no eyes.", "speaks as a machine"),
        ("I am unable to view the image you sent.", "cannot see the picture"),
        ("Please provide the captions so that a dialogue can be written.", "cannot see the picture"),
        ("No image was provided.", "cannot see the picture"),
        ("It seems like your message is empty.", "answers an empty message"),
        ("How can I assist you today?", "answers an empty message"),
        ("Two dogs play. Let me know if you have more questions!", "a service's phrase"),
        ("Sure! Here is a description: two dogs play.", "a service's phrase"),
    ],
)
def test_a_refusal_is_found(answer: str, reason: str) -> None:
    assert reason in reasons(said(answer), "refusal")


@pytest.mark.parametrize(
    "answer",
    [
        "The sign reads “I'm sorry, we are closed”.",
        "The child looks sorry about the broken vase.",
        "No, there is no cat in the picture.",
        "The inbox on the screen says that a message is waiting.",
        "The plate is empty and the cup is blank white.",
        "Sure-footed goats stand on the rock.",
        "The robot on the poster is an AI assistant from a film.",
        "The man cannot see the dog behind him.",
    ],
)
def test_an_answer_is_no_refusal(answer: str) -> None:
    assert reasons(said(answer), "refusal") == []


def test_the_endpoints_own_word_counts() -> None:
    assert reasons(said("Two dogs.", refusal="I can't"), "refusal") == ["the teacher declined"]


def test_a_reply_that_could_not_be_read_is_still_looked_at() -> None:
    from tests.synthesis.quality.planted import candidate

    assert "declines" in reasons(candidate(reply="I'm sorry, I can't.", unreadable="no blocks"), "refusal")
