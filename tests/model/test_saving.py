"""A saved Llava opens again as it was, and stock transformers computes the same from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from llavakit.checkpoints.files import WEIGHTS
from llavakit.errors import LlavakitError
from llavakit.model.llava import Llava
from llavakit.model.packed import IMAGE_TOKEN_ID, pack_conversations

from .conftest import PATCHES, item, tile

HUB_PREFIXES = (
    "language_model.model.",
    "language_model.lm_head.weight",
    "vision_tower.vision_model.",
    "multi_modal_projector.linear_1.",
    "multi_modal_projector.linear_2.",
)


def compose(parts: dict[str, str], tower: str, language_model: str, **settings) -> Llava:
    return Llava.compose(vision_tower=parts[tower], language_model=parts[language_model], **settings)


def stock(folder: Path) -> tuple[LlavaForConditionalGeneration, dict[str, object]]:
    model, info = LlavaForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    return model.eval(), info


def nothing_odd(info) -> bool:
    return not (info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"])


def ours_and_theirs(model: Llava, other: LlavaForConditionalGeneration) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of one conversation with two pictures, by this model and by the stock one."""
    features = model.geometry.tokens
    conversation = item(7, 2, features=features)
    tiles = [tile(1, features=features), tile(2, features=features)]
    with torch.no_grad():
        mine = model.logits(pack_conversations([conversation], tiles, ["a"]))
        ids = torch.tensor([conversation.ids])
        ids = ids.masked_fill(ids == IMAGE_TOKEN_ID, other.config.image_token_id)
        theirs = other(input_ids=ids, pixel_values=torch.cat([one.tiles_NCHW for one in tiles])).logits[0]
    return mine, theirs


def same_tensors(left: Llava, right: Llava) -> bool:
    mine, other = left.state_dict(), right.state_dict()
    return mine.keys() == other.keys() and all(
        torch.equal(mine[name], other[name]) and mine[name].dtype == other[name].dtype for name in mine
    )


@pytest.mark.parametrize("tower", ["clip", "siglip"])
@pytest.mark.parametrize("language_model", ["llama", "llama_tied", "qwen"])
@pytest.mark.parametrize("projector", ["linear", "mlp2x_gelu"])
def test_stock_transformers_opens_the_folder_and_gives_the_same_logits(
    parts, tmp_path, tower, language_model, projector
):
    model = compose(parts, tower, language_model, projector=projector)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tokens_before = len(model.tokenizer)
    model.save_pretrained(tmp_path / "saved")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert len(model.tokenizer) == tokens_before

    other, info = stock(tmp_path / "saved")
    assert nothing_odd(info)
    mine, theirs = ours_and_theirs(model, other)
    torch.testing.assert_close(theirs[:, : mine.shape[1]], mine, rtol=1e-4, atol=1e-4)
    assert not (theirs.argmax(-1) >= mine.shape[1]).any()

    again = Llava.from_pretrained(tmp_path / "saved")
    assert same_tensors(model, again)
    assert torch.equal(mine, ours_and_theirs(again, other)[0])
    assert (again.settings, again.pixels, again.geometry) == (model.settings, model.pixels, model.geometry)
    assert again.vocabulary == model.vocabulary


@pytest.mark.parametrize(
    ("tower", "select"), [("clip", "cls_patch"), ("siglip", "cls_patch"), ("dinov2", "patch")]
)
def test_other_selections_that_the_layout_can_express(parts, tmp_path, tower, select):
    model = compose(parts, tower, "llama", vision_feature_select=select)
    model.save_pretrained(tmp_path / "saved")
    other, info = stock(tmp_path / "saved")
    assert nothing_odd(info)
    mine, theirs = ours_and_theirs(model, other)
    torch.testing.assert_close(theirs[:, : mine.shape[1]], mine, rtol=1e-4, atol=1e-4)
    assert same_tensors(model, Llava.from_pretrained(tmp_path / "saved"))


