"""A picture is found under any of its names below its folder, and sent upright, small, bare and always the same."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from llavakit.errors import LlavakitError
from llavakit.synthesis.pictures import PictureError, PictureFolder, encode


def paint(path: Path, size: tuple[int, int] = (8, 6), **saving: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path, **saving)
    return path


@pytest.mark.parametrize(
    ("there", "asked"),
    [
        ("000000000007.jpg", "COCO_val2014_000000000007.jpg"),
        ("val2014/COCO_val2014_000000000007.jpg", "000000000007.jpg"),
        ("a/b/c.png", "c.jpg"),
        ("a/c.webp", "a/c.jpg"),
        ("c.JPEG", "x/c.jpg"),
    ],
)
def test_a_picture_is_found_under_another_name_suffix_or_folder(
    tmp_path: Path, there: str, asked: str
) -> None:
    path = paint(tmp_path / there)
    assert PictureFolder(tmp_path).find(asked) == path


def test_of_several_the_one_in_the_named_folder_goes_before(tmp_path: Path) -> None:
    first, second = paint(tmp_path / "train" / "1.png"), paint(tmp_path / "val" / "1.png")
    pictures = PictureFolder(tmp_path)
    assert pictures.find("val/1.jpg") == second and pictures.find("1.jpg") == first
    assert pictures.find("val/1.png") == second


def test_a_missing_picture_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"7\.jpg is not below") as caught:
        PictureFolder(tmp_path).find("7.jpg")
    assert caught.value.reason == "picture missing"
    with pytest.raises(LlavakitError, match="no folder"):
        PictureFolder(tmp_path / "nowhere")


def test_annotations_cannot_name_a_file_outside_of_the_folder(tmp_path: Path) -> None:
    outside, inside = paint(tmp_path / "private" / "x.png"), tmp_path / "pictures"
    inside.mkdir()
    for name in ("../private/x.png", str(outside)):
        with pytest.raises(PictureError, match="is not below"):
            PictureFolder(inside).find(name)


def test_a_picture_is_sent_upright_without_metadata_and_no_longer_than_asked(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    exif[0x010F] = "a camera"
    sent = encode(paint(tmp_path / "a.jpg", (400, 200), exif=exif), longest=100)
    shown = Image.open(io.BytesIO(sent.data))
    assert shown.size == (50, 100) and sent.media_type == "image/jpeg"
    assert not shown.getexif() and b"a camera" not in sent.data
    assert encode(tmp_path / "a.jpg", longest=100) == sent


def test_a_small_picture_keeps_its_size_and_what_is_transparent_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    shown = Image.open(io.BytesIO(encode(tmp_path / "a.png").data))
    assert shown.size == (8, 8) and shown.getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "I;16", "LA"])
def test_pictures_of_every_mode_are_sent(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (8, 8)).save(path)
    assert Image.open(io.BytesIO(encode(path).data)).mode == "RGB"


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 20])
def test_a_file_that_is_no_picture_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(PictureError, match=r"a\.png cannot be read") as caught:
        encode(tmp_path / "a.png")
    assert caught.value.reason == "picture unreadable"
