"""COCO annotations become the symbols of the paper; broken files are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llavakit.errors import LlavakitError
from llavakit.synthesis.context import read_coco, symbols

CAPTIONS = {
    "images": [{"id": 7, "file_name": "000000000007.jpg", "width": 640, "height": 480}],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "A dog on a sofa. "},
        {"id": 2, "image_id": 7, "caption": "Someone's dog sleeps."},
    ],
}
INSTANCES = {
    "images": CAPTIONS["images"],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 18, "bbox": [64, 120, 320, 240], "area": 1, "iscrowd": 0}
    ],
    "categories": [{"id": 18, "name": "dog"}],
}


def write(folder: Path, captions: object = CAPTIONS, instances: object = INSTANCES) -> tuple[Path, Path]:
    paths = folder / "captions.json", folder / "instances.json"
    for path, content in zip(paths, (captions, instances), strict=True):
        path.write_text(json.dumps(content), "utf-8")
    return paths


def test_captions_stand_one_a_line_and_boxes_follow(tmp_path: Path) -> None:
    [picture] = read_coco(*write(tmp_path))
    assert symbols(picture) == "A dog on a sofa.\nSomeone's dog sleeps.\n\ndog: [0.1, 0.25, 0.6, 0.75]"
    assert picture.image == "000000000007.jpg"


def test_a_missing_file_half_a_file_and_a_foreign_file_are_named(tmp_path: Path) -> None:
    captions, instances = write(tmp_path)
    with pytest.raises(LlavakitError, match=r"nowhere\.json is not there"):
        read_coco(tmp_path / "nowhere.json", instances)
    captions.write_text('{"images": [', "utf-8")
    with pytest.raises(LlavakitError, match=r"captions\.json is not whole JSON"):
        read_coco(captions, instances)
    captions.write_text("[]", "utf-8")
    with pytest.raises(LlavakitError, match="holds a JSON list"):
        read_coco(captions, instances)
    with pytest.raises(LlavakitError, match="'categories' is missing"):
        read_coco(*write(tmp_path, instances={"annotations": []}))
