"""Things and numbers that the annotations do not bear out are found; what they cannot decide is left alone."""

from __future__ import annotations

import pytest
from tests.synthesis.quality.planted import CAPTIONS, candidate, reasons, said

from llavakit.synthesis.context import Annotated, Box
from llavakit.synthesis.quality import check
from llavakit.synthesis.quality.names import KIN, LOOSE, NAMES
from llavakit.synthesis.quality.things import Vocabulary

INVENTS, COUNTS, DENIES = "names what is not there", "another number than boxes", "denies what is there"
SHELF = Annotated(
    2,
    "2.jpg",
    ("A teddy bear and a hot dog on a shelf.", "A man in an orange shirt sits on his motorcycle."),
    (
        Box("teddy bear", (0.0, 0.1, 0.2, 0.3)),
        Box("hot dog", (0.7, 0.6, 0.9, 0.8)),
        Box("motorcycle", (0.5, 0.5, 1.0, 1.0)),
    ),
)


def names(text: str) -> list[str]:
    return [min(mention.categories) for mention in Vocabulary().mentions(text) if mention.told]


@pytest.mark.parametrize(
    "answer",
    [
        "A cat watches the dogs.",
        "The dogs run past a parked car.",
        "Two dogs, a frisbee and several bicycles are on the lawn.",
        "A man throws the frisbee.",
        "There is no cat, but there is an elephant.",
        "A cat can be seen behind the dogs.",
        "The puppies rest beside a surfboard.",
    ],
)
def test_a_thing_that_no_annotation_has_is_found(answer: str) -> None:
    assert reasons(said(answer), "hallucination") == [INVENTS]


@pytest.mark.parametrize(
    "answer",
    [
        "Two puppies chase the flying disc near a park bench.",
        "There is no cat in the picture.",
        "There are dogs and a bench, without any people or cars.",
        "Perhaps a car is parked nearby.",
        "It may be a scene before a bicycle race.",
        "The white dog looks like a sheep.",
        "A car might be parked nearby.",
        "Animals play on the ground.",
        "The dog bed and the car park are elsewhere.",
        "Instead of a ball, they chase a frisbee.",
        "People often bring umbrellas here.",
    ],
)
def test_what_is_there_denied_guessed_or_general_is_no_invention(answer: str) -> None:
    assert reasons(said(answer), "hallucination") == []


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("The teddy bear sits by the hot dog.", []),
        ("The bear sits by the food.", [INVENTS]),
        ("The dog lies on the shelf.", [INVENTS]),
        ("He wears an orange shirt.", []),
        ("An orange is on the shelf.", [INVENTS]),
        ("Oranges lie on the shelf.", [INVENTS]),
        ("He is on a bike.", []),
        ("The motorcycle is a vehicle.", []),
    ],
)
def test_a_name_inside_another_is_not_that_thing(answer: str, found: list[str]) -> None:
    assert reasons(said(answer, picture=SHELF), "hallucination") == found


def test_what_a_question_assumes_counts_except_where_it_is_meant_to_be_false() -> None:
    asked, answer = "What color is the cat?", "It is black."
    assert reasons(said(answer, asked), "hallucination") == [INVENTS]
    assert reasons(said("There is no cat here.", asked), "hallucination") == []
    assert (
        reasons(said("There is no cat; there are two dogs.", asked, kind="false_premise"), "hallucination")
        == []
    )
    assert reasons(said("No, there are only dogs.", "Is there a cat?"), "hallucination") == []


@pytest.mark.parametrize(
    ("question", "answer", "found"),
    [
        ("Is there a cat?", "Yes", [INVENTS]),
        ("Are there any bicycles in the picture?", "Yes, there are.", [INVENTS]),
        ("Can you see a bus?", "Yes.", [INVENTS]),
        ("Does this image show an umbrella?", "Yes, it does.", [INVENTS]),
        ("Is a kite visible?", "Yes", [INVENTS]),
        ("Are there any people?", "Yes", [INVENTS]),
        ("Is there a car or a bus?", "Yes", [INVENTS]),
        ("Is there a dog?", "No", [DENIES]),
        ("Do you see a bench here?", "No, I don't.", [DENIES]),
        ("What else?", "There is no frisbee in the picture.", [DENIES]),
        ("What else?", "I don't see any dogs.", [DENIES]),
    ],
)
def test_yes_to_what_is_not_there_and_no_to_what_is_are_found(
    question: str, answer: str, found: list[str]
) -> None:
    assert reasons(said(answer, question), "hallucination") == found


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Is there a dog?", "Yes"),
        ("Is there a cat?", "No"),
        ("Is there a pigeon or a dog?", "Yes"),
        ("Is there a black dog?", "No"),
        ("Is there a dog on the bench?", "No"),
        ("Is there another dog?", "No"),
        ("Is there a puppy?", "No"),
        ("Is there room for a car?", "Yes"),
        ("Is there anything like a cat?", "Yes"),
        ("Is there no cat?", "Yes"),
        ("Could there be a cat?", "Yes"),
        ("Is there a dog?", "No one can overlook it."),
        ("What else?", "There are no dogs on the bench."),
        ("What else?", "There is no cat in the picture."),
    ],
)
def test_yes_and_no_that_annotations_bear_out_or_cannot_decide_pass(question: str, answer: str) -> None:
    assert reasons(said(answer, question), "hallucination") == []


