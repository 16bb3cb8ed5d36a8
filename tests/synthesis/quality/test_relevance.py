"""An answer without what its question asks for is found; one that answers in other words is not."""

from __future__ import annotations

import pytest
from tests.synthesis.quality.planted import reasons, said

from llavakit.synthesis.context import Annotated, Box

CHOICES = "What is on the lawn?\nA. two dogs\nB. a cat"


@pytest.mark.parametrize(
    ("question", "answer", "kind", "reason"),
    [
        ("How many dogs are there?", "The dogs play on the lawn.", "conversation", "tells no number"),
        ("What color is the frisbee?", "It is round.", "conversation", "tells no colour"),
        ("Is there a bench?", "The lawn", "short_answer", "tells neither yes nor no"),
        (CHOICES, "D", "multiple_choice", "takes none of the choices"),
        ("What are the dogs doing?", "What are the dogs doing?", "conversation", "repeats the question"),
        (
            "Why do the dogs run?",
            "Paris has been the capital of France since the tenth century.",
            "reasoning",
            "speaks of something else",
        ),
    ],
)
def test_an_answer_to_nothing_is_found(question: str, answer: str, kind: str, reason: str) -> None:
    assert reasons(said(answer, question, kind=kind), "relevance") == [reason]


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("How many dogs are there?", "Two", "short_answer"),
        ("How many cats are there?", "There are none.", "conversation"),
        ("How many dogs are there?", "There's a dog and its puppy.", "conversation"),
        ("What colour is the frisbee?", "Reddish", "short_answer"),
        ("What color is it?", "It is a blue-green plate.", "conversation"),
        ("Is there a bench?", "Yes", "short_answer"),
        ("Is it a dog or a cat?", "Dog", "short_answer"),
        ("Is the dog brown?", "It is brown with white paws.", "conversation"),
        (CHOICES, "A", "multiple_choice"),
        (CHOICES, "Two dogs.", "multiple_choice"),
        ("Where is the dog?", "[0.1, 0.5, 0.3, 0.8]", "region"),
        ("What are they doing?", "Running.", "conversation"),
        ("Why is it fun?", "Because chasing a frisbee together exercises both animals well.", "reasoning"),
    ],
)
def test_an_answer_passes(question: str, answer: str, kind: str) -> None:
    assert reasons(said(answer, question, kind=kind), "relevance") == []


def test_a_thing_of_the_picture_is_spoken_of_though_its_word_is_common() -> None:
    captions = ("A mechanic repairs an engine inside a dusty garage.",)
    garage = Annotated(2, "2.jpg", captions, (Box("person", (0.1, 0.1, 0.3, 0.9)),))
    one = said("The person is on the left of the picture.", "Where is the person?", picture=garage)
    assert reasons(one, "relevance") == []
