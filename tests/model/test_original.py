"""Folders of the original LLaVA: what is written opens as it was, and what was published opens."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from llavakit.checkpoints.files import PICKLES_INDEX, WEIGHTS
from llavakit.conversation.record import Conversation, Picture, Text, Turn
from llavakit.conversation.templates import PICTURE_MARKS, get_template
from llavakit.conversation.tokenize import encode
from llavakit.errors import LlavakitError
from llavakit.images.geometry import Grid, ImagePolicy
from llavakit.model.llava import Llava
from llavakit.model.opening_original import load_projector
from llavakit.model.packed import pack_conversations
from llavakit.model.parity import compare_reopened
from llavakit.model.saving_original import save_original

from .conftest import TILE, item, tile

ANYRES = ImagePolicy("anyres", several="anyres")
RECIPES = {
    "v1": {"projector": "linear", "image_policy": "square"},
    "v1.5": {"projector": "mlp2x_gelu", "image_policy": "pad"},
    "v1.6": {"projector": "mlp2x_gelu", "image_policy": ANYRES},
}


def compose(parts, tower="clip", language_model="llama", **settings) -> Llava:
    return Llava.compose(vision_tower=parts[tower], language_model=parts[language_model], **settings)


def same_tensors(left: Llava, right: Llava) -> bool:
    mine, other = left.state_dict(), right.state_dict()
    return mine.keys() == other.keys() and all(
        torch.equal(mine[name], other[name]) and mine[name].dtype == other[name].dtype for name in mine
    )


def logits(model: Llava) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(pack_conversations([item(3, 1)], [tile(3)], ["a"]))


@pytest.mark.parametrize("language_model", ["llama", "llama_tied", "qwen", "mistral"])
@pytest.mark.parametrize("version", RECIPES)
def test_native_original_native_changes_no_tensor(parts, tmp_path, version, language_model):
    model = compose(
        parts, language_model=language_model, seed=7 if version == "v1.6" else 0, **RECIPES[version]
    )
    with torch.no_grad():  # a tower that is not the named one's any more
        for parameter in model.vision_tower.parameters():
            parameter.mul_(1.5)
    save_original(model, tmp_path / "named", vision_tower=parts["clip"])
    save_original(model, tmp_path / "beside")
    for name in ("named", "beside"):
        again = Llava.from_pretrained(tmp_path / name)
        assert same_tensors(model, again), name
        assert (again.settings, again.pixels, again.geometry) == (
            model.settings,
            model.pixels,
            model.geometry,
        )
    again.save_pretrained(tmp_path / "native")
    assert same_tensors(model, Llava.from_pretrained(tmp_path / "native"))


def test_the_names_and_keys_are_those_of_the_original(parts, tmp_path):
    model = compose(parts, image_policy=ANYRES, dtype=torch.float16)
    save_original(model, tmp_path / "named", vision_tower="openai/clip-vit-large-patch14-336")
    names = set(load_file(tmp_path / "named" / WEIGHTS))
    assert {
        "model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.weight", "model.norm.weight", "lm_head.weight",
        "model.mm_projector.0.weight", "model.mm_projector.2.bias", "model.image_newline",
        "model.vision_tower.vision_tower.vision_model.embeddings.class_embedding",
        "model.vision_tower.vision_tower.vision_model.encoder.layers.2.mlp.fc1.bias",
        "model.vision_tower.vision_tower.vision_model.pre_layrnorm.weight",
    } <= names  # fmt: skip
    assert all(name.startswith(("model.", "lm_head.")) for name in names)
    config = json.loads((tmp_path / "named" / "config.json").read_text())
    expected = {
        "model_type": "llava_llama", "architectures": ["LlavaLlamaForCausalLM"], "torch_dtype": "float16",
        "mm_vision_tower": "openai/clip-vit-large-patch14-336", "mm_hidden_size": 24, "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch", "mm_patch_merge_type": "spatial_unpad",
        "mm_use_im_start_end": False, "mm_use_im_patch_token": False, "unfreeze_mm_vision_tower": True,
        "image_aspect_ratio": "anyres", "rope_theta": 10000.0, "rope_scaling": None, "hidden_size": 32,
        "image_grid_pinpoints": [[TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE], [3 * TILE, TILE], [TILE, 3 * TILE]],
    }  # fmt: skip
    assert expected.items() <= config.items()
    assert not {"text_config", "vision_config", "rope_parameters", "dtype"} & set(config)


def test_a_tower_of_siglip_loses_what_is_not_read(parts, tmp_path):
    model = compose(parts, "siglip", "qwen", image_policy="pad")
    save_original(model, tmp_path / "named", vision_tower=parts["siglip"])
    names = load_file(tmp_path / "named" / WEIGHTS)
    assert not any("encoder.layers.2." in name for name in names if "vision_tower" in name)
    again = Llava.from_pretrained(tmp_path / "named")
    assert again.settings.vision_feature_layer == -1
    assert torch.equal(logits(model), logits(again))
    save_original(model, tmp_path / "beside")
    assert same_tensors(model, Llava.from_pretrained(tmp_path / "beside"))
    for settings in ({"vision_feature_layer": -1}, {"vision_feature_select": "cls_patch"}):
        with pytest.raises(LlavakitError, match="of which the original reads layer -2 and patch alone"):
            save_original(compose(parts, "siglip", "qwen", **settings), tmp_path / "other")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"projector": "avgpool2-mlp2x_gelu"}, "its projector is avgpool2-mlp2x_gelu"),
        ({"projector": "resampler2"}, "its projector is resampler2"),
        ({"vision_feature_layer": [-2, -1]}, "it reads 2 layers of its tower"),
        ({"tower": "dinov2"}, "tower is of type dinov2"),
    ],
)
def test_what_the_original_cannot_express_is_refused_with_the_reason(parts, tmp_path, settings, words):
    with pytest.raises(LlavakitError, match=f"the original LLaVA cannot express this model: .*{words}"):
        save_original(compose(parts, **settings), tmp_path / "saved")
    fused = Llava.compose(vision_tower=[parts["clip"], parts["siglip"]], language_model=parts["llama"])
    with pytest.raises(LlavakitError, match="it has several vision towers"):
        save_original(fused, tmp_path / "saved")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "policy",
    [
        ImagePolicy("anyres", (Grid(2, 1), Grid(1, 2)), several="pad"),
        ImagePolicy("anyres", merge="flat"),
        ImagePolicy("anyres", merge="spatial", several="anyres"),
        ImagePolicy("anyres", max_tiles=3, several="anyres"),
    ],
)
def test_every_merge_of_tiles_comes_back(parts, tmp_path, policy):
    model = compose(parts, image_policy=policy)
    save_original(model, tmp_path / "saved")
    assert compare_reopened(model, tmp_path / "saved").difference == 0
    assert Llava.from_pretrained(tmp_path / "saved").settings.image_policy == policy


@pytest.fixture(scope="module")
def published(parts, tmp_path_factory) -> tuple[Path, Llava]:
    """A folder as v1.5 was published: pickles in shards, the tower frozen and named, no key of llavakit's."""
    folder = tmp_path_factory.mktemp("published") / "llava-v1.5"
    model = compose(parts, image_policy="pad")
    save_original(model, folder, vision_tower=parts["clip"])
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    for name in tensors:
        if "vision_tower" in name:
            tensors[name] = tensors[name] * 0  # left unread
    halves = [dict(list(tensors.items())[:20]), dict(list(tensors.items())[20:])]
    where = {}
    for number, half in enumerate(halves, start=1):
        file = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save(half, folder / file)
        where |= dict.fromkeys(half, file)
    (folder / PICKLES_INDEX).write_text(json.dumps({"weight_map": where}))
    _config(folder, llavakit=None, unfreeze_mm_vision_tower=None, model_type="llava")
    return folder, model


