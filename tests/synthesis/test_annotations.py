"""Annotations of every data set become the same records; what cannot be used is counted, and broken files are named."""

from __future__ import annotations

import json
import os
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from llavakit.errors import LlavakitError
from llavakit.synthesis.annotations import read_annotations
from llavakit.synthesis.context import Box, Region, Relation, Word, symbols

ROOT = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("LLAVAKIT_GOLDEN", ROOT.parent / "shared" / "golden"))
CONTEXTS = GOLDEN / "llava-bench-coco" / "caps_boxes_coco2014_val_80.jsonl"

LICENCES = [
    {"id": 1, "name": "Attribution-NonCommercial License", "url": "https://example.org/by-nc"},
    {"id": 4, "name": "Attribution License", "url": "https://example.org/by"},
]
CAPTIONS: dict[str, Any] = {
    "licenses": LICENCES,
    "images": [
        {"id": 7, "file_name": "000000000007.jpg", "width": 640, "height": 480, "license": 4},
        {"id": 3, "file_name": "000000000003.jpg", "width": 100, "height": 100, "license": 1},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "A dog on a sofa. "},
        {"id": 2, "image_id": 3, "caption": "A street."},
        {"id": 3, "image_id": 7, "caption": "Someone's dog\nsleeps."},
    ],
}
INSTANCES: dict[str, Any] = {
    "images": [{**CAPTIONS["images"][0], "file_name": "COCO_val2014_000000000007.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 18, "bbox": [64, 120, 320, 240], "area": 1, "iscrowd": 0,
         "segmentation": [[1, 2, 3, 4]]},
        {"id": 2, "image_id": 7, "category_id": 18, "bbox": [0, 0, 64, 48], "iscrowd": 1},
    ],
    "categories": [{"id": 18, "name": "dog"}],
}  # fmt: skip


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def write_rows(path: Path, *rows: object) -> Path:
    return write(path, "\n".join(json.dumps(row) for row in rows) + "\n")


def coco(folder: Path, captions: object = CAPTIONS, instances: object = INSTANCES) -> list[Path]:
    return [write(folder / "captions.json", captions), write(folder / "instances.json", instances)]


def changed(content: dict[str, Any], **lists: Any) -> dict[str, Any]:
    copy = deepcopy(content)
    for name, more in lists.items():
        copy[name] += more
    return copy


def test_cocos_captions_and_boxes_are_joined_by_the_pictures_number(tmp_path: Path) -> None:
    read = read_annotations(coco(tmp_path))
    dog, street = read.pictures
    assert symbols(dog) == (
        "A dog on a sofa.\nSomeone's dog sleeps.\n\ndog: [0.1, 0.25, 0.6, 0.75]\ndog: [0.0, 0.0, 0.1, 0.1]"
    )
    assert [box.crowd for box in dog.boxes] == [False, True]
    assert (dog.id, dog.image, dog.source, dog.width, dog.height) == (7, "000000000007.jpg", "coco", 640, 480)
    assert (dog.licence, dog.licence_url) == ("Attribution License", "https://example.org/by")
    assert street.boxes == () and not read.left_out


def test_captions_alone_instances_alone_and_both_in_one_file_are_read(tmp_path: Path) -> None:
    captions, instances = coco(tmp_path)
    assert [len(picture.captions) for picture in read_annotations([captions]).pictures] == [2, 1]
    [boxed] = read_annotations([instances]).pictures
    assert boxed.captions == () and len(boxed.boxes) == 2 and boxed.image == "COCO_val2014_000000000007.jpg"
    both = changed(INSTANCES, annotations=CAPTIONS["annotations"][:1])
    [whole] = read_annotations([write(tmp_path / "both.json", both)]).pictures
    assert len(whole.captions) == 1 and len(whole.boxes) == 2


