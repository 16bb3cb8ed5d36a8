"""Of equal and nearly equal texts one is kept, always the same one; short answers may be equal across pictures."""

from __future__ import annotations

import random
from dataclasses import replace

from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.context import Annotated
from llavakit.synthesis.quality import Settings, check

ONLY = Settings.of(
    dict.fromkeys(
        ("form", "refusal", "leak", "length", "relevance", "hallucination", "counts", "places"), "off"
    )
)
STORY = (
    "A quiet street leads down to the harbour, where a row of wooden houses in many colours stands close together "
    "along the water while the evening sun lights the upper windows and a few gulls circle above the empty quay"
)


def told(name: str, answer: str, picture: str = "", question: str = "What is to be seen?") -> Candidate:
    shown = Annotated(name, picture or f"{name}.jpg", (), ())
    return Candidate(name, "conversation", shown, ((question, answer),), answer)


def dropped(candidates: list[Candidate], settings: Settings = ONLY) -> dict[str, str]:
    return {
        one.id: row[0].reason for one, row in zip(candidates, check(candidates, settings), strict=True) if row
    }


def test_the_same_text_in_other_spelling_is_kept_once() -> None:
    assert dropped([told("a", STORY), told("b", STORY.upper() + "!")]) == {"b": "the same text"}


def test_a_few_words_changed_make_a_near_duplicate_and_another_text_none() -> None:
    changed = STORY.replace("a few gulls", "two gulls")
    other = " ".join(reversed(STORY.split()))
    assert dropped([told("a", STORY), told("b", changed), told("c", other)]) == {"b": "nearly the same text"}


def test_short_texts_are_compared_within_a_picture_only() -> None:
    assert dropped([told("a", "Yes"), told("b", "Yes")]) == {}
    assert dropped([told("a", "Yes", "1.jpg"), told("b", "yes.", "1.jpg")]) == {"b": "the same text"}


def test_one_answer_four_thousand_times_is_capped() -> None:
    candidates = [
        told(f"{n:05d}", STORY, question=f"What is {n} in place {n * 7} of {n * 13}?") for n in range(400)
    ]
    settings = replace(ONLY, similarity=1.0)
    found = dropped(candidates, settings)
    assert len(found) == 397
    assert set(found.values()) == {"one answer too often"}


def test_which_one_is_kept_does_not_hang_on_the_order() -> None:
    candidates = [told(f"{n:02d}", STORY.replace("few", str(n % 5))) for n in range(30)]
    expected = dropped(candidates)
    random.Random(0).shuffle(candidates)
    assert dropped(candidates) == expected
    assert "00" not in expected


def test_what_another_gate_rejects_hides_no_good_one() -> None:
    cut = replace(told("a", STORY + "."), finish="length")
    found = check([cut, told("b", STORY + ".")], replace(ONLY, form="reject"))
    assert [[one.gate for one in row] for row in found] == [["form/1"], []]