def _config(folder: Path, **changes) -> None:
    """Sets keys of config.json; None takes one away."""
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_a_published_folder_opens(published, parts):
    folder, model = published
    again = Llava.from_pretrained(folder)
    assert same_tensors(model, again)
    assert again.settings == model.settings


def test_a_copy_of_the_tower_and_another_template_can_be_given(published, parts, tmp_path):
    folder, model = published
    shutil.copytree(folder, tmp_path / "copy")
    _config(tmp_path / "copy", mm_vision_tower="./nowhere")
    with pytest.raises(
        LlavakitError, match=r"its vision tower is \./nowhere .*give a copy of it as vision_tower"
    ):
        Llava.from_pretrained(tmp_path / "copy")
    again = Llava.from_pretrained(tmp_path / "copy", vision_tower=parts["clip"], template="v0")
    assert same_tensors(model, again) and again.settings.template == "v0"
    with pytest.raises(LlavakitError, match="there is no template 'v9'"):
        Llava.from_pretrained(folder, template="v9")


def test_a_head_that_repeats_the_embedding_it_is_tied_to_is_left(parts, tmp_path):
    model = compose(parts, language_model="llama_tied")
    save_original(model, tmp_path / "saved")
    tensors = load_file(tmp_path / "saved" / WEIGHTS)
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "saved" / WEIGHTS)
    assert same_tensors(model, Llava.from_pretrained(tmp_path / "saved"))


