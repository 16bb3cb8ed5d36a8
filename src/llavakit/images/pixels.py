"""Pixels: opening a picture safely, and making the tile that a vision tower reads.

Knows PIL and numpy; torch is touched only to hand the tile over. Does not know where pictures come from, which tower
reads them, or what a conversation is. Whatever is wrong with a picture is a PictureError that names it and says why.

What opening means:
- EXIF orientation is applied. (An EXIF block that cannot be parsed, or that stands after a PNG's pixels, says nothing.)
- Transparency is composited on white, the page on which a person would see the picture.
- 16-bit greys keep their range: 65535 is white. 32-bit integers beyond it and floating-point pixels are refused, for
  nothing says which of their values is white.
- Of an animation, the first frame is the picture; `frames` opens the others.
- Only formats that PIL decodes itself are opened; none that would start another program.

N tiles, C channels, H W pixels.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from llavakit.errors import LlavakitError
from llavakit.images.geometry import (
    ImagePolicy,
    centre_crop_box,
    choose_grid,
    fitted_box,
    pad_box,
    shortest_edge_size,
)
from llavakit.images.spec import PixelSpec

if TYPE_CHECKING:
    import torch

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "PictureError",
    "PixelSpec",
    "open_picture",
    "opened",
    "picture_size",
    "shown_size",
    "to_tiles",
    "upright",
]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA")

# 400 MB of decoded RGB: more than any camera's photograph, less than what a worker process cannot hold.
MAX_PIXELS = 2**27

# Past these many pixels a step towards the tile is done in another order, see _square and _padded.
_ROOM = 2**25
_LONGEST_PADDED = 8192

# What PIL's decoders are known to raise on bytes that are not what they claim.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

_NO_WHITE = "nothing says which value is white; save it with 8 or 16 bits a channel"

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Source = str | Path | bytes | Image.Image


class PictureError(LlavakitError):
    """A picture that cannot be used; the sentence names the file and the reason."""


def picture_size(source: Source) -> tuple[int, int]:
    """(width, height) of the picture that `open_picture` would give, read from its header alone.

    Raises PictureError for everything that a header can show: a missing or empty file, something that is no picture,
    one of too many pixels.
    """
    with opened(source) as image:
        return shown_size(image)


def open_picture(source: Source) -> Image.Image:
    """The picture in RGB, upright, wholly decoded and free of its file. A PIL image given is not changed.

    Raises PictureError when the picture is missing, empty, truncated, damaged, no picture, or too large.
    """
    with opened(source) as image:
        return upright(image, _name(source))


def shown_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an open PIL image when it stands upright; its pixels are not decoded."""
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 else (width, height)


def upright(image: Image.Image, name: str) -> Image.Image:
    """An open PIL image in RGB, upright and wholly decoded, as a picture of its own; called `name` in messages."""
    turn = _TURNS.get(_orientation(image))
    image.load()
    picture = _rgb(image, name)
    if turn is not None:
        picture = picture.transpose(turn)
    return picture.copy() if picture is image else picture


def to_tiles(
    image: Image.Image, policy: ImagePolicy, spec: PixelSpec, pictures: int = 1, *, frame: bool = False
) -> torch.Tensor:
    """Makes the tiles of an RGB picture: float32 NCHW, normalised, N as `geometry.layout` says.

    square: the tower's own processor. With `spec.crop`, the shorter side is scaled to `spec.shortest_edge` and the
    middle is cut out, so the ends of a long picture are not seen (CLIP, and so LLaVA v1 and stage 1 of v1.5);
    without it the picture is squeezed to the tile, so all is seen, out of proportion (SigLIP).
    pad: a square of the mean colour is put behind the picture, then scaled to the tile: all is seen, in proportion
    (LLaVA v1.5 stage 2).
    anyres: the picture squeezed to one tile; then the picture scaled to fit into its grid, set in the middle on
    black, and cut into the grid's tiles, row by row (LLaVA v1.6).

    pictures: how many the conversation has, on which it may depend whether `anyres` cuts tiles. frame: the picture is
    a frame of a video, which is padded to one tile under any policy.
    """
    import torch

    table = spec.table()
    if frame:
        tiles = [_padded(image, spec)]
    else:
        tiles = _tiled(image, policy, spec) if policy.tiling(pictures) else [_whole(image, policy.name, spec)]
    tiles_NCHW = np.empty((len(tiles), 3, spec.image_size, spec.image_size), dtype=np.float32)
    for number, tile in enumerate(tiles):
        pixels_HWC = np.asarray(tile)
        for channel in range(3):
            tiles_NCHW[number, channel] = table[channel][pixels_HWC[:, :, channel]]
    return torch.from_numpy(tiles_NCHW)


def _whole(image: Image.Image, policy: str, spec: PixelSpec) -> Image.Image:
    """The one tile of a picture; under `anyres`, where there are several pictures, each is padded."""
    return _square(image, spec) if policy == "square" else _padded(image, spec)


