"""CHAIR: which objects a description names, which of them are there, and both figures counted by hand."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.benchmarks.chair import answer_id
from llavakit.evaluation.provenance import rules_hash
from llavakit.evaluation.scoring.chair import objects_named, objects_there
from llavakit.evaluation.scoring_saved import score_file

GOLDEN = (
    Path(os.environ.get("LLAVAKIT_GOLDEN") or Path(__file__).parents[3].parent / "shared" / "golden")
    / "llava-bench-coco"
)


@pytest.mark.parametrize(
    ("description", "boxed", "said", "invented"),
    [
        ("A dog on a couch.", ["dog", "couch"], ("dog", "couch"), ()),
        ("A hot dog beside a dog.", ["hot dog"], ("hot dog", "dog"), ("dog",)),
        ("A teddy bear, no real bear.", ["teddy bear"], ("teddy bear",), ()),
        ("A teddy bear beside a bear.", ["bear"], ("teddy bear", "bear"), ("teddy bear",)),
        ("He hits a tennis ball with a racket.", ["sports ball"], ("tennis ball", "racket"), ("racket",)),
        ("An orange shirt and an orange.", ["orange"], ("orange",), ()),
        ("An orange and white cat.", ["cat"], ("cat",), ()),
        ("An orange and a cat.", ["cat"], ("orange", "cat"), ("orange",)),
        ("A dog bed under a fire hydrant.", [], ("fire hydrant",), ("fire hydrant",)),
        ("Two men, one man and people.", ["person"], ("men", "man", "people"), ()),
        ("A sofa. A sofa! Another sofa?", ["bed"], ("sofa",) * 3, ("sofa",) * 3),
        ("A bike leans on a wall.", ["motorcycle"], ("bike",), ()),
        ("A bike leans on a wall.", ["car"], ("bike",), ("bike",)),
        ("There is no cat. It might be a cat.", [], (), ()),
        ("Nothing but sky.", ["kite"], (), ()),
        ("A wooden bench stands beside a bus stop.", ["bench"], ("bench",), ()),
        ("A bicycle helmet and a few dog houses.", [], (), ()),
        ("He pushes a luggage trolley past a trolley car.", ["train"], ("trolley car",), ()),
    ],
)
def test_objects_named_and_invented(
    description: str, boxed: list[str], said: tuple[str, ...], invented: tuple[str, ...]
) -> None:
    named = objects_named(description, objects_there(boxed, []))
    assert (named.said, named.invented) == (said, invented)


def test_an_object_is_there_by_its_box_or_by_a_caption() -> None:
    there = objects_there(["Dog", "dog"], ["A puppy on a sofa.", "Someone's bike, and no cat."])
    assert there.sure == (
        "cat",
        "couch",
        "dog",
    )  # a caption that names a thing is taken at its word, as CHAIR does
    assert there.perhaps == ("bicycle", "motorcycle")
    named = objects_named("A dog, a bicycle and a car.", there)
    assert (named.invented, named.found) == (("car",), ("dog",))


def test_denied_and_guessed_namings_are_set_apart() -> None:
    text, there = "A dog without a leash, and no cat. It may be a bear.", objects_there(["dog"], [])
    named = objects_named(text, there)
    assert (named.said, named.invented, named.set_apart) == (("dog",), (), 2)
    every = objects_named(text, there, every=True)
    assert (every.said, every.invented, every.set_apart) == (("dog", "cat", "bear"), ("cat", "bear"), 0)


def official(folder: Path, pictures: int = 4) -> None:
    """COCO's two files: a dog and a car in the first picture, nothing boxed in the last."""
    images = [{"id": n, "file_name": f"COCO_val2014_{n:012d}.jpg"} for n in range(1, pictures + 1)]
    categories = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 44, "name": "bottle"}]
    boxed = [(1, 18), (1, 3), (2, 18), (2, 18), (3, 44)]
    instances = [
        {"id": n, "image_id": i, "category_id": c, "bbox": [0, 0, 0, 0], "segmentation": [[0] * 8]}
        for n, (i, c) in enumerate(boxed)
    ]
    captions = [{"id": n, "image_id": n, "caption": f"Picture {n}."} for n in range(1, pictures + 1)]
    captions.append({"id": 99, "image_id": 3, "caption": "A bottle on a table."})
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for name, rows in (("instances", instances), ("captions", captions)):
        content = {"images": images, "annotations": rows, "categories": categories if name == "instances" else []}  # fmt: skip
        (folder / "annotations" / f"{name}_val2014.json").write_text(json.dumps(content))