@pytest.mark.parametrize(
    ("language_model", "template"), [("llama", "vicuna_v1"), ("qwen", "qwen"), ("mistral", "mistral")]
)
def test_the_template_follows_from_the_language_model(parts, tmp_path, language_model, template):
    save_original(compose(parts, language_model=language_model), tmp_path / "saved")
    _config(tmp_path / "saved", llavakit=None)
    assert Llava.from_pretrained(tmp_path / "saved").settings.template == template


def test_a_llama_that_ends_as_chatml_does_is_written_to_in_chatml(parts, tmp_path):
    model = compose(parts)
    model.tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    save_original(model, tmp_path / "saved")
    _config(tmp_path / "saved", llavakit=None)
    assert Llava.from_pretrained(tmp_path / "saved").settings.template == "chatml_direct"


def test_keys_that_older_folders_lack_have_their_defaults(parts, tmp_path):
    model = compose(parts, **RECIPES["v1"])
    save_original(model, tmp_path / "saved", vision_tower=parts["clip"])
    absent = (
        "mm_projector_type", "mm_patch_merge_type", "image_aspect_ratio", "mm_vision_select_feature",
        "mm_use_im_patch_token", "mm_resampler_type",
    )  # fmt: skip
    _config(tmp_path / "saved", **dict.fromkeys(absent))
    assert Llava.from_pretrained(tmp_path / "saved").settings == model.settings


def test_a_projectors_own_file_is_put_into_a_composed_model(parts, tmp_path):
    trained, model = compose(parts, seed=5), compose(parts, dtype=torch.bfloat16)
    state = {f"model.mm_projector.{name}": tensor for name, tensor in trained.projector.state_dict().items()}
    torch.save(state, tmp_path / "mm_projector.bin")
    load_projector(model, tmp_path / "mm_projector.bin")
    for name, tensor in model.projector.state_dict().items():
        assert torch.equal(tensor, trained.projector.state_dict()[name].bfloat16())
    with pytest.raises(LlavakitError, match="tensors of the projector linear are missing"):
        load_projector(compose(parts, projector="linear"), tmp_path / "mm_projector.bin")
    torch.save(state | {"model.embed_tokens.weight": torch.ones(2, 3)}, tmp_path / "more.bin")
    with pytest.raises(
        LlavakitError, match=r"holds the tensor model\.embed_tokens\.weight, expected those of a proj"
    ):
        load_projector(model, tmp_path / "more.bin")