@pytest.mark.parametrize("tower", ["clip", "siglip"])
def test_the_names_are_those_of_the_hub(parts, tmp_path, tower):
    compose(parts, tower, "llama").save_pretrained(tmp_path / "saved")
    names = set(load_file(tmp_path / "saved" / WEIGHTS))
    assert all(name.startswith(HUB_PREFIXES) for name in names)
    assert {
        "language_model.model.embed_tokens.weight",
        "language_model.model.layers.1.self_attn.q_proj.weight",
        "language_model.model.norm.weight",
        "language_model.lm_head.weight",
        "vision_tower.vision_model.embeddings.patch_embedding.weight",
        "vision_tower.vision_model.encoder.layers.2.mlp.fc1.bias",
        "multi_modal_projector.linear_1.weight",
        "multi_modal_projector.linear_2.bias",
    } <= names
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    assert config["vision_feature_select_strategy"] == {"clip": "default", "siglip": "full"}[tower]
    files = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {
        "config.json", "generation_config.json", WEIGHTS, "processor_config.json", "preprocessor_config.json",
        "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    } <= files  # fmt: skip


@pytest.mark.parametrize("language_model", ["llama", "llama_tied"])
def test_rows_that_only_the_file_has_are_the_mean_row_which_is_never_the_best_answer(
    parts, tmp_path, language_model
):
    model = compose(parts, "clip", language_model)
    if language_model == "llama_tied":
        model.tokenizer.add_tokens([f"<word {number}>" for number in range(200)])
    model.save_pretrained(tmp_path / "saved")
    tensors = load_file(tmp_path / "saved" / WEIGHTS)
    for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        if name in tensors:
            own, added = tensors[name].split([model.vocabulary, len(tensors[name]) - model.vocabulary])
            assert len(added) >= 2
            torch.testing.assert_close(added, own.mean(0, keepdim=True).expand_as(added))


def test_a_linear_projector_is_written_as_two_layers_that_compute_the_same(parts, tmp_path):
    model = compose(parts, "clip", "llama", projector="linear")
    model.save_pretrained(tmp_path / "saved")
    tensors = load_file(tmp_path / "saved" / WEIGHTS)
    second = tensors["multi_modal_projector.linear_2.weight"]
    assert torch.equal(second, torch.eye(len(second)))
    other, _ = stock(tmp_path / "saved")
    features = torch.randn(3, 24)
    assert torch.equal(other.model.multi_modal_projector(features), model.projector(features))


@pytest.mark.parametrize(
    ("tower", "language_model", "settings"),
    [
        ("clip", "llama", {"projector": "mlp3x_gelu"}),
        ("clip", "llama_tied", {"projector": "mlp1x_gelu"}),
        ("dinov2_registers", "qwen", {"projector": "linear"}),
    ],
)
def test_what_the_layout_cannot_express_is_saved_in_our_own(parts, tmp_path, tower, language_model, settings):
    model = compose(parts, tower, language_model, **settings)
    model.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["model_type"] == "llavakit_llava" and "its" in config["why_this_layout"]
    again = Llava.from_pretrained(tmp_path / "saved")
    assert same_tensors(model, again)
    pack = pack_conversations([item(3, 1)], [tile(3)], ["a"])
    assert torch.equal(model.logits(pack), again.logits(pack))


@pytest.mark.parametrize("layout", ["hub", "nested", "of 5.x"])
def test_folders_of_others_are_opened_in_all_three_layouts(parts, tmp_path, layout):
    model = compose(parts, "clip", "llama", image_policy="square")
    folder = tmp_path / "saved"
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    del config["llavakit"]
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / WEIGHTS)
    if layout != "hub":
        for name in list(tensors):
            if layout == "nested":
                new = "model." + name.replace("language_model.model", "language_model")
            else:
                new = name.replace("vision_model.", "")
            new = "lm_head.weight" if name.endswith("lm_head.weight") and layout == "nested" else new
            tensors[new] = tensors.pop(name)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        assert nothing_odd(stock(folder)[1])
    again = Llava.from_pretrained(folder)
    assert again.settings == model.settings
    assert again.pixels == model.pixels
    rows = model.vocabulary
    pack = pack_conversations([item(3, 1)], [tile(3)], ["a"])
    assert torch.equal(model.logits(pack), again.logits(pack)[:, :rows])
    assert again.vocabulary == rows + 2
    again.save_pretrained(tmp_path / "again")
    assert same_tensors(again, Llava.from_pretrained(tmp_path / "again"))