def _tiled(image: Image.Image, policy: ImagePolicy, spec: PixelSpec) -> list[Image.Image]:
    size, resample = spec.image_size, Image.Resampling(spec.resample)
    grid = choose_grid(policy.grids, size, *image.size)
    wide, high = grid.columns * size, grid.rows * size
    box = fitted_box(*image.size, wide, high)
    page = Image.new("RGB", (wide, high))
    page.paste(image.resize((box.right - box.left, box.bottom - box.top), resample), (box.left, box.top))
    corners = [(x, y) for y in range(0, high, size) for x in range(0, wide, size)]
    cut = [page.crop((x, y, x + size, y + size)) for x, y in corners]
    return [image.resize((size, size), resample), *cut]


def _square(image: Image.Image, spec: PixelSpec) -> Image.Image:
    size, resample = spec.image_size, Image.Resampling(spec.resample)
    if not spec.crop:
        return image.resize((size, size), resample)
    width, height = shortest_edge_size(*image.size, spec.shortest_edge)
    box = centre_crop_box(width, height, size)
    if width * height <= _ROOM:
        return image.resize((width, height), resample).crop(box)
    # A picture so long that its scaled whole would not fit in memory: only the part that is kept is scaled. Values may
    # differ a little from those of the scaled whole, for PIL holds this box in 32-bit floats and may not look past it.
    across, down = image.width / width, image.height / height
    part = (box.left * across, box.top * down, box.right * across, box.bottom * down)
    return image.resize((size, size), resample, box=part)


def _padded(image: Image.Image, spec: PixelSpec) -> Image.Image:
    resample = Image.Resampling(spec.resample)
    shrink = -(-max(image.size) // _LONGEST_PADDED)
    if shrink > 1:  # the square behind the whole picture would not fit in memory
        image = image.reduce(shrink)
    side, box = pad_box(*image.size)
    if side != min(image.size):
        square = Image.new("RGB", (side, side), spec.mean_colour)
        square.paste(image, (box.left, box.top))
        image = square
    return image.resize((spec.image_size, spec.image_size), resample)


@contextmanager
def opened(source: Source) -> Iterator[Image.Image]:
    """The picture, its header read; what PIL raises while it is used becomes a PictureError."""
    name = _name(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # PIL warns of large pictures and odd metadata; the check is below
            image = (
                source
                if isinstance(source, Image.Image)
                else Image.open(_stream(source, name), formats=_formats())
            )
            try:
                if image.width * image.height > MAX_PIXELS:
                    raise PictureError(
                        f"{name}: {image.width}x{image.height} pixels is more than the {MAX_PIXELS} that a picture may "
                        f"have; scale it down"
                    )
                yield image
            finally:
                if image is not source:
                    image.close()
    except UnidentifiedImageError as error:
        known = ", ".join(_formats())
        raise PictureError(
            f"{name}: not a picture, or of a format that is not opened (opened are {known})"
        ) from error
    except Image.DecompressionBombError as error:
        raise PictureError(
            f"{name}: {error}; more than the {MAX_PIXELS} pixels that a picture may have"
        ) from error
    except _DECODER_ERRORS as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PictureError(f"{name}: the picture is damaged or cut short ({reason})") from error


@lru_cache(maxsize=1)
def _formats() -> list[str]:
    """Those of FORMATS that this build of PIL knows."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _name(source: Source) -> str:
    if isinstance(source, bytes):
        return f"a picture of {len(source)} bytes"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "a picture in memory")
    return str(source)


def _stream(source: str | Path | bytes, name: str) -> io.BytesIO | Path:
    if isinstance(source, bytes):
        if not source:
            raise PictureError(f"{name}: empty, there are no bytes to read")
        return io.BytesIO(source)
    path = Path(source)
    try:
        if path.is_dir():
            raise PictureError(f"{name}: this is a folder, expected a picture")
        if path.stat().st_size == 0:
            raise PictureError(f"{name}: the file is empty (0 bytes)")
        path.open("rb").close()
    except FileNotFoundError as error:
        raise PictureError(f"{name}: no such file") from error
    except (OSError, ValueError) as error:
        raise PictureError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    return path


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8, read without decoding pixels; 1 where PIL turns the picture itself (TIFF)."""
    if image.format == "TIFF":
        return 1
    try:
        # The plain method: that of PNG decodes all pixels in search of a block after them.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except _DECODER_ERRORS:
        return 1
    return value if value in _TURNS else 1


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _grey16(image, name)
    if image.mode == "F":
        raise PictureError(f"{name}: floating-point pixels, and {_NO_WHITE}")
    if "transparency" in image.info or image.mode in {"RGBA", "LA", "PA", "RGBa", "La"}:
        if image.mode == "La":
            image = image.convert("LA")
        over = image.convert("RGBA")
        page = Image.new("RGBA", over.size, (255, 255, 255, 255))
        return Image.alpha_composite(page, over).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey16(image: Image.Image, name: str) -> Image.Image:
    values_HW = np.asarray(image)
    lowest, highest = int(values_HW.min()), int(values_HW.max())
    if lowest < 0 or highest > 65535:
        raise PictureError(f"{name}: integer pixels from {lowest} to {highest}, and {_NO_WHITE}")
    grey = ((np.arange(65536) + 128) // 257).astype(np.uint8)  # rounded, and 65535 becomes 255
    if isinstance(image.info.get("transparency"), int):
        grey[image.info["transparency"]] = 255
    return Image.fromarray(grey[values_HW]).convert("RGB")