def test_people_are_taken_to_be_missed_by_annotations_that_speak_of_what_they_do() -> None:
    wave = (Box("surfboard", (0.1, 0.5, 0.3, 0.8)),)
    asked, told = "Is there a person?", "Yes"
    for captions, found in ((("A surfer on a wave.",), []), (("A board on a wave.",), [INVENTS])):
        one = said(told, asked, picture=Annotated(7, "7.jpg", captions, wave))
        assert reasons(one, "hallucination") == found
    unboxed = said(told, asked, picture=Annotated(7, "7.jpg", ("A board on a wave.",), ()))
    assert reasons(unboxed, "hallucination") == []


def test_a_thing_too_small_to_be_seen_may_be_denied() -> None:
    for side, found in ((0.01, []), (0.1, [DENIES])):
        speck = Annotated(8, "8.jpg", ("A beach.",), (Box("kite", (0.5, 0.5, 0.5 + side, 0.5 + side)),))
        assert reasons(said("No", "Is there a kite?", picture=speck), "hallucination") == found


def test_a_teacher_that_saw_the_picture_is_only_noted() -> None:
    (verdicts,) = check([said("A cat watches the dogs.", kind="vision_conversation")])
    assert [(one.gate.split("/")[0], one.action) for one in verdicts] == [("hallucination", "note")]


def test_categories_of_the_sets_own_boxes_count() -> None:
    drum = Annotated(3, "3.jpg", ("A stage.",), (Box("snare drum", (0.1, 0.1, 0.2, 0.2)),))
    has = candidate(("What is there?", "There is a snare drum."), picture=drum)
    invents = said("Two dogs and a snare drum are on the lawn.")
    found = check([has, invents])
    assert [[one.evidence for one in row] for row in found] == [[], ["snare drum"]]


@pytest.mark.parametrize(
    "one",
    [
        said("There are three dogs on the lawn."),
        said("Four dogs run across the grass."),
        said("There are two benches beside the lawn."),
        said("3", "How many dogs are there?", kind="short_answer"),
    ],
)
def test_a_number_that_boxes_contradict_is_found(one: object) -> None:
    assert reasons(one, "counts") == [COUNTS]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "one",
    [
        said("There are two dogs."),
        said("One dog is brown, the other dog is white."),
        said("2", "How many dogs are there?", kind="short_answer"),
        said("Perhaps three dogs live here."),
        said(
            "There are three dogs.",
            picture=Annotated(4, "", CAPTIONS, (Box("dog", (0, 0, 1, 1), crowd=True),)),
        ),
        said(
            "There are three dogs.", picture=Annotated(4, "", ("Three dogs.",), (Box("dog", (0, 0, 1, 1)),))
        ),
        said("There are no cats and no three dogs."),
    ],
)
def test_a_number_that_boxes_cannot_contradict_passes(one: object) -> None:
    assert reasons(one, "counts") == []  # type: ignore[arg-type]


def test_names_are_read_in_singular_and_plural() -> None:
    assert names("Buses, knives, geese and teddy bears; skis, couches, sheep.") == [
        *("bus", "knife", "bird", "teddy bear", "skis", "couch", "sheep")
    ]


def test_a_traffic_light_is_no_traffic() -> None:
    crossing = Annotated(
        5, "5.jpg", ("A bus waits at a traffic light.",), (Box("bus", (0.1, 0.2, 0.5, 0.7)),)
    )
    assert reasons(said("A man on a bicycle passes a car.", picture=crossing), "hallucination") == [INVENTS]


def test_a_trolley_is_of_luggage_or_on_rails_so_it_is_no_invention_and_bears_out_a_train() -> None:
    assert reasons(said("A dog sits on a trolley beside a luggage trolley."), "hallucination") == []
    assert names("A trolley car passes a trolley bus.") == ["train", "bus"]
    line = Annotated(6, "6.jpg", ("A red trolley in the city.",), (Box("car", (0.1, 0.2, 0.5, 0.7)),))
    assert reasons(said("A train comes by.", picture=line), "hallucination") == []


def test_the_word_behind_a_thing_may_be_a_verb() -> None:
    assert names("A bench stands by a dog bed, and a brown horse rides on.") == ["bench", "horse"]
    assert names("A few bicycle racks, a bicycle helmet, the hot dog stands.") == []


def test_the_tables_speak_of_the_80_categories() -> None:
    assert len(NAMES) == 80
    assert set().union(*LOOSE.values(), *KIN) <= NAMES.keys()
