"""Short videos and many pictures in the model and in chat: pooled frames, and answers that depend on how all is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from llavakit.images.frames import open_frames
from llavakit.images.geometry import ImagePolicy, Layout, TowerGeometry, frame_layout
from llavakit.images.pixels import PictureError, to_tiles
from llavakit.model import generation
from llavakit.model.arrange import arrange
from llavakit.model.generation import Request
from llavakit.model.llava import Llava
from llavakit.model.packed import Tiled, count_pictures
from llavakit.model.session import ChatSession

from .conftest import PATCHES, tile
from .test_anyres import noise


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of twenty frames of noise."""
    path = tmp_path_factory.mktemp("videos") / "clip.gif"
    frames = [noise(40 + n, 30).resize((40, 30)) for n in range(20)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def test_a_frames_features_are_means_of_squares_of_four_in_reading_order() -> None:
    shape = frame_layout(ImagePolicy(), TowerGeometry(4, 1))
    features_NPD = torch.arange(32.0).view(2, 16, 1)
    rows = arrange(features_NPD, [shape, shape], torch.ones(1))
    assert rows.flatten().tolist() == [2.5, 4.5, 10.5, 12.5, 18.5, 20.5, 26.5, 28.5]
    bilinear = frame_layout(ImagePolicy(pooling="bilinear"), TowerGeometry(4, 1))
    torch.testing.assert_close(arrange(features_NPD, [bilinear, bilinear], torch.ones(1)), rows)
    odd = frame_layout(ImagePolicy(pooling="bilinear"), TowerGeometry(3, 1))
    pooled = arrange(torch.arange(9.0).view(1, 9, 1), [odd], torch.ones(1))
    assert pooled.flatten().tolist() == [1.0, 2.5, 5.5, 7.0]


def test_frames_and_pictures_stand_beside_each_other() -> None:
    picture, frame = Layout(1, 16), frame_layout(ImagePolicy(), TowerGeometry(4, 1))
    features_NPD = torch.randn(3, 16, 5)
    rows = arrange(features_NPD, [picture, frame, picture], torch.ones(5))
    assert torch.equal(rows[:16], features_NPD[0]) and torch.equal(rows[20:], features_NPD[2])
    assert count_pictures([tile(1), Tiled(tile(2).tiles_NCHW, frame), noise(4, 4)]) == 2


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What chats ask of the model."""
    requests: list[Request] = []
    embed = generation.prompt_embeddings

    def noted(model, several, features):
        requests.extend(several)
        return embed(model, several, features)

    monkeypatch.setattr("llavakit.model.session.prompt_embeddings", noted)
    return requests


@pytest.mark.parametrize("policy", ["square", "pad", "anyres"])
def test_a_chat_shows_a_video_by_its_pooled_frames(parts, clip: Path, asked, policy: str) -> None:
    model = Llava.compose(
        vision_tower=parts["clip"], language_model=parts["llama"], image_policy=ImagePolicy(policy, frames=5)
    )
    answer = model.chat("What moves?", videos=[clip], max_new_tokens=4)
    (request,) = asked
    assert [span.length for span in request.prompt.images] == [PATCHES // 4] * 5
    starts = [span.start for span in request.prompt.images]
    assert starts == list(range(starts[0], starts[0] + 5 * PATCHES // 4, PATCHES // 4))
    shown = open_frames(clip, [0, 4, 9, 14, 19])
    policy_ = model.settings.image_policy
    for found, frame in zip(request.pictures, shown, strict=True):
        assert torch.equal(found.tiles_NCHW, to_tiles(frame, policy_, model.pixels, frame=True))
    assert generation.generate(model, [request], max_new_tokens=4) == [answer]


def test_a_video_beside_a_picture_does_not_change_how_the_picture_is_shown(parts, clip: Path, asked) -> None:
    model = Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"], image_policy="anyres")
    session = ChatSession(model, max_new_tokens=3)
    session.ask("What is this?", [noise(64, 48)])
    session.ask("And what moves?", videos=[clip])
    request = asked[-1]
    single = model.image_length(64, 48, 1)
    assert [span.length for span in request.prompt.images] == [single, *[PATCHES // 4] * 8]


@pytest.mark.parametrize("several", ["pad", "anyres"])
def test_turns_with_pictures_and_videos_answer_as_if_all_was_read_again(
    parts, clip: Path, asked, several: str
) -> None:
    policy = ImagePolicy("anyres", several=several, frames=2)
    model = Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"], image_policy=policy)
    turns = [
        ("What is this?", [noise(64, 48)], []),
        ("And these?", [noise(30, 50), noise(33, 20)], [clip]),
        ("How many stars are there?", [], []),
        ("And here?", [], [clip, clip]),
    ]
    session = ChatSession(model, max_new_tokens=5)
    told: list[str] = []
    for question, images, videos in turns:
        told.append(session.ask(question, images, videos))
        afresh = ChatSession(model, max_new_tokens=5)
        for number, (old, pictures, films) in enumerate(turns[: len(told) - 1]):
            afresh._add_question(old, pictures, films)
            afresh._turns.append(session.turns[2 * number + 1])
        assert afresh.ask(question, images, videos) == told[-1]
    spans = [span.length for span in asked[-1].prompt.images]
    lengths = [model.image_length(*size, 3) for size in ((64, 48), (30, 50), (33, 20))]
    assert spans == lengths + [PATCHES // 4] * 6
    assert (lengths == [PATCHES + 1] * 3) == (several == "pad")  # a tile and the newline


def test_a_film_leaves_the_conversation_as_it_was(llava: Llava, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    session = ChatSession(llava, max_new_tokens=3)
    with pytest.raises(PictureError, match="ffmpeg -i"):
        session.ask("What moves?", [Image.new("RGB", (9, 9))], [tmp_path / "film.mp4"])
    assert session.turns == () and session._pictures == []


def test_how_videos_are_shown_is_saved_with_the_model(parts, tmp_path: Path) -> None:
    policy = ImagePolicy(frames=3, pool=4, pooling="bilinear")
    model = Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"], image_policy=policy)
    model.save_pretrained(tmp_path / "saved")
    assert Llava.from_pretrained(tmp_path / "saved").settings.image_policy == policy


def test_learning_from_frames_reaches_the_projector(llava: Llava) -> None:
    frame = frame_layout(ImagePolicy(), llava.geometry)
    features_NPD = llava.encode_images(torch.cat([tile(1).tiles_NCHW, tile(2).tiles_NCHW]))
    llava.arrange(features_NPD, [frame, frame]).sum().backward()
    assert all(float(weight.grad.abs().sum()) > 0 for weight in llava.projector.parameters())
