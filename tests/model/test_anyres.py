"""AnyRes through the model: what is counted is what is written, and stock transformers computes the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from llavakit.conversation.record import Conversation, Picture, Text, Turn
from llavakit.conversation.templates import get_template
from llavakit.conversation.tokenize import IMAGE_TOKEN_ID, Encoded, encode
from llavakit.errors import LlavakitError
from llavakit.images.geometry import V16_ANNOUNCED_GRIDS, Grid, ImagePolicy, TowerGeometry, layout
from llavakit.images.pixels import to_tiles
from llavakit.model.arrange import arrange
from llavakit.model.llava import Llava
from llavakit.model.packed import Pack, Tiled, pack_conversations
from llavakit.model.session import ChatSession

from .conftest import TILE

ANYRES = ImagePolicy("anyres", several="anyres")
SIZES = [
    (28, 28), (56, 56), (10, 10), (1, 1), (28, 56), (56, 28), (28, 84), (84, 28), (20, 30), (30, 20), (10, 20), (20, 10),
    (64, 48), (48, 64), (50, 38), (37, 50), (192, 108), (108, 192), (170, 220), (33, 77), (77, 33), (100, 7), (7, 100),
    (300, 3), (3, 300), (55, 176), (176, 110), (205, 65), (112, 112), (57, 55), (55, 57), (29, 27), (27, 29), (140, 60),
    (60, 140), (90, 90), (91, 41), (41, 91), (123, 45), (45, 123), (84, 85), (85, 84), (200, 100), (13, 17),
]  # fmt: skip


def noise(width: int, height: int) -> Image.Image:
    generator = torch.Generator().manual_seed(width * 10007 + height)
    return Image.fromarray(
        torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8).numpy()
    )


def written(model: Llava, pictures: list[Image.Image], question: str) -> tuple[Encoded, list[Tiled]]:
    """A prompt about pictures, and the pictures as the model takes them."""
    parts = [part for n in range(len(pictures)) for part in (Picture(n), Text("\n"))]
    asked = Conversation(
        "a", "test", tuple("abcdef"[: len(pictures)]), (Turn("user", (*parts, Text(question))),)
    )
    shapes = [model.image_layout(*picture.size, len(pictures)) for picture in pictures]
    template = get_template(model.settings.template, model.tokenizer)
    prompt = encode(asked, template, model.tokenizer, [shape.tokens for shape in shapes], prompt=True)
    policy = model.settings.image_policy
    tiles = [to_tiles(picture, policy, model.pixels, len(pictures)) for picture in pictures]
    return prompt, [Tiled(*both) for both in zip(tiles, shapes, strict=True)]


def pack_of(model: Llava, asked: list[tuple[list[Image.Image], str]]) -> tuple[Pack, list[Encoded]]:
    both = [written(model, *one) for one in asked]
    encoded = [one for one, _ in both]
    return pack_conversations(encoded, [t for _, ts in both for t in ts], range(len(both))), encoded


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([None, 1, 4]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_as_many_rows_are_written_as_are_counted(
    width: int, height: int, most: int | None, announced: bool
) -> None:
    grids = V16_ANNOUNCED_GRIDS if announced else ImagePolicy("anyres").grids
    tower = TowerGeometry(336, 14)
    shape = layout(ImagePolicy("anyres", grids, max_tiles=most), tower, width, height)
    features = torch.zeros(shape.tiles, tower.tokens, 2)
    assert arrange(features, [shape], torch.ones(2)).shape == (shape.tokens, 2)


def test_rows_stand_in_reading_order_each_closed_by_the_newline() -> None:
    tower = TowerGeometry(4, 2)  # 2 x 2 features a tile
    shape = layout(ImagePolicy("anyres", (Grid(2, 1),)), tower, 8, 4)
    features_NPD = torch.arange(12.0).view(3, 4, 1)
    rows = arrange(features_NPD, [shape], torch.tensor([-1.0]))
    assert rows.flatten().tolist() == [0, 1, 2, 3, 4, 5, 8, 9, -1, 6, 7, 10, 11, -1]


@pytest.fixture(scope="module", params=["clip-llama", "siglip-qwen", "clip-mistral", "clip-llama_tied"])
def saved(request, parts, tmp_path_factory):
    tower, llm = request.param.split("-")
    template = "tokenizer" if llm == "qwen" else "vicuna_v1"
    model = Llava.compose(
        vision_tower=parts[tower], language_model=parts[llm], image_policy=ANYRES, template=template, seed=3
    )
    folder = tmp_path_factory.mktemp("saved") / request.param
    model.save_pretrained(folder)
    other, info = LlavaNextForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    assert not (info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"])
    return model, other.eval(), AutoProcessor.from_pretrained(folder), folder


def theirs_of(other, processor, prompt: Encoded, pictures: list[Image.Image]) -> torch.Tensor:
    """The stock model's logits, its own processor having made the pixels."""
    ids = torch.tensor([prompt.ids])
    ids = ids.masked_fill(ids == IMAGE_TOKEN_ID, other.config.image_token_id)
    shown = {}
    if pictures:
        made = processor.image_processor(images=pictures, return_tensors="pt")
        shown = {key: torch.as_tensor(made[key]) for key in ("pixel_values", "image_sizes")}
    with torch.no_grad():
        return other(input_ids=ids, **shown).logits[0]


