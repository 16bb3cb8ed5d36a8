"""What holds for questions: which verb with which noun, which type, which beginning."""

from __future__ import annotations

import pytest

from llavakit.synthesis.statistics.language import Asking, question_start, question_type, spatial_words, words

ASKING = Asking()


@pytest.mark.parametrize(
    ("question", "pair"),
    [
        ("Describe the following image.", ("describe", "image")),
        ("Can you describe the main features of this image for me?", ("describe", "feature")),
        ("Write a detailed description of the given image.", ("write", "description")),
        ("Is the little boy wearing any safety gear?", ("wear", "gear")),
        ("What purpose does the umbrella serve on the beach?", ("serve", "purpose")),
        ("What is the man doing in the image?", ("do", "man")),
        ("What is the color of the two suitcases in the image?", ("be", "color")),
        ("How many pizzas are there in the image?", ("be", "pizza")),
        ("Why might the man be holding the clothes on hangers?", ("hold", "clothes")),
        ("Why?", None),
        ("", None),
    ],
)
def test_a_question_has_a_verb_and_the_noun_it_is_about(question: str, pair: tuple[str, str] | None) -> None:
    assert ASKING.verb_and_noun(question) == pair


@pytest.mark.parametrize(
    ("form", "base"),
    [
        ("wearing", "wear"),
        ("riding", "ride"),
        ("sitting", "sit"),
        ("tries", "try"),
        ("held", "hold"),
        ("using", "use"),
    ],
)
def test_verbs_are_counted_in_their_base_form(form: str, base: str) -> None:
    assert ASKING.base(form) == base


def test_nouns_are_counted_in_the_singular() -> None:
    assert ASKING.nouns(words("Two dogs and three people sit near the glasses.")) == {
        "dog",
        "person",
        "glasses",
    }


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("How many dogs are there?", "how many"),
        ("What is it?", "what"),
        ("Is it raining?", "yes or no"),
        ("Can you describe it?", "command"),
        ("Please tell me about it.", "command"),
        ("In which room is it?", "which"),
        ("A red cat.", "other"),
        ("", "other"),
    ],
)
def test_questions_have_types(question: str, kind: str) -> None:
    assert question_type(words(question)) == kind


def test_beginnings_and_words_of_place_are_whole_words() -> None:
    assert question_start(words("What's THE matter?")) == "what's the"
    assert spatial_words("The cat sits next to a leftover box, in front of the sofa.") == {
        "next to",
        "in front of",
    }
