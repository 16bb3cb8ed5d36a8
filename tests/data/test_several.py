"""Several pictures and videos in one conversation, from the row to the pack: what is counted is what is loaded."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from llavakit.data.doctor import check
from llavakit.data.index import open_index
from llavakit.data.loader import PackDataset
from llavakit.data.plan import plan_stage
from llavakit.images.frames import open_frames
from llavakit.images.pixels import open_picture, to_tiles
from llavakit.images.spec import PixelSpec
from llavakit.model.packed import IMAGE_TOKEN_ID, Pack
from tests.data.conftest import stage, writing_of
from tests.training.materials import write_rows

PIXELS = PixelSpec(image_size=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
WIDE = {"max_length": 900, "batch": {"tokens": 2000, "pack": 2000}, "template": "vicuna_v1"}


def paint(root: Path) -> None:
    """Pictures a, b and c of three shapes; a video of ten frames and one of three, as a file and as a folder."""
    for number, (name, size) in enumerate({"a": (40, 20), "b": (20, 40), "c": (16, 16)}.items()):
        Image.effect_noise(size, 40 + number).convert("RGB").save(root / f"{name}.png")
    frames = [Image.new("RGB", (24, 12), (25 * n, 255 - 25 * n, 7)) for n in range(10)]
    frames[0].save(root / "long.gif", save_all=True, append_images=frames[1:])
    (root / "short").mkdir()
    for number in range(3):
        frames[number].save(root / "short" / f"{number}.png")


def row(name: str, *said: str, **shown: Any) -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[n % 2], "value": value} for n, value in enumerate(said)]
    return {"id": name, **shown, "conversations": turns}


def dataset(root: Path, rows: list[dict[str, Any]], tokenizer: Any, **changes: Any) -> PackDataset:
    chosen = stage(write_rows(root / "rows.json", rows), **{**WIDE, **changes})
    writing = writing_of(chosen, tokenizer)
    index, shelf = open_index(chosen.data, writing, root / "indexes")
    again, other = open_index(chosen.data, writing, root / "indexes")
    assert again == index and [other[n] for n in range(len(other))] == [shelf[n] for n in range(len(shelf))]
    plan = plan_stage(index.lengths, pack=2000, batch=2000, epochs=1, seed=0)
    return PackDataset(plan.packs, index, shelf, writing, PIXELS, 0)


def only_pack(packs: PackDataset) -> Pack:
    loaded = packs[0]
    assert len(packs) == 1 and loaded.failure is None and not loaded.dropped and loaded.pack is not None
    return loaded.pack


@pytest.mark.parametrize(
    ("policy", "several", "tiles"),
    [("square", "pad", [1, 1, 1]), ("pad", "pad", [1, 1, 1]), ("anyres", "pad", [1, 1, 1]), ("anyres", "anyres", [3, 3, 3])],
)  # fmt: skip
def test_pictures_in_a_turn_and_over_turns_are_tiled_as_the_policy_says_of_several(
    tmp_path: Path, tokenizer: Any, policy: str, several: str, tiles: list[int]
) -> None:
    paint(tmp_path)
    said = ("<image>\n<image>\nWhich?", "First.", "And <image>?", "Third.")
    rows = [row("three", *said, image=["a.png", "b.png", "c.png"])]
    packs = dataset(tmp_path, rows, tokenizer, image_policy=policy, anyres={"several": several})
    pack = only_pack(packs)
    assert [shape.tiles for shape in pack.layouts[0]] == tiles
    assert int((pack.ids_T == IMAGE_TOKEN_ID).sum()) == sum(shape.tokens for shape in pack.layouts[0])
    assert pack.cu_seqlens[-1] == packs.index.rows[0].length and packs.index.rows[0].pictures == 3
    chosen = packs.writing.image_policy
    expected = [to_tiles(open_picture(tmp_path / f"{name}.png"), chosen, PIXELS, 3) for name in "abc"]
    assert pack.tiles_NCHW is not None and torch.equal(pack.tiles_NCHW, torch.cat(expected))


def test_one_picture_is_cut_into_tiles_and_beside_a_second_it_is_not(tmp_path: Path, tokenizer: Any) -> None:
    paint(tmp_path)
    rows = [
        row("one", "<image>\nWhat?", "A.", image="a.png"),
        row("two", "<image>\n<image>\nWhat?", "A.", image=["a.png", "b.png"]),
        row("with a video", "<image>\n<video>\nWhat?", "A.", image="a.png", video="short"),
    ]
    packs = dataset(tmp_path, rows, tokenizer, image_policy="anyres")
    pack = only_pack(packs)
    shapes = dict(zip(pack.sample_ids, pack.layouts, strict=True))
    tiles = [[one.tiles for one in shapes[packs.index.name(row)]] for row in packs.index.rows]
    assert tiles == [[3], [1, 1], [3, 1, 1, 1]], "frames of a video are not further pictures"


def test_a_video_is_shown_by_evenly_spread_frames_pooled_in_the_pack(tmp_path: Path, tokenizer: Any) -> None:
    paint(tmp_path)
    rows = [
        row("v", "<video>\nWhat moves?", "Nothing.", video="long.gif"),
        row(
            "w", "<video>\nAnd <video>?", "No.", "<image>", "Yes.", video=["short", "long.gif"], image="a.png"
        ),
    ]
    packs = dataset(tmp_path, rows, tokenizer, image_policy="square", video={"frames": 4})
    first, second = packs.index.rows
    assert (first.pictures, first.videos, first.frames, first.frames_found) == (0, 1, 4, 10)
    assert (second.pictures, second.videos, second.frames, second.frames_found) == (1, 2, 7, 13)
    sampled = packs.index.sampled
    assert (sampled.videos, sampled.frames, sampled.found) == (3, 11, 23)
    pack = only_pack(packs)
    lengths = [end - start for start, end in pairwise(pack.cu_seqlens)]
    assert sorted(lengths) == sorted(packs.index.lengths)
    place = next(n for n, name in enumerate(pack.sample_ids) if "id v" in name)
    assert [(one.tiles, one.tokens, one.pooled) for one in pack.layouts[place]] == [(1, 1, "average")] * 4
    start = sum(one.tiles for some in pack.layouts[:place] for one in some)
    frames = open_frames(tmp_path / "long.gif", [0, 3, 6, 9])
    expected = torch.cat(
        [to_tiles(frame, packs.writing.image_policy, PIXELS, frame=True) for frame in frames]
    )
    assert pack.tiles_NCHW is not None and torch.equal(pack.tiles_NCHW[start : start + 4], expected)


def test_videos_that_cannot_be_used_leave_with_their_reason(tmp_path: Path, tokenizer: Any) -> None:
    paint(tmp_path)
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    rows = [
        row("good", "<video>\nWhat?", "A.", video="long.gif"),
        row("film", "<video>\nWhat?", "A.", video="film.mp4"),
        row("gone", "<video>\nWhat?", "A.", video="gone.gif"),
    ]
    packs = dataset(tmp_path, rows, tokenizer)
    assert [one.id for one in packs.index.rows] == ["good"]
    reasons = {one.id: (one.kind, one.reason) for one in packs.index.skipped}
    assert reasons["film"][0] == reasons["gone"][0] == "picture"
    assert "ffmpeg -i" in reasons["film"][1] and "no such file" in reasons["gone"][1]
    found = check(tmp_path / "rows.json")
    assert (found.videos, found.pictures, found.conversations) == (3, 0, 1)
    assert [one.reason for one in found.findings] == [reasons["film"][1], reasons["gone"][1]]
