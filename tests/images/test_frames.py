"""Frames of short videos: which are shown, that each container gives the same ones, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llavakit.conversation.record import file_of, frame_name, frame_of, video_name, video_of
from llavakit.errors import LlavakitError
from llavakit.images.frames import frame_count, named_size, open_frames, open_pictures, sampled
from llavakit.images.geometry import ImagePolicy, Layout, TowerGeometry, frame_layout
from llavakit.images.pixels import PictureError, to_tiles
from llavakit.images.spec import PixelSpec

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 255, 255)]


def frames() -> list[Image.Image]:
    """Six frames of one colour each."""
    return [Image.new("RGB", (30, 20), colour) for colour in COLOURS]


def write_video(path: Path) -> Path:
    """The six frames, as the ending says; a folder of frames without one."""
    first, *rest = frames()
    if path.suffix:
        lossless = {"lossless": True} if path.suffix == ".webp" else {}
        first.save(path, save_all=True, append_images=rest, **lossless)
    else:
        path.mkdir()
        for number, frame in enumerate(frames()):
            frame.save(path / f"frame{number + 7}.png")  # 10 follows 9
        (path / "notes.txt").write_text("no frame")
    return path


@pytest.mark.parametrize("name", ["clip.gif", "clip.webp", "clip.png", "clip.tiff", "clip"])
def test_every_container_gives_the_frames_that_were_put_in(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name)
    assert frame_count(path) == 6
    for numbers in ([0, 1, 2, 3, 4, 5], [2, 5], [5, 0, 3]):
        found = list(open_frames(path, numbers))
        assert [frame.mode for frame in found] == ["RGB"] * len(numbers)
        assert [frame.getpixel((15, 10)) for frame in found] == [COLOURS[number] for number in numbers]
    still = tmp_path / "still.png"
    Image.new("RGB", (8, 9)).save(still)
    names = [str(still), frame_name(str(path), 1), frame_name(str(path), 4), str(still)]
    opened = open_pictures(names)
    assert [picture.size for picture in opened] == [(8, 9), (30, 20), (30, 20), (8, 9)]
    assert [picture.getpixel((5, 5)) for picture in opened[1:3]] == [COLOURS[1], COLOURS[4]]
    assert [named_size(one) for one in names] == [picture.size for picture in opened]


def test_pages_of_different_sizes_are_measured_each(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (10 + n, 20 + n)) for n in range(3)]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    assert named_size(frame_name(str(tmp_path / "pages.tiff"), 2)) == (12, 22)


def test_a_picture_that_stands_still_is_one_frame(tmp_path: Path) -> None:
    Image.new("RGB", (8, 9)).save(tmp_path / "still.jpg")
    assert frame_count(tmp_path / "still.jpg") == 1
    assert [frame.size for frame in open_frames(tmp_path / "still.jpg", [0])] == [(8, 9)]


@given(st.integers(1, 500), st.integers(1, 40))
def test_frames_are_spread_evenly_from_the_first_to_the_last(count: int, most: int) -> None:
    chosen = sampled(count, most)
    assert len(chosen) == min(count, most) and list(chosen) == sorted(set(chosen))
    if most > 1:
        steps = {b - a for a, b in pairwise(chosen)}
        assert (chosen[0], chosen[-1]) == (0, count - 1)
        assert not steps or max(steps) - min(steps) <= 1
    else:
        assert chosen == ((count - 1) // 2,)


@pytest.mark.parametrize("file", ["clip.gif", "a folder/frames", "/x/odd#video/b", "odd#frame=1/b.gif"])
def test_names_of_videos_and_frames_are_read_as_they_were_written(file: str) -> None:
    assert (video_of(video_name(file)), frame_of(video_name(file))) == (file, None)
    assert (video_of(frame_name(file, 12)), frame_of(frame_name(file, 12))) == (None, (file, 12))
    assert {file_of(file), file_of(video_name(file)), file_of(frame_name(file, 3))} == {file}
    assert (video_of(file), frame_of(file)) == (None, None)


def test_what_cannot_be_opened_is_said_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(200))
    with pytest.raises(
        PictureError, match=r"film.mp4: no video that is opened here.*ffmpeg -i .*film.mp4 FOLDER"
    ):
        frame_count(tmp_path / "film.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PictureError, match="empty: this folder holds no pictures"):
        frame_count(tmp_path / "empty")
    with pytest.raises(PictureError, match=r"nowhere\.gif: no such file"):
        frame_count(tmp_path / "nowhere.gif")
    for name in ("clip.gif", "clip"):
        video = write_video(tmp_path / name)
        with pytest.raises(PictureError, match="it has 6 frames, and there is no frame 6"):
            list(open_frames(video, [6]))
    whole = (tmp_path / "clip.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(PictureError, match=r"cut.gif"):
        list(open_frames(tmp_path / "cut.gif", range(6)))


def test_a_frame_takes_a_pooled_square_and_no_newline() -> None:
    policy = ImagePolicy("anyres")
    assert frame_layout(policy, TowerGeometry(336, 14)) == Layout(1, 144, pooled="average")
    assert frame_layout(ImagePolicy(pooling="bilinear"), TowerGeometry(384, 14)).tokens == 14 * 14
    assert frame_layout(ImagePolicy(pool=1), TowerGeometry(384, 14)).tokens == 27 * 27
    with pytest.raises(
        LlavakitError, match=r"27 features a side, which is no multiple of its pool of 2.*bilinear"
    ):
        frame_layout(policy, TowerGeometry(384, 14))
    with pytest.raises(LlavakitError, match="extra tokens a tile have no place"):
        frame_layout(policy, TowerGeometry(336, 14, extra_tokens=1))
    for wrong in ({"frames": 0}, {"pool": 0}, {"pooling": "max"}):
        with pytest.raises(LlavakitError, match="expected at least one frame"):
            ImagePolicy(**wrong)


@pytest.mark.parametrize("name", ["square", "pad", "anyres"])
def test_a_frame_is_padded_to_one_tile_under_every_policy(name: str) -> None:
    spec = PixelSpec(image_size=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    wide = Image.linear_gradient("L").convert("RGB").resize((60, 20))
    tiles = to_tiles(wide, ImagePolicy(name), spec, frame=True)
    assert tiles.shape == (1, 3, 16, 16)
    assert tiles.equal(to_tiles(wide, ImagePolicy("pad"), spec))
