"""What is read from the configurations that stand beside vision towers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llavakit.errors import LlavakitError
from llavakit.images.pixels import PixelSpec

NUMBERS = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2], "resample": 2}


def read(**config: Any) -> tuple[int, bool, int]:
    spec = PixelSpec.from_config({**NUMBERS, **config}, fallback_size=99)
    return spec.image_size, spec.crop, spec.shortest_edge


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # CLIP, as saved by older and by newer versions of transformers
        ({"size": 224, "crop_size": 224, "do_center_crop": True}, (224, True, 224)),
        ({"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}, (336, True, 336)),
        # DINOv2: scaled to 256, 224 cut out
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, (224, True, 256)),
        # SigLIP, and ViT as older versions saved it
        ({"size": {"height": 384, "width": 384}}, (384, False, 384)),
        (
            {"size": {"height": 384, "width": 384}, "do_center_crop": None, "crop_size": None},
            (384, False, 384),
        ),
        ({"size": 224}, (224, False, 224)),
        # a crop to the size that a squeezed picture already has
        ({"size": {"height": 64, "width": 64}, "crop_size": 64, "do_center_crop": True}, (64, False, 64)),
        # a processor that keeps the picture's shape: a tile is a square
        ({"size": {"shortest_edge": 224}, "do_center_crop": False}, (224, True, 224)),
        ({}, (99, True, 99)),
    ],
)
def test_sizes_and_crops(config: dict[str, Any], expected: tuple[int, bool, int]) -> None:
    assert read(**config) == expected
    assert PixelSpec.from_config({"image_processor": {**NUMBERS, **config}}, 99).image_size == expected[0]


def test_mean_spread_and_filter() -> None:
    spec = PixelSpec.from_config({**NUMBERS, "size": 8}, 8)
    assert (spec.mean, spec.std, spec.resample) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2), 2)
    plain = PixelSpec.from_config({"size": 8, "do_normalize": False}, 8)
    assert (plain.mean, plain.std, plain.resample) == ((0, 0, 0), (1, 1, 1), 3)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"size": {"height": 224, "width": 336}}, "size is .*expected a number"),
        ({"size": {"longest_edge": 224}}, "size is .*expected a number"),
        ({"size": {"height": 346, "width": 346}, "crop_size": 289}, "cutting out of a squeezed picture"),
        ({"size": {"shortest_edge": 224}, "crop_size": 256}, "tile of 256 pixels .* shorter side is 224"),
        ({"size": 8, "image_mean": None}, "image_mean is None, expected three numbers"),
        ({"size": 8, "image_std": [0.5]}, "image_std is .*expected three numbers"),
        ({"size": 8, "image_std": [0.5, 0.5, 0]}, "std above 0"),
        ({"size": 8, "rescale_factor": 1 / 127.5}, "rescale_factor is 0.0078"),
        ({"size": 8, "do_rescale": False}, "do_rescale true"),
        ({"size": 8, "resample": 17}, "resample 17"),
    ],
)
def test_what_a_square_tile_cannot_have_is_refused(config: dict[str, Any], expected: str) -> None:
    with pytest.raises(LlavakitError, match=expected):
        read(**config)


def test_the_mean_colour_of_clip_is_llavas() -> None:
    clip = PixelSpec(336, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    assert clip.mean_colour == (122, 116, 104)


def test_the_table_holds_what_each_value_becomes() -> None:
    table = PixelSpec(8, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)).table()
    assert table.shape == (3, 256) and table.dtype == np.float32
    np.testing.assert_allclose(table[:, 0], [-1, -1.6, -1.5], atol=1e-6)
    np.testing.assert_allclose(table[:, 255], [1, 2.4, 3.5], atol=1e-6)
