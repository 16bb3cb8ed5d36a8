"""The numbers with which a vision tower wants its tile: size, filter, mean and spread.

`PixelSpec` is read from the configuration that stands beside every tower (`preprocessor_config.json`, or the
`image_processor` part of `processor_config.json`); the meaning of its keys is that of the image processors of
`transformers`. Knows neither PIL nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from llavakit.errors import LlavakitError

BICUBIC = 3  # PIL's number of the filter, as configurations hold it

Triple = tuple[float, float, float]
Table = np.ndarray[tuple[int, int], np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class PixelSpec:
    """How a picture becomes a tile.

    image_size: side of the tile. mean, std: of the channels, of values between 0 and 1. resample: PIL's number of
    the filter. crop: whether the tower's own processor scales the shorter side and cuts out the middle (CLIP, DINOv2)
    or squeezes the picture to the tile (SigLIP); only the `square` policy asks. shortest_edge: to what the shorter
    side is scaled before the cut; 0 means image_size.
    """

    image_size: int
    mean: Triple
    std: Triple
    resample: int = BICUBIC
    crop: bool = True
    shortest_edge: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shortest_edge", self.shortest_edge or self.image_size)
        if self.image_size < 1 or self.shortest_edge < self.image_size:
            raise LlavakitError(
                f"a tile of {self.image_size} pixels cannot be cut out of a picture whose shorter side is "
                f"{self.shortest_edge}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise LlavakitError(f"mean {self.mean} and std {self.std}: expected three of each, std above 0")
        if self.resample not in range(6):
            raise LlavakitError(f"resample {self.resample!r}: expected PIL's number of a filter, 0 to 5")

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The mean as an 8-bit colour, rounded down as LLaVA does: (122, 116, 104) for CLIP."""
        red, green, blue = (int(255 * value) for value in self.mean)
        return red, green, blue

    def table(self) -> Table:
        """float32 of shape (3, 256): what each 8-bit value of each channel becomes."""
        return _table(self.mean, self.std)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], fallback_size: int) -> PixelSpec:
        """Reads an image processor's configuration.

        fallback_size: side of the tile when the configuration names none (the tower's own `image_size`).

        A `size` with `shortest_edge`, or with a `crop_size` beside it, is cropped; any other is squeezed; without
        a `size` the crop is LLaVA's. `do_center_crop` decides where it is given, save that a tile is a square: a
        processor that would keep the shape of the picture is given the crop.

        Raises LlavakitError, naming the key, for what a square tile of three channels cannot have.
        """
        config = config.get("image_processor", config)
        rescale = config.get("rescale_factor", 1 / 255)
        if config.get("do_rescale", True) is False or abs(rescale - 1 / 255) > 1e-9:
            raise LlavakitError(
                f"image processor: rescale_factor is {rescale}, expected 1/255 with do_rescale true"
            )
        size, crop_size = config.get("size"), config.get("crop_size")
        edge = _side("size", size) or fallback_size
        keeps_shape = isinstance(size, Mapping) and "shortest_edge" in size
        cropped = config.get("do_center_crop")
        if cropped is None:
            cropped = crop_size is not None or size is None
        image_size = (_side("crop_size", crop_size) or edge) if cropped else edge
        if isinstance(size, Mapping) and not keeps_shape:
            if image_size != edge:
                raise LlavakitError(
                    f"image processor: size is {size} and crop_size {crop_size}; cutting out of a squeezed picture is "
                    f"not supported, expected a size with shortest_edge, or both alike"
                )
            cropped = False
        if config.get("do_normalize", True) is False:
            mean: Triple = (0.0, 0.0, 0.0)
            std: Triple = (1.0, 1.0, 1.0)
        else:
            mean, std = _three("image_mean", config), _three("image_std", config)
        resample = config.get("resample")
        return cls(
            image_size=image_size,
            mean=mean,
            std=std,
            resample=BICUBIC if resample is None else int(resample),
            crop=bool(cropped or keeps_shape),
            shortest_edge=edge,
        )


def _side(key: str, value: Any) -> int:
    """The side that `size` or `crop_size` names; 0 when it names none."""
    if value is None:
        return 0
    if isinstance(value, Mapping):
        if "shortest_edge" in value:
            return int(value["shortest_edge"])
        if "height" in value and value["height"] == value.get("width"):
            return int(value["height"])
    elif isinstance(value, int):
        return value
    raise LlavakitError(
        f"image processor: {key} is {value}, expected a number, shortest_edge, or a height and a width that are equal"
    )


def _three(key: str, config: Mapping[str, Any]) -> Triple:
    value = config.get(key)
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise LlavakitError(f"image processor: {key} is {value}, expected three numbers, one a channel")
    red, green, blue = (float(number) for number in value)
    return red, green, blue


@lru_cache(maxsize=16)
def _table(mean: Triple, std: Triple) -> Table:
    # The order of steps and the types are those of transformers, so that the values are the same to the last bit.
    values = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    table: Table = (values[None, :] - np.array(mean, np.float32)[:, None]) / np.array(std, np.float32)[
        :, None
    ]
    table.setflags(write=False)
    return table