def test_a_folder_of_a_projector_alone_needs_its_language_model(parts, tmp_path):
    model = compose(parts)
    with torch.no_grad():
        model.projector[0].weight.add_(1)
    save_original(model, tmp_path / "saved", vision_tower=parts["clip"])
    folder = tmp_path / "saved"
    tensors = load_file(folder / WEIGHTS)
    torch.save({k: t for k, t in tensors.items() if "mm_projector" in k}, folder / "mm_projector.bin")
    for file in (WEIGHTS, "tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    _config(folder, unfreeze_mm_vision_tower=False)
    with pytest.raises(LlavakitError, match="holds a projector alone; name the model"):
        Llava.from_pretrained(folder)
    assert same_tensors(model, Llava.from_pretrained(folder, base=parts["llama"]))


def test_a_lora_folder_is_merged_into_its_base(parts, tmp_path):
    model = compose(parts, image_policy="pad")
    folder = tmp_path / "llava-lora"
    save_original(model, folder, vision_tower=parts["clip"])
    (folder / WEIGHTS).unlink()
    _config(folder, unfreeze_mm_vision_tower=None)
    a, b = torch.randn(4, 32), torch.randn(32, 4)
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_{}.weight"
    torch.save({name.format("A"): a, name.format("B"): b}, folder / "adapter_model.bin")
    beside = {
        f"base_model.model.model.mm_projector.{name}": tensor + 1
        for name, tensor in model.projector.state_dict().items()
    }
    torch.save(beside, folder / "non_lora_trainables.bin")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    with pytest.raises(
        LlavakitError, match="holds a LoRA adapter; name the model that it was trained on as its base"
    ):
        Llava.from_pretrained(folder)
    again = Llava.from_pretrained(folder, base=parts["llama"])
    with torch.no_grad():
        model.language_model.model.layers[1].self_attn.q_proj.weight += 2 * (b @ a)
        for parameter in model.projector.parameters():
            parameter += 1
    assert same_tensors(model, again)
    with pytest.raises(LlavakitError, match="which the base does not have; is it the base"):
        Llava.from_pretrained(folder, base=_one_layer(parts, tmp_path))


def _one_layer(parts, tmp_path) -> str:
    """A base without the layer that the adapter changes."""
    shutil.copytree(parts["llama"], tmp_path / "other")
    tensors = load_file(tmp_path / "other" / WEIGHTS)
    save_file({k: t for k, t in tensors.items() if ".layers.1." not in k}, tmp_path / "other" / WEIGHTS)
    return str(tmp_path / "other")


def test_pictures_stand_between_marks_where_the_folder_asks_for_them(parts, tmp_path):
    model = compose(parts, language_model="llama_tied", **RECIPES["v1"])
    model.tokenizer.add_tokens(["<im_patch>", *PICTURE_MARKS], special_tokens=True)
    model.settings = dataclasses.replace(model.settings, template="v0")
    save_original(model, tmp_path / "saved")
    assert not json.loads((tmp_path / "saved" / "config.json").read_text())["mm_use_im_start_end"]
    _config(tmp_path / "saved", llavakit=None, mm_use_im_start_end=True)
    again = Llava.from_pretrained(tmp_path / "saved", template="v0")
    assert again.settings.template == "v0+im_start_end"
    parts_ = (Picture(0), Text("\nWhat is this?"))
    asked = Conversation("a", "test", ("picture",), (Turn("user", parts_),), {})
    prompt = encode(asked, get_template(again.settings.template), again.tokenizer, [3], prompt=True)
    start, end = again.tokenizer.convert_tokens_to_ids(list(PICTURE_MARKS))
    at = prompt.ids.index(-200)
    assert prompt.ids[at - 1 : at + 4] == [start, -200, -200, -200, end]
    assert prompt.ids.count(start) == prompt.ids.count(end) == 1
    save_original(again, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["mm_use_im_start_end"]
    assert Llava.from_pretrained(tmp_path / "again").settings == again.settings
    again.save_pretrained(tmp_path / "stock")
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    stock = AutoTokenizer.from_pretrained(tmp_path / "stock")
    text = stock.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert "Human: <im_start><image><im_end>\nWhat is this?\n### Assistant:" in text
    assert Llava.from_pretrained(tmp_path / "stock").settings.template == "v0+im_start_end"
