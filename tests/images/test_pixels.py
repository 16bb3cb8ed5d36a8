"""Pictures open right or are refused with the reason; tiles are what the tower's own processor would make."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavakit.errors import LlavakitError
from llavakit.images import pixels
from llavakit.images.geometry import ImagePolicy
from llavakit.images.pixels import PictureError, PixelSpec, open_picture, picture_size, to_tiles

CLIP = PixelSpec(56, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SIGLIP = PixelSpec(56, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), crop=False)

WHITE, RED, GREEN, BLUE = (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def corners() -> Image.Image:
    """3 wide, 2 high: red at the upper left, green at the upper right, blue at the lower left."""
    image = Image.new("RGB", (3, 2), WHITE)
    image.putpixel((0, 0), RED)
    image.putpixel((2, 0), GREEN)
    image.putpixel((0, 1), BLUE)
    return image


def colours(image: Image.Image) -> list[tuple[int, ...]]:
    return [tuple(colour) for row in np.asarray(image).tolist() for colour in row]


# Opening right


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_upright_whatever_its_exif_orientation(kind: str, orientation: int) -> None:
    # How each orientation stores an upright picture: the opposite turn of the one that shows it.
    opposite = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # numbers of Image.Transpose
    stored = corners()
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(opposite[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(stored, kind, exif=exif, **options)
    picture = open_picture(data)
    assert picture_size(data) == picture.size == (3, 2)
    assert colours(picture) == colours(corners())


def test_jpeg_orientation_is_read_from_the_header() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise(40, 20), "JPEG", exif=exif)
    assert picture_size(data) == open_picture(data).size == (20, 40)
    assert picture_size(data[:-100]) == (20, 40)  # the header alone: the end is missing


def test_exif_after_the_pixels_of_a_png_is_not_searched_for() -> None:
    """Searching would decode every PNG's pixels for its size."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise(40, 20), "PNG", exif=exif)
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    late = data.replace(chunk, b"").replace(data[-12:], chunk + data[-12:])
    assert picture_size(data) == open_picture(data).size == (20, 40)
    assert picture_size(late) == open_picture(late).size == (40, 20)


