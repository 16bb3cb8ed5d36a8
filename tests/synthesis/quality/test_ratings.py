"""Ratings are asked for without telling more than the sample, read strictly, and turned into verdicts."""

from __future__ import annotations

import pytest
from tests.synthesis.quality.planted import CAPTIONS, said

from llavakit.synthesis.quality import Ratings, rating_request, rating_verdicts, read_rating
from llavakit.synthesis.teacher import SentPicture

WHOLE = '{"relevance": 5, "image_correspondence": 4, "visual_dependency": 3, "formatting": 2}'


def test_a_rater_without_eyes_is_told_the_annotations_and_one_with_eyes_is_not() -> None:
    one = said("Two dogs play.")
    blind, seeing = rating_request(one, "m"), rating_request(one, "m", SentPicture("image/png", b"x"))
    assert CAPTIONS[0] in blind.messages[1].content
    assert CAPTIONS[0] not in seeing.messages[1].content
    assert "Two dogs play." in seeing.messages[1].content
    assert len(seeing.messages[1].pictures) == 1
    assert blind.key != seeing.key


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        f"```json\n{WHOLE}\n```",
        "Relevance: 5\nimage_correspondence: 4\n- **visual_dependency**: 3\nformatting = 2",
    ],
)
def test_a_rating_is_read(text: str) -> None:
    assert read_rating(text) == Ratings(5, 4, 3, 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot judge this.",
        WHOLE.replace("5", "6"),
        WHOLE.replace("5", "4.5"),
        WHOLE.replace("5", "true"),
        WHOLE.replace('"formatting"', '"form"'),
        "relevance: 5, relevance: 2, image_correspondence: 4, visual_dependency: 3, formatting: 2",
    ],
)
def test_what_is_no_rating_is_not_guessed(text: str) -> None:
    assert read_rating(text) is None


def test_low_marks_reject_and_an_unread_rating_is_noted() -> None:
    low = rating_verdicts(Ratings(5, 4, 3, 2), {"formatting": 3, "visual_dependency": 3})
    assert [(one.action, one.reason) for one in low] == [("reject", "low formatting")]
    assert [one.action for one in rating_verdicts(None, {})] == ["note"]
