"""Frames of short videos: how many there are, which of them are shown, and their pixels.

A video is an animated GIF, WebP or PNG, a TIFF of several pages, or a folder of pictures in the order of their names
(numbers in names count as numbers; files whose ending is no picture's are passed over). Nothing but PIL decodes it, so
the containers of films are refused with the way out of them. Pictures and frames are opened here by the names that a
conversation has for them.

Knows PIL and the names in the record. Knows no towers and no policies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from llavakit.conversation.record import file_of, frame_name, frame_of
from llavakit.images.pixels import (
    FORMATS,
    PictureError,
    open_picture,
    opened,
    picture_size,
    shown_size,
    upright,
)


def frame_count(video: str | Path) -> int:
    """How many frames a video has; 1 for a picture that stands still.

    Raises PictureError when it is missing, damaged, empty, or of a format that PIL does not open.
    """
    if Path(video).is_dir():
        return len(_pictures(Path(video)))
    with _video(video) as image:
        return int(getattr(image, "n_frames", 1))


def sampled(count: int, most: int) -> tuple[int, ...]:
    """Which of `count` frames are shown when at most `most` are: all, or evenly spread ones with the first and last;
    the middle one where only one may be."""
    if count <= most:
        return tuple(range(count))
    if most == 1:
        return ((count - 1) // 2,)
    return tuple(number * (count - 1) // (most - 1) for number in range(most))


def open_frames(video: str | Path, numbers: Iterable[int]) -> Iterator[Image.Image]:
    """Frames of a video in RGB, in this order and one at a time, each as `open_picture` gives pictures.

    Raises PictureError when one is damaged or the video has no such frame.
    """
    if Path(video).is_dir():
        files = _pictures(Path(video))
        yield from (open_picture(_numbered(files, number, video)) for number in numbers)
        return
    with _video(video) as image:
        for number in numbers:
            _seek(image, number, video)
            yield upright(image, frame_name(str(video), number))


def open_pictures(names: Sequence[str]) -> list[Image.Image]:
    """The pictures that a conversation names, frames among them; a video is opened once for a run of its frames.

    Raises PictureError as `open_picture` does.
    """
    pictures: list[Image.Image] = []
    for (file, is_frame), group in groupby(
        names, key=lambda name: (file_of(name), frame_of(name) is not None)
    ):
        if is_frame:
            pictures += open_frames(file, [frame[1] for name in group if (frame := frame_of(name))])
        else:
            pictures += [open_picture(name) for name in group]
    return pictures


def named_size(name: str) -> tuple[int, int]:
    """(width, height) of a picture or a frame by its name in a conversation, as `picture_size` gives it."""
    frame = frame_of(name)
    if frame is None:
        return picture_size(name)
    video, number = frame
    if Path(video).is_dir():
        return picture_size(_numbered(_pictures(Path(video)), number, video))
    with _video(video) as image:
        if image.format == "TIFF":  # whose pages may differ; an animation's frames have one size
            _seek(image, number, video)
        return shown_size(image)


@contextmanager
def _video(video: str | Path) -> Iterator[Image.Image]:
    try:
        with opened(video) as image:
            yield image
    except PictureError as error:
        if not isinstance(error.__cause__, UnidentifiedImageError):
            raise
        raise PictureError(
            f"{video}: no video that is opened here, which are animated GIF, WebP and PNG, TIFF of several pages, and "
            f"folders of pictures; extract its frames into a folder and name that: ffmpeg -i {video} FOLDER/%05d.png"
        ) from error


def _seek(image: Image.Image, number: int, video: str | Path) -> None:
    count = int(getattr(image, "n_frames", 1))
    if number >= count:
        raise PictureError(f"{video}: it has {count} frames, and there is no frame {number} (counted from 0)")
    if count > 1:
        image.seek(number)


def _pictures(folder: Path) -> list[Path]:
    """The pictures of a folder by name. Raises PictureError when there are none."""
    endings = {ending for ending, form in Image.registered_extensions().items() if form in FORMATS}
    try:
        files = [path for path in folder.iterdir() if path.suffix.lower() in endings and path.is_file()]
    except OSError as error:
        raise PictureError(f"{folder}: cannot be read ({error.strerror or error})") from error
    if not files:
        raise PictureError(f"{folder}: this folder holds no pictures, expected the frames of a video")
    return sorted(files, key=lambda path: [_order(piece) for piece in re.split(r"(\d+)", path.name)])


def _order(piece: str) -> tuple[int, int, str]:
    return (0, int(piece), "") if piece.isdecimal() else (1, 0, piece)


def _numbered(files: Sequence[Path], number: int, video: str | Path) -> Path:
    if number >= len(files):
        raise PictureError(
            f"{video}: it has {len(files)} frames, and there is no frame {number} (counted from 0)"
        )
    return files[number]