SAID = {
    "1": "A dog and two cars. The dog looks at a cat.",
    "2": "A dog.",
    "3": "A bottle, a cup and a cup.",
    "4": "Grass.",
}


def test_both_figures_by_hand(tmp_path: Path) -> None:
    official(tmp_path)
    chair = load("chair_all")
    questions = chair.read(tmp_path, "long")
    assert [(q.id, q.truth["sure"]) for q in questions] == [
        ("1", ["car", "dog"]), ("2", ["dog"]), ("3", ["bottle", "dining table"]), ("4", []),
    ]  # fmt: skip
    assert questions[0].prompt == "Please describe this image in detail."
    assert chair.read(tmp_path, "short")[0].prompt == "Provide a one-sentence caption for the provided image."
    assert str(questions[0].pictures[0].path).endswith("val2014/COCO_val2014_000000000001.jpg")  # type: ignore[union-attr]
    verdicts = [chair.mark(q, SAID[q.id]) for q in questions]
    assert [(v.parsed, v.credit, v.note) for v in verdicts] == [
        ("dog, cars, dog, cat", 0, "an object that is not there"), ("dog", 1, ""),
        ("bottle, cup, cup", 0, "an object that is not there"), ("", 1, "no object named"),
    ]  # fmt: skip
    # 3 of 8 namings in 2 of 4 descriptions; 4 of 5 objects are found; 11 + 2 + 7 + 1 words
    assert chair.summarise(verdicts) == pytest.approx(
        {"without hallucination": 50, "CHAIR_s": 50, "CHAIR_i": 37.5, "recall": 80, "words": 21 / 4, "namings": 2, "namings set apart": 0}
    )  # fmt: skip
    assert math.isnan(chair.summarise([verdicts[3]])["CHAIR_i"]) and math.isnan(
        chair.summarise([])["CHAIR_s"]
    )


def test_saying_little_is_faultless_and_seen(tmp_path: Path) -> None:
    official(tmp_path)
    chair = load("chair_all")
    figures = chair.summarise([chair.mark(q, "") for q in chair.read(tmp_path, "long")])
    assert (figures["CHAIR_s"], figures["recall"], figures["words"]) == (0, 0, 0)


def test_the_same_pictures_are_drawn_for_everyone(tmp_path: Path) -> None:
    official(tmp_path, 600)
    drawn = [question.id for question in load("chair").read(tmp_path, "long")]
    assert len(set(drawn)) == 500 and drawn[:4] == ["286", "245", "374", "178"]