def test_the_same_file_twice_changes_nothing(tmp_path: Path) -> None:
    captions, instances = coco(tmp_path)
    again = write(tmp_path / "again.json", CAPTIONS)
    once = read_annotations([captions, instances])
    assert read_annotations([captions, instances, captions]).pictures == once.pictures
    twice = read_annotations([captions, instances, again])
    assert twice.pictures == once.pictures and twice.left_out == {"captions given twice": 3}


def test_what_cannot_be_used_is_counted_by_its_reason(tmp_path: Path) -> None:
    odd = changed(
        CAPTIONS,
        annotations=[{"id": 8, "image_id": 99, "caption": "Lost."}, {"id": 9, "image_id": 3, "caption": " "}],
        images=[{"id": 5, "file_name": "5.jpg", "width": 9, "height": 9}],
    )
    boxes = [[600, 400, 100, 100], [700, 0, 10, 10], [1, 1, 0, 5], [1, 2, 3]]
    more = [
        {"id": 10 + n, "image_id": 7, "category_id": 18, "bbox": box, "iscrowd": 0}
        for n, box in enumerate(boxes)
    ]
    more += [{"id": 20, "image_id": 7, "category_id": 77, "bbox": [1, 1, 5, 5], "iscrowd": 0}]
    more += [{"id": 21, "image_id": 98, "category_id": 18, "bbox": [1, 1, 5, 5], "iscrowd": 0}]
    read = read_annotations(coco(tmp_path, odd, changed(INSTANCES, annotations=more)))
    assert read.pictures[0].boxes[-1] == Box("dog", (0.9375, pytest.approx(400 / 480), 1.0, 1.0))
    assert len(read.pictures) == 2 and len(read.pictures[0].boxes) == 3
    assert read.left_out == Counter({
        "captions of pictures that are not listed": 1,
        "captions that are empty or no text": 1,
        "boxes clipped at their picture's edge (kept)": 1,
        "boxes outside of their picture": 1,
        "boxes without size": 1,
        "boxes that are not four numbers": 1,
        "boxes of categories that are not listed": 1,
        "boxes of pictures that are not listed": 1,
        "pictures of which nothing is said": 1,
    })  # fmt: skip


@pytest.mark.parametrize("wanted", ["Attribution License", "attribution license", "4"])
def test_pictures_are_kept_by_their_licence(tmp_path: Path, wanted: str) -> None:
    read = read_annotations(coco(tmp_path), licences=[wanted])
    assert [picture.id for picture in read.pictures] == [7]
    assert read.left_out == {"pictures under another licence: Attribution-NonCommercial License": 1}


def test_a_licence_that_no_picture_has_names_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(
        LlavakitError, match=r"'CC0'; the files name these: 1 Attribution-Non.*; 4 Attribution L"
    ):
        read_annotations(coco(tmp_path), licences=["4", "CC0"])


def test_one_number_for_two_pictures_is_refused(tmp_path: Path) -> None:
    other = deepcopy(INSTANCES)
    other["images"][0]["file_name"] = "validation/7.png"
    with pytest.raises(LlavakitError, match=r"id 7 stands for 000000000007\.jpg and.*validation/7\.png"):
        read_annotations(coco(tmp_path, instances=other))