def test_logits_are_those_of_stock_transformers_at_many_sizes(saved) -> None:
    model, other, processor, _ = saved
    worst = 0.0
    for size in SIZES:
        picture = noise(*size)
        pack, (prompt,) = pack_of(model, [([picture], "What is this?")])
        with torch.no_grad():
            mine = model.logits(pack)
        theirs = theirs_of(other, processor, prompt, [picture])
        worst = max(worst, float((theirs[:, : mine.shape[1]] - mine).abs().max()))
    assert len(SIZES) >= 40 and worst <= 1e-4


def test_a_pack_of_mixed_pictures_and_text_gives_the_logits_of_each_by_itself(saved) -> None:
    model, other, processor, _ = saved
    asked = [
        ([noise(64, 48)], "What is this?"),
        ([], "How many stars are there?"),
        ([noise(20, 90), noise(30, 30)], "Describe the picture."),
        ([noise(57, 55)], "No."),
    ]
    pack, encoded = pack_of(model, asked)
    with torch.no_grad():
        together = model.logits(pack)
    for (pictures, _), prompt, start in zip(asked, encoded, pack.cu_seqlens, strict=False):
        theirs = theirs_of(other, processor, prompt, pictures)
        mine = together[start : start + len(prompt.ids)]
        torch.testing.assert_close(theirs[:, : mine.shape[1]], mine, rtol=0, atol=1e-4)


def test_the_stock_processor_counts_the_same_positions(saved) -> None:
    model, _, processor, _ = saved
    found = processor._get_num_multimodal_tokens([size[::-1] for size in SIZES])["num_image_tokens"]
    assert found == [model.image_length(*size) for size in SIZES]


def test_opening_gives_the_same_model(saved) -> None:
    model, _, _, folder = saved
    again = Llava.from_pretrained(folder)
    assert (again.settings, again.geometry, again.pixels) == (model.settings, model.geometry, model.pixels)
    mine, other = model.state_dict(), again.state_dict()
    assert mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)


def test_a_folder_that_llavakit_did_not_write_opens_alike(saved, tmp_path: Path) -> None:
    model, other, processor, _ = saved
    other.save_pretrained(tmp_path / "stock")
    processor.save_pretrained(tmp_path / "stock")
    again = Llava.from_pretrained(tmp_path / "stock")
    assert again.settings.image_policy == ANYRES
    assert torch.equal(again.newline.weight, model.newline.weight)
    picture = noise(64, 48)
    with torch.no_grad():
        pack, _ = pack_of(model, [([picture], "What is this?")])
        mine, theirs = model.logits(pack), again.logits(pack)
    torch.testing.assert_close(theirs[:, : mine.shape[1]], mine, rtol=0, atol=1e-4)


def test_pinpoints_of_another_tower_are_refused(saved) -> None:
    *_, folder = saved
    config = json.loads((folder / "config.json").read_text())
    del config["llavakit"]
    config["image_grid_pinpoints"][0] = [336, 672 + 1]
    kept = (folder / "config.json").read_text()
    try:
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(
            LlavakitError, match=rf"the pinpoint \[336, 673\] is no multiple of the tower's {TILE} pixels"
        ):
            Llava.from_pretrained(folder)
    finally:
        (folder / "config.json").write_text(kept)


@pytest.mark.parametrize(
    "policy",
    [
        ImagePolicy("anyres", merge="flat"),
        ImagePolicy("anyres", merge="spatial"),
        ImagePolicy("anyres", max_tiles=1),
    ],
)
def test_what_transformers_cannot_express_is_saved_in_our_own_layout(parts, tmp_path: Path, policy) -> None:
    model = Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"], image_policy=policy)
    model.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["model_type"] == "llavakit_llava" and "merged as" in config["why_this_layout"]
    again = Llava.from_pretrained(tmp_path / "saved")
    assert again.settings.image_policy == policy
    pack, _ = pack_of(model, [([noise(64, 48)], "What is this?")])
    with torch.no_grad():
        assert torch.equal(model.logits(pack), again.logits(pack))


def test_the_newline_learns_where_it_is_written(parts) -> None:
    model = Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"], image_policy=ANYRES)
    pack, _ = pack_of(model, [([noise(64, 48)], "What is this?")])
    supervised = pack.ids_T.roll(-1).masked_fill(pack.ids_T.roll(-1) == IMAGE_TOKEN_ID, -100)
    supervised[-1] = -100
    model(Pack(**{**vars(pack), "labels_T": supervised})).loss_sum.backward()
    assert model.newline.weight.grad is not None and model.newline.weight.grad.abs().sum() > 0


def test_a_second_picture_that_changes_how_the_first_is_shown_is_read_anew(parts) -> None:
    model = Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"], image_policy="anyres")
    session = ChatSession(model, max_new_tokens=4)
    session.ask("What is this?", [noise(64, 48)])
    told = session.ask("And this?", [noise(30, 30)])
    fresh = ChatSession(model, max_new_tokens=4)
    first = session.turns[1].text
    fresh.recall([("What is this?", first)], [noise(64, 48)])
    assert fresh.ask("And this?", [noise(30, 30)]) == told