def test_awkward_answers(tmp_path: Path) -> None:
    official(tmp_path)
    rows: list[dict[str, Any]] = [
        {"image_id": 4, "caption": "\x00\x07 a dog"},
        {"image_id": 2, "caption": ""},
        {"image_id": 1, "caption": "a dog and no cat " * 6000},
        {"image_id": 3, "caption": "A bottle."},
        {"image_id": 3, "caption": "A bottle."},
    ]
    path = tmp_path / "said.json"
    path.write_text(json.dumps(rows))
    found = score_file("chair_all", path, tmp_path)
    assert [verdict.credit for verdict in found.marked.verdicts] == [1, 1, 1, 0]
    assert found.counts == {
        "answers given twice, the same": 1,
        "answers that are empty": 1,
        "answers of more than 10,000 characters": 1,
        "answers with control characters": 1,
    }
    assert found.marked.notes == {"an object that is not there": 1, "no object named": 1}
    others = found.marked.others
    assert others["counting as CHAIR's tool, denied and guessed too: CHAIR_s"] == 50
    path.write_text(json.dumps([*rows, {"image_id": 2, "caption": "A dog."}]))
    with pytest.raises(LlavakitError, match="question 2 has two answers that differ"):
        score_file("chair_all", path, tmp_path)
    path.write_text(json.dumps(rows[1:]))
    with pytest.raises(LlavakitError, match="1 of 4 questions have no answer, 4 first"):
        score_file("chair_all", path, tmp_path)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"image_id": 42, "id": 7}, "42"), ({"question_id": "42"}, "42"), ({"image": "000000000042.jpg"}, "42"),
        ({"image_id": "COCO_val2014_000000000042"}, "42"),
    ],
)  # fmt: skip
def test_a_description_is_of_the_picture_by_number_or_name(row: dict[str, Any], name: str) -> None:
    assert answer_id(row) == name


def test_a_row_without_a_picture_is_refused(tmp_path: Path) -> None:
    official(tmp_path)
    path = tmp_path / "said.json"
    for row in ({"image": "dog.jpg", "caption": "A dog."}, {"caption": "A dog."}):
        path.write_text(json.dumps([row]))
        with pytest.raises(LlavakitError, match="row 1 names no question"):
            score_file("chair_all", path, tmp_path)


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        LlavakitError, match=r"instances_val2014\.json \(158 MB\) from http://images\.cocodataset"
    ):
        load("chair").read(tmp_path, "long")
    with pytest.raises(LlavakitError, match=r"caps_boxes_coco2014_val_80\.jsonl \(59 kB\) from https://"):
        load("chair_80").read(tmp_path, "long")
    official(tmp_path)
    captions = tmp_path / "annotations" / "captions_val2014.json"
    content = json.loads(captions.read_text())
    captions.write_text(json.dumps({**content, "annotations": content["annotations"][1:]}))
    with pytest.raises(LlavakitError, match="no caption of picture 1"):
        load("chair").read(tmp_path, "long")
    captions.write_text(json.dumps({**content, "images": content["images"][1:]}))
    with pytest.raises(LlavakitError, match="tells of picture 1 and does not list it"):
        load("chair").read(tmp_path, "long")


def test_the_words_for_objects_are_among_the_rules_that_a_score_was_made_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, read = rules_hash(load("chair")), Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: read(path) + (b"dog: hound" if path.name == "names.py" else b"")
    )
    assert rules_hash(load("chair")) != before


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="LLaVA-Bench (COCO) is not here")
def test_gpt4s_descriptions_invent_nothing_for_their_own_pictures_and_much_for_others(tmp_path: Path) -> None:
    """GPT-4 wrote them from the very captions and boxes that are the truth here."""
    chair = load("chair_80")
    questions = {question.id: question for question in chair.read(GOLDEN, "long")}
    assert len(questions) == 80

    def lines(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (GOLDEN / name).read_text("utf-8").splitlines()]

    said = {row["question_id"]: row["text"] for row in lines("qa90_gpt4_answer.jsonl")}
    asked = [row for row in lines("qa90_questions.jsonl") if row["category"] == "detail"]
    texts = [(answer_id({"image": row["image"]}), said[row["question_id"]]) for row in asked]
    own = chair.summarise([chair.mark(questions[name], text) for name, text in texts])
    assert own["CHAIR_i"] == 0 and own["recall"] == pytest.approx(95.0, abs=0.01)
    turned = zip(texts, texts[1:] + texts[:1], strict=True)
    wrong = chair.summarise([chair.mark(questions[name], text) for (name, _), (_, text) in turned])
    assert wrong["CHAIR_s"] > 90 and wrong["CHAIR_i"] > 60