def test_exif_that_cannot_be_parsed_says_nothing() -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n4\nno hex digits")
    words = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x02\x00\x00\x00\x04up\x00\x00"
    for data in (
        encoded(noise(40, 20), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"),
        encoded(noise(40, 20), "JPEG", exif=words),
        encoded(noise(40, 20), "PNG", pnginfo=text),
    ):
        assert picture_size(data) == open_picture(data).size == (40, 20)


def test_transparency_is_composited_on_white() -> None:
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    assert open_picture(half).getpixel((0, 0)) == (255, 127, 127)
    hidden = Image.new("RGBA", (1, 1), (255, 0, 0, 0))
    assert open_picture(encoded(hidden)).getpixel((0, 0)) == WHITE
    grey = Image.new("LA", (1, 1), (0, 0))
    assert open_picture(encoded(grey)).getpixel((0, 0)) == WHITE
    assert open_picture(Image.new("La", (1, 1), (0, 0))).getpixel((0, 0)) == WHITE


def test_palettes_with_and_without_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    assert colours(open_picture(encoded(image))) == [RED, BLUE]
    assert colours(open_picture(encoded(image, transparency=0))) == [WHITE, BLUE]
    assert colours(open_picture(encoded(image, "GIF", transparency=1))) == [RED, WHITE]


def test_a_transparent_colour_is_transparent() -> None:
    assert colours(open_picture(encoded(corners(), transparency=RED)))[0] == WHITE
    grey = Image.new("L", (1, 1), 7)
    assert open_picture(encoded(grey, transparency=7)).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize(
    ("value", "shown"), [(0, 0), (257 * 100, 100), (65535, 255), (300, 1), (128, 0), (129, 1)]
)
def test_16_bit_greys_keep_their_range(value: int, shown: int) -> None:
    values = np.full((2, 3), value, dtype=np.uint16)
    little, big = Image.fromarray(values), Image.frombytes("I;16B", (3, 2), values.astype(">u2").tobytes())
    for source in (
        little,
        big,
        encoded(little),
        encoded(little, "TIFF"),
        Image.fromarray(values.astype(np.int32)),
    ):
        assert open_picture(source).getpixel((1, 1)) == (shown, shown, shown)


def test_a_transparent_16_bit_grey_is_white() -> None:
    data = encoded(Image.fromarray(np.full((1, 1), 9, dtype=np.uint16)), transparency=9)
    assert open_picture(data).getpixel((0, 0)) == WHITE


def test_1_bit_grey_cmyk_and_ycbcr_pictures() -> None:
    assert open_picture(encoded(Image.new("1", (1, 1), 1))).getpixel((0, 0)) == WHITE
    assert open_picture(encoded(Image.new("L", (1, 1), 9))).getpixel((0, 0)) == (9, 9, 9)
    cmyk = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    red, green, blue = open_picture(cmyk).getpixel((4, 4))
    assert red > 250 and green < 5 and blue < 5
    assert open_picture(corners().convert("YCbCr")).size == (3, 2)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_the_picture(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert open_picture(data).getpixel((4, 4)) == RED


def test_a_picture_given_in_memory_is_copied_not_changed() -> None:
    image = corners()
    opened = open_picture(image)
    opened.putpixel((0, 0), BLUE)
    assert image.getpixel((0, 0)) == RED


def test_an_opened_picture_no_longer_needs_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    corners().save(path)
    picture = open_picture(path)
    path.unlink()
    assert picture.getpixel((0, 0)) == RED


# Refusing


def test_what_is_not_there_or_empty_or_no_picture_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "folder.jpg").mkdir()
    reasons = {
        "gone.jpg": "no such file",
        "empty.jpg": "the file is empty",
        "page.jpg": "not a picture",
        "folder.jpg": "this is a folder",
    }
    for name, reason in reasons.items():
        for use in (picture_size, open_picture):
            with pytest.raises(PictureError, match=f"{name}: {reason}"):
                use(tmp_path / name)
    with pytest.raises(PictureError, match="empty"):
        open_picture(b"")
    with pytest.raises(PictureError, match="cannot be read"):
        open_picture("a\0b.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_a_picture_cut_short_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "short.jpg"
    data = encoded(noise(64, 64), kind)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(PictureError, match=r"short\.jpg: the picture is damaged or cut short"):
        open_picture(path)


def test_a_chunk_with_a_wrong_length_is_refused() -> None:
    data = bytearray(encoded(noise(64, 64)))
    start = data.index(b"IDAT") - 4
    half = int.from_bytes(data[start : start + 4], "big") // 2
    data[start : start + 4] = half.to_bytes(
        4, "big"
    )  # the next chunk is looked for in the middle of this one
    with pytest.raises(PictureError, match=r"damaged or cut short \(SyntaxError: broken PNG"):
        open_picture(bytes(data))


def bomb() -> bytes:
    """A PNG of a few bytes whose header promises 100000 x 100000 pixels."""
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def test_a_decompression_bomb_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    for use in (picture_size, open_picture):
        with pytest.raises(PictureError, match="pixels"):
            use(bomb())
    monkeypatch.setattr(pixels, "MAX_PIXELS", 63 * 64)
    with pytest.raises(PictureError, match="64x64 pixels is more than the 4032"):
        picture_size(encoded(noise(64, 64)))


def test_pixels_without_an_agreed_white_are_refused() -> None:
    for values in (
        np.ones((2, 2), np.float32),
        np.full((2, 2), 70_000, np.int32),
        np.full((2, 2), -1, np.int32),
    ):
        with pytest.raises(PictureError, match=r"pixels.*, and nothing says which value is white"):
            open_picture(encoded(Image.fromarray(values), "TIFF"))


def test_no_format_is_opened_that_starts_another_program() -> None:
    with pytest.raises(PictureError, match="not a picture"):
        open_picture(encoded(corners(), "EPS"))


SAMPLES = [encoded(noise(12, 9), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")]


@settings(max_examples=300, deadline=None)
@given(
    data=st.sampled_from(SAMPLES),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8),
)
def test_damaged_bytes_give_a_picture_or_a_picture_error(data: bytes, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(data)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    try:
        picture = open_picture(bytes(damaged))
    except PictureError:
        return
    assert picture.mode == "RGB"
    assert picture.size == picture_size(bytes(damaged))


# Tiles


def processor_of(spec: PixelSpec) -> Any:
    """The processor of transformers with these numbers."""
    from transformers import CLIPImageProcessorPil

    side = {"height": spec.image_size, "width": spec.image_size}
    return CLIPImageProcessorPil(
        size={"shortest_edge": spec.shortest_edge} if spec.crop else side,
        crop_size=side,
        do_center_crop=spec.crop,
        image_mean=list(spec.mean),
        image_std=list(spec.std),
        resample=spec.resample,
    )


SIZES = [
    (1, 1),
    (1, 40),
    (56, 56),
    (57, 56),
    (56, 57),
    (640, 480),
    (333, 500),
    (100, 101),
    (31, 200),
    (900, 17),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "spec",
    [CLIP, SIGLIP, PixelSpec(56, CLIP.mean, CLIP.std, resample=2, shortest_edge=64)],
    ids=["clip", "siglip", "dinov2"],
)
def test_square_is_the_processor_of_transformers(size: tuple[int, int], spec: PixelSpec) -> None:
    image = noise(*size)
    theirs = processor_of(spec)(image, return_tensors="np")["pixel_values"]
    ours = to_tiles(image, ImagePolicy("square"), spec).numpy()
    assert ours.shape == (1, 3, 56, 56) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("spec", [CLIP, SIGLIP], ids=["clip", "siglip"])
def test_pad_is_a_square_of_the_mean_colour_then_the_processor(
    size: tuple[int, int], spec: PixelSpec
) -> None:
    # Built another way than the code under test: an array of the mean colour, the picture written into it.
    image = noise(*size)
    long, short = max(size), min(size)
    square = np.full((long, long, 3), [int(255 * value) for value in spec.mean], dtype=np.uint8)
    offset = (long - short) // 2
    left, top = (offset, 0) if size[0] < size[1] else (0, offset)
    square[top : top + size[1], left : left + size[0]] = np.asarray(image)
    theirs = processor_of(spec)(Image.fromarray(square), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(to_tiles(image, ImagePolicy("pad"), spec).numpy(), theirs, rtol=0, atol=1e-6)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(LlavakitError, match="'stretch' is not known"):
        to_tiles(corners(), ImagePolicy("stretch"), CLIP)


@pytest.mark.parametrize("policy", ["square", "pad"])
@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 9000), (9000, 2)], ids=str)
def test_a_very_long_picture_becomes_a_tile(policy: str, size: tuple[int, int]) -> None:
    tile = to_tiles(Image.new("RGB", size, RED), ImagePolicy(policy), CLIP)
    assert tile.shape == (1, 3, 56, 56)
    if policy == "square":
        assert (tile[0, 0] == tile[0, 0, 0, 0]).all()


@pytest.mark.parametrize("size", [(40, 900), (700, 33), (57, 200), (57, 2000)], ids=str)
def test_scaling_only_what_is_kept_is_nearly_the_same(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = PixelSpec(56, (0, 0, 0), (1, 1, 1))
    whole = to_tiles(noise(*size), ImagePolicy("square"), spec)
    monkeypatch.setattr(pixels, "_ROOM", 0)
    part = to_tiles(noise(*size), ImagePolicy("square"), spec)
    assert (whole - part).abs().mean() < 0.5 / 255


def test_no_square_larger_than_the_limit_is_put_behind_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [noise(*size) for size in [(1, 101), (3, 950), (100, 40)]]
    made: list[tuple[int, int]] = []
    new = Image.new
    monkeypatch.setattr(pixels, "_LONGEST_PADDED", 100)
    monkeypatch.setattr(
        pixels.Image, "new", lambda mode, size, *rest: made.append(size) or new(mode, size, *rest)
    )
    for image in images:
        to_tiles(image, ImagePolicy("pad"), CLIP)
    assert made == [(51, 51), (95, 95), (100, 100)]


def test_a_picture_shrunk_before_padding_is_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.effect_mandelbrot((1200, 800), (-2, -1, 1, 1), 50).convert("RGB")
    spec = PixelSpec(56, (0, 0, 0), (1, 1, 1))
    whole = to_tiles(image, ImagePolicy("pad"), spec)
    monkeypatch.setattr(pixels, "_LONGEST_PADDED", 600)
    assert (whole - to_tiles(image, ImagePolicy("pad"), spec)).abs().mean() < 2 / 255