PICTURES = [
    {
        "image_id": 2,
        "url": "https://example.org/vg/VG_100K_2/2.jpg",
        "width": 200,
        "height": 100,
        "coco_id": None,
    },
    {"image_id": 1, "url": "https://example.org/vg/VG_100K/1.jpg", "width": 100, "height": 100, "coco_id": 9},
]
REGIONS = [
    {"id": 1, "regions": [{"region_id": 5, "image_id": 1, "phrase": "a red\n hat", "x": 10, "y": 20, "width": 30, "height": 40}]},
    {"id": 3, "regions": [{"region_id": 6, "image_id": 3, "phrase": "lost", "x": 1, "y": 2, "width": 3, "height": 4}]},
]  # fmt: skip
OBJECTS = [
    {"image_id": 1, "objects": [
        {"object_id": 50, "names": ["Man"], "x": 0, "y": 0, "w": 50, "h": 100},
        {"object_id": 51, "names": ["hat"], "x": 10, "y": 0, "w": 20, "h": 0},
    ]},
]  # fmt: skip
RELATIONSHIPS = [
    {"image_id": 1, "relationships": [
        {"predicate": "RIDES", "subject": {"object_id": 50, "name": "man", "x": 0, "y": 0, "w": 50, "h": 100},
         "object": {"object_id": 52, "name": "horse", "x": 0, "y": 50, "w": 100, "h": 50}},
        {"predicate": "wears", "subject": {"object_id": 50, "name": "man", "x": 0, "y": 0, "w": 50, "h": 100},
         "object": {"object_id": 51, "name": "hat", "x": 10, "y": 0, "w": 20, "h": 0}},
    ]},
]  # fmt: skip


def test_visual_genomes_regions_objects_and_relationships_come_together(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{number}.json", content)
        for number, content in enumerate((REGIONS, RELATIONSHIPS, OBJECTS, PICTURES))
    ]
    read = read_annotations(paths)
    [man] = read.pictures
    assert (man.id, man.image, man.source) == (1, "VG_100K/1.jpg", "visual_genome")
    assert man.regions == (Region("a red hat", (0.1, 0.2, 0.4, 0.6)),)
    assert [box.category for box in man.boxes] == ["man", "horse"]
    assert man.relations == (Relation(0, "rides", 1),)
    assert read.left_out == {
        "regions of pictures that are not listed": 1,
        "boxes without size": 2,
        "relations of things without a box": 1,
        "pictures of which nothing is said": 1,
    }
    with pytest.raises(LlavakitError, match=r"image_data\.json; name that file too"):
        read_annotations(paths[:2])


def test_a_row_a_picture_with_everything_that_can_be_said_of_one(tmp_path: Path) -> None:
    row = {
        "image": "a/1.png", "captions": ["A sign."], "width": 200, "height": 100, "box_format": "pixel_size",
        "instances": [{"category": "sign", "bbox": [0, 0, 100, 50]}, {"category": "post", "bbox": [0, 0, 0, 5]},
                      {"category": "car", "bbox": [100, 50, 100, 50], "iscrowd": 1}],
        "regions": [{"phrase": "a dent", "bbox": [20, 10, 20, 10]}], "words": ["EXIT", {"text": "14", "bbox": [0, 0, 20, 10]}],
        "relations": [{"subject": 2, "predicate": "behind", "object": 0}, {"subject": 0, "predicate": "on", "object": 1}],
        "licence": "CC0", "licence_url": "https://example.org", "source": "mine",
    }  # fmt: skip
    read = read_annotations(
        [write_rows(tmp_path / "own.jsonl", row, {"id": 4, "image": "b.png", "ocr": ["A"]})]
    )
    first, second = read.pictures
    assert first.boxes == (Box("sign", (0, 0, 0.5, 0.5)), Box("car", (0.5, 0.5, 1, 1), crowd=True))
    assert first.relations == (Relation(1, "behind", 0),)
    assert first.words == (Word("EXIT"), Word("14", (0, 0, 0.1, 0.1)))
    assert first.regions == (Region("a dent", (0.1, 0.1, 0.2, 0.2)),)
    assert (first.id, first.source, first.licence, first.licence_url) == (
        "a/1.png",
        "mine",
        "CC0",
        "https://example.org",
    )
    assert (second.id, second.source, second.words) == (4, "own", (Word("A"),))
    assert read.left_out == {"boxes without size": 1, "relations of things without a box": 1}