def test_saving_again_adds_nothing(parts, tmp_path):
    model = compose(parts, "clip", "qwen")
    for name in ("first", "second", "second"):
        model.save_pretrained(tmp_path / name)
        model = Llava.from_pretrained(tmp_path / name)
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("first", "second"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}


def test_the_type_of_the_weights_can_be_chosen(parts, tmp_path):
    model = compose(parts, "clip", "llama")
    model.save_pretrained(tmp_path / "saved", dtype=torch.bfloat16)
    half = Llava.from_pretrained(tmp_path / "saved")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    whole = Llava.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert {p.dtype for p in whole.parameters()} == {torch.float32}
    torch.testing.assert_close(
        dict(whole.named_parameters()), dict(model.named_parameters()), rtol=1e-2, atol=1e-2
    )


def _without(folder: Path, name: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors[name]
    save_file(tensors, folder / WEIGHTS)


def _with(folder: Path, name: str, tensor: torch.Tensor) -> None:
    save_file(load_file(folder / WEIGHTS) | {name: tensor}, folder / WEIGHTS)


def _config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))


DAMAGE = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "half a config": (lambda f: (f / "config.json").write_text('{"model_type": "lla'), "cannot be read as JSON"),
    "another model": (lambda f: _config(f, model_type="bert"), "a model of type bert"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), f"no {WEIGHTS}"),
    "pickled weights": (lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"), "can run code"),
    "weights cut short": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]), "damaged or cut short"),
    "weights empty": (lambda f: (f / WEIGHTS).write_bytes(b""), "damaged or cut short"),
    "tower's tensor missing": (
        lambda f: _without(f, "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"),
        "1 tensors of the vision_tower are missing, the first is .*fc1.weight",
    ),
    "language model's tensor missing": (
        lambda f: _without(f, "language_model.model.layers.1.mlp.up_proj.weight"),
        "1 tensors of the language_model are missing",
    ),
    "head missing": (lambda f: _without(f, "language_model.lm_head.weight"), "lm_head.weight"),
    "projector's tensor missing": (
        lambda f: _without(f, "multi_modal_projector.linear_2.bias"),
        "multi_modal_projector.linear_2.bias is missing",
    ),
    "tensor of no part": (lambda f: _with(f, "stranger", torch.ones(1)), "unexpected tensor stranger"),
    "tensor too many": (lambda f: _with(f, "language_model.model.layers.9.mlp.up_proj.weight", torch.ones(1)), "layers.9"),
    "tensor of another shape": (
        lambda f: _with(f, "language_model.model.norm.weight", torch.ones(3)),
        r"norm.weight of the language_model is of shape \(3,\)",
    ),
    "projector of another shape": (
        lambda f: _with(f, "multi_modal_projector.linear_1.weight", torch.ones(3, 4)),
        r"0.weight of the projector is of shape \(3, 4\)",
    ),
    "settings incomplete": (lambda f: _config(f, llavakit=None) or _config(f, llavakit=[]), "llavakit part of config.json"),
    "an unknown language model": (lambda f: _config(f, text_config={"model_type": "unheard"}), "unheard"),
    "no tokenizer": (lambda f: [p.unlink() for p in f.glob("token*")], "tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_folder_that_is_not_whole_is_refused_in_one_sentence(parts, tmp_path, name):
    folder = tmp_path / "saved"
    compose(parts, "clip", "llama").save_pretrained(folder)
    damage, words = DAMAGE[name]
    damage(folder)
    with pytest.raises(LlavakitError, match=words) as error:
        Llava.from_pretrained(folder)
    assert "saved" in str(error.value) and "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(LlavakitError, match="no such checkpoint folder"):
        Llava.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(LlavakitError, match="this is a file"):
        Llava.from_pretrained(tmp_path / "file")


def test_picture_positions_are_those_of_the_geometry(parts):
    assert compose(parts, "clip", "llama").image_length(640, 480) == PATCHES


def test_settings_of_another_format_are_told_apart_from_damaged_ones(parts, tmp_path):
    compose(parts, "clip", "llama").save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    config["llavakit"]["format"] = 1
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    with pytest.raises(LlavakitError, match="is of format 1, this version reads 2; delete the key"):
        Llava.from_pretrained(tmp_path / "saved")
