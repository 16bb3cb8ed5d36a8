"""Integers about pictures: how many positions a picture takes, and where it is cropped or padded.

Pure functions of (width, height) and of the tower's numbers; no picture is opened here, and neither PIL nor torch is
known. The data index counts with `token_count`, the model splices with it, and `pixels` crops and pads with the rest,
so that what is counted is what is made.

Sizes are (width, height) in pixels, after EXIF orientation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from llavakit.errors import LlavakitError

POLICIES = ("square", "pad")


class Box(NamedTuple):
    """A rectangle in pixels; `right` and `bottom` lie just outside, as PIL counts."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, slots=True)
class TowerGeometry:
    """What of a vision tower decides the number of features of one tile.

    image_size: side of the square tile in pixels. patch_size: side of a patch; pixels that do not fill a patch are
    ignored, as the tower's convolution does (384 by 14 gives 27 x 27). extra_tokens: features kept beside those of
    the patches, 1 for `cls_patch` on a tower with a class token.
    """

    image_size: int
    patch_size: int
    extra_tokens: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.patch_size <= self.image_size or self.extra_tokens < 0:
            raise LlavakitError(
                f"a vision tower cannot have image_size {self.image_size}, patch_size {self.patch_size} and "
                f"{self.extra_tokens} extra tokens; expected 1 <= patch_size <= image_size and no negative number"
            )

    @property
    def side(self) -> int:
        """Patches along one side of a tile."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """Patches of a tile."""
        return self.side * self.side

    @property
    def tokens(self) -> int:
        """Features of a tile: its patches and the extra tokens."""
        return self.patches + self.extra_tokens


def check_policy(policy: str) -> None:
    """Raises LlavakitError, naming the policies there are, for any other."""
    if policy not in POLICIES:
        raise LlavakitError(f"image policy {policy!r} is not known; expected one of {', '.join(POLICIES)}")


def token_count(policy: str, tower: TowerGeometry, width: int, height: int) -> int:
    """Positions that a picture of this size takes in the sequence.

    `square` and `pad` make one tile of every picture, so the size only has to be one that a picture can have.
    Raises LlavakitError for an unknown policy or an impossible size.
    """
    check_policy(policy)
    _check_size(width, height)
    return tower.tokens


def shortest_edge_size(width: int, height: int, edge: int) -> tuple[int, int]:
    """(width, height) after scaling so that the shorter side is `edge`; the longer one is rounded down.

    The rule of the CLIP image processor (`size: {shortest_edge: ...}`).
    """
    _check_size(width, height)
    if width <= height:
        return edge, edge * height // width
    return edge * width // height, edge


def centre_crop_box(width: int, height: int, size: int) -> Box:
    """The `size` x `size` square in the middle, half a pixel to the upper left where it cannot be exactly there.

    The rule of the CLIP image processor (`do_center_crop`). Raises LlavakitError when the picture is smaller.
    """
    if min(width, height) < size:
        raise LlavakitError(
            f"a square of {size} pixels cannot be cropped out of a picture of {width}x{height}"
        )
    left, top = (width - size) // 2, (height - size) // 2
    return Box(left, top, left + size, top + size)


def square_crop_box(width: int, height: int) -> Box:
    """The part of a picture that the `square` policy can see, in its own pixels: the largest square in the middle."""
    _check_size(width, height)
    return centre_crop_box(width, height, min(width, height))


def pad_box(width: int, height: int) -> tuple[int, Box]:
    """(side of the square, where the picture stands in it) when a picture is padded to a square.

    The picture stands in the middle, at (long - short) // 2: one pixel less before than after when that is odd. The
    rule of LLaVA's `expand2square`.
    """
    _check_size(width, height)
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    return side, Box(left, top, left + width, top + height)


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise LlavakitError(f"a picture cannot be {width}x{height} pixels")