def test_a_picture_that_two_rows_tell_of_is_taken_once_and_counted(tmp_path: Path) -> None:
    rows = (
        {"image": "a", "captions": ["A."]},
        {"image": "a", "captions": ["B."]},
        {"image": "a", "source": "other", "words": ["C"]},
    )
    read = read_annotations([write_rows(tmp_path / "rows.jsonl", *rows)])
    assert [(picture.source, picture.captions) for picture in read.pictures] == [
        ("rows", ("A.",)),
        ("other", ()),
    ]
    assert read.left_out == {"pictures given twice": 1}


def test_one_row_is_a_file_with_an_end_of_line_or_without(tmp_path: Path) -> None:
    for text in ('{"image": "a", "captions": ["A."]}', '\n{"image": "a", "captions": ["A."]}\n\n'):
        [picture] = read_annotations([write(tmp_path / "one.jsonl", text)]).pictures
        assert picture.captions == ("A.",)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"captions": ["A."]}, "line 2 has no `image`"),
        ({"image": "x", "captions": "A."}, "line 2: `captions` is str"),
        ({"image": "x", "box_format": "xyxy"}, "line 2: `box_format` is 'xyxy'; it is one of corners"),
        ({"image": "x", "instances": [{"category": "a", "bbox": [3, 4, 50, 60]}]}, "line 2: the box .* not in fractions"),
        ({"image": "x", "relations": [{"subject": 0, "predicate": "on", "object": 1}]}, "line 2: a relation"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_meant_so_is_named_by_its_line(tmp_path: Path, row: object, said: str) -> None:
    with pytest.raises(LlavakitError, match=said):
        read_annotations([write_rows(tmp_path / "rows.jsonl", {"image": "a", "captions": ["A."]}, row)])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"images": [', r"not whole JSON: .* at line 1, character 13 \(byte 12\)"),
        ("<!DOCTYPE html><p>Sign in", "is a web page"),
        ("version https://git-lfs.github.com/spec/v1\noid", "pointer of Git LFS"),
        ("", "is empty"),
        ("[]", "holds an empty list"),
        ('{"a": 1}', "an object with `a`; expected COCO"),
        ('[{"question": 1}]', "a list of objects with `question`"),
        ('{"image": "a"}\n{"image": "b"', "line 2 is not whole JSON"),
        ('{"image": "a"}\n7', "line 2 holds int"),
        ('\n\n{"image": "a"}\n7', "line 4 holds int"),
        ('{"images": [{"file_name": "a"}], "annotations": []}', "entry of `images` has no 'id'"),
        ('{"images": [], "annotations": [{"caption": "A."}]}', "entry of `annotations` has no 'image_id'"),
    ],
)
def test_a_file_that_is_none_is_named_in_a_sentence(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(LlavakitError, match=said):
        read_annotations([write(tmp_path / "broken.json", content)])


def test_a_missing_file_a_folder_and_an_archive_are_named(tmp_path: Path) -> None:
    with pytest.raises(LlavakitError, match=r"nowhere\.json is not there"):
        read_annotations([tmp_path / "nowhere.json"])
    with pytest.raises(LlavakitError, match="is a folder"):
        read_annotations([tmp_path])
    (tmp_path / "packed.zip").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(LlavakitError, match="unpack it"):
        read_annotations([tmp_path / "packed.zip"])


@pytest.mark.skipif(not CONTEXTS.exists(), reason="LLaVA-Bench's contexts are not here")
def test_llava_benchs_contexts_are_read_as_the_judge_was_told_them() -> None:
    read = read_annotations([CONTEXTS])
    assert len(read.pictures) == 80 and not read.left_out
    for line, picture in zip(CONTEXTS.read_text("utf-8").splitlines(), read.pictures, strict=True):
        row = json.loads(line)
        boxes = "\n".join(f"{one['category']}: {one['bbox']}" for one in row["instances"])
        assert symbols(picture) == "\n".join(row["captions"]) + ("\n\n" + boxes if boxes else "")
        assert picture.id == row["id"] and picture.image == row["image"]
