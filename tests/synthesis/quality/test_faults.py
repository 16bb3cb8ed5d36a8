"""The faults that the trial of filtering plants are what they are called, and its test of a difference is McNemar's."""

from __future__ import annotations

import random
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
from benchmarks.faults import BOILERPLATE, DUPLICATE, FAULTS, KINDS_OF_FAULT, REFUSALS, plant

from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.context import Annotated, Box

BOXES = (Box("cat", (0.0, 0.0, 0.2, 0.2)), Box("cat", (0.0, 0.5, 0.2, 0.7)), Box("key", (0.7, 0.0, 0.9, 0.2)))
ASKED = (
    ("How many cats are there?", "two"),
    ("Where is the key?", "At the top right"),
    ("Is there a ghost here?", "No"),
    ("Is the key to the left of the cat?", "No"),
    ("What do you see?", "Two cats and a key."),
)


def candidate(number: int = 0) -> Candidate:
    picture = Annotated(number, f"{number}.png", ("Two cats and a key.",), BOXES)
    asked = (*ASKED, ("Which picture is this?", f"It is the picture with number {number} of them."))
    return Candidate(f"conversation-{number}", "conversation", picture, asked, "")


def planted(kind: str, seed: int = 0) -> list[str]:
    exchanges = FAULTS[kind](candidate(), random.Random(seed))
    assert exchanges is not None
    return [answer for _, answer in exchanges]


def test_a_wrong_count_changes_every_number_and_nothing_else() -> None:
    count, place, _, _, tally, _ = planted("wrong count")
    assert (count, tally) == ("three", "Three cats and a key.")
    assert place == "At the top right"


def test_a_mirrored_reply_swaps_sides_and_turns_answers_about_them() -> None:
    assert planted("left and right swapped")[1:4] == ["At the top left", "No", "Yes"]


@pytest.mark.parametrize("seed", range(5))
def test_a_wrong_object_is_one_that_the_picture_lacks(seed: int) -> None:
    answers = planted("wrong object", seed)
    assert answers[2] == "Yes"
    assert answers[4].count("cat") + answers[4].count("key") == 1
    assert answers[0] == "two"


def test_a_truncated_reply_ends_inside_an_answer_and_lacks_what_follows() -> None:
    whole = [answer for _, answer in candidate().exchanges]
    for seed in range(5):
        *before, last = planted("truncated", seed)
        assert before == whole[: len(before)]
        assert whole[len(before)].startswith(last + " ")


def test_swapped_roles_answer_with_the_question() -> None:
    assert planted("roles swapped") == [question for question, _ in candidate().exchanges]


def test_refusals_boilerplate_and_leaks_stand_in_every_answer() -> None:
    assert set(planted("refusal")) <= set(REFUSALS)
    assert set(planted("boilerplate")) <= set(BOILERPLATE)
    assert all(len(told) > len(sound) for told, (_, sound) in zip(planted("leaked"), ASKED, strict=False))


def test_faults_are_planted_in_equal_shares_and_the_same_for_the_same_seed() -> None:
    sound = [candidate(number) for number in range(90)]
    found = plant(sound, 0.5, seed=1)
    assert found == plant(sound, 0.5, seed=1) != plant(sound, 0.5, seed=2)
    assert Counter(found.faults) == {"": 45} | dict.fromkeys(KINDS_OF_FAULT, 5)
    for before, after, fault in zip(sound, found.candidates, found.faults, strict=True):
        assert (before == after) == (not fault)


def test_a_duplicate_repeats_a_sound_candidate_about_its_own_picture() -> None:
    found = plant([candidate(number) for number in range(90)], 0.5, seed=1)
    pairs = list(zip(found.candidates, found.faults, strict=True))
    sound = {(one.picture.image, one.exchanges) for one, fault in pairs if not fault}
    copies = {(one.picture.image, one.exchanges) for one, fault in pairs if fault == DUPLICATE}
    assert copies <= sound


def test_a_reply_without_a_number_gets_no_wrong_count() -> None:
    one = Candidate("detail-1", "detail", candidate().picture, (("Describe.", "A red cat."),), "")
    assert FAULTS["wrong count"](one, random.Random(0)) is None


def test_the_difference_of_two_models_is_tested_as_mcnemar_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    filtering = import_module("filtering")
    assert filtering.mcnemar(8, 2) == pytest.approx(0.109375)  # 2 * (1 + 10 + 45) / 1024
    assert filtering.mcnemar(0, 0) == 1.0
    found = filtering.compared([True] * 92 + [False] * 8, [True] * 90 + [False] * 2 + [True] * 8)
    assert (found["only_other_right"], found["only_faulty_right"], found["gain"]) == (8, 2, 0.06)
    low, high = found["interval"]
    assert low < 0.06 < high
