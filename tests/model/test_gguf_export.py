"""GGUF export: what the two files hold, that stock transformers reads the text model as it was, and what is refused.

Nothing here runs llama.cpp; `benchmarks/interop/llama_cpp.py` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, dequantize
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from llavakit.checkpoints.files import CheckpointError
from llavakit.errors import LlavakitError
from llavakit.model.gguf_export import GgufExport, export_gguf
from llavakit.model.llava import Llava

from .conftest import PATCH, TEXT_MODEL, TILE, qwen_tokenizer

IDS = [1, 5, 7, 33, 90, 300, 4, 22]
SENTENCE = "USER: What is this?\nIt's a small   red circle, 12 é. ASSISTANT:"


def composed(parts: dict[str, str], language_model: str = "llama", **settings: Any) -> Llava:
    template = "tokenizer" if "qwen" in language_model else "vicuna_v1"
    defaults = {"vision_tower": parts["siglip"], "language_model": parts.get(language_model, language_model)}
    return Llava.compose(**{**defaults, "template": template, **settings})


def keys(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def tensors(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in GGUFReader(path).tensors}


def types(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


def reopened_logits(export: GgufExport) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(
        str(export.text.parent), gguf_file=export.text.name, dtype=torch.float32
    )
    with torch.no_grad():
        return model.eval()(torch.tensor([IDS])).logits[0]


def source_logits(model: Llava) -> torch.Tensor:
    positions = torch.arange(len(IDS))[None]
    with torch.no_grad():
        return model.language_model(
            torch.tensor([IDS]), position_ids=positions, cu_seqlens=[0, len(IDS)], use_cache=False
        ).logits[0]


@pytest.mark.parametrize("name", ["llama", "llama_tied", "qwen"])
def test_transformers_opens_the_text_model_with_the_same_logits_and_the_same_ids(
    parts: dict[str, str], tmp_path: Path, name: str
) -> None:
    model = composed(parts, name)
    export = export_gguf(model, tmp_path / "out", "tiny", "f32")
    torch.testing.assert_close(reopened_logits(export), source_logits(model), rtol=0, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "out"), gguf_file="tiny-text.gguf")
    assert tokenizer(SENTENCE).input_ids == model.tokenizer(SENTENCE).input_ids


def test_qwen3_is_written_with_its_norms_and_a_head_width_of_its_own(
    tmp_path: Path, parts: dict[str, str]
) -> None:
    """The reader of transformers takes every Qwen3's heads to be 128 wide, as the released ones are."""
    tokenizer = qwen_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer), head_dim=128, eos_token_id=tokenizer.eos_token_id, **TEXT_MODEL
    )
    Qwen3ForCausalLM(config).save_pretrained(tmp_path / "qwen3")
    tokenizer.save_pretrained(tmp_path / "qwen3")
    model = composed(parts, str(tmp_path / "qwen3"))
    export = export_gguf(model, tmp_path / "out", "tiny", "f32")
    assert keys(export.text)["qwen3.attention.key_length"] == 128
    torch.testing.assert_close(reopened_logits(export), source_logits(model), rtol=0, atol=1e-5)


def test_every_key_of_a_llama_is_its_configurations(parts: dict[str, str], tmp_path: Path) -> None:
    model = composed(parts, "llama_tied")
    found = keys(export_gguf(model, tmp_path / "out", "tiny", "f32").text)
    rows = model.vocabulary
    eps = found.pop("llama.attention.layer_norm_rms_epsilon")
    assert eps == pytest.approx(model.language_model.config.rms_norm_eps)
    tokens, kinds = found.pop("tokenizer.ggml.tokens"), found.pop("tokenizer.ggml.token_type")
    scores, template = found.pop("tokenizer.ggml.scores"), found.pop("tokenizer.chat_template")
    assert len(tokens) == len(kinds) == len(scores) == rows == 512
    assert tokens[:3] == ["<unk>", "<s>", "</s>"] and kinds[:4] == [2, 3, 3, 6]
    assert tokens[-1] == "[PAD511]" and kinds[-1] == 5
    assert "ASSISTANT:" in template
    assert {name: value for name, value in found.items() if not name.startswith("GGUF.")} == {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "tiny",
        "general.file_type": 0,
        "llama.block_count": 2,
        "llama.context_length": 512,
        "llama.embedding_length": 32,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 8,
        "llama.attention.value_length": 8,
        "llama.rope.dimension_count": 8,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": 512,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def test_every_tensor_of_the_text_model_is_there_and_only_query_and_key_are_turned(
    parts: dict[str, str], tmp_path: Path
) -> None:
    model = composed(parts, "llama")
    found = tensors(export_gguf(model, tmp_path / "out", "tiny", "f32").text)
    state = {name: tensor.detach().numpy() for name, tensor in model.language_model.state_dict().items()}
    names = {
        "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    expected = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
        "output.weight": state["lm_head.weight"],
    } | {
        f"blk.{layer}.{theirs}.weight": state[f"model.layers.{layer}.{ours}.weight"]
        for layer in range(2)
        for theirs, ours in names.items()
    }
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        if "attn_q." in name or "attn_k." in name:  # neighbours instead of halves, head by head of width 8
            order = [
                head + half + pair
                for head in range(0, len(tensor), 8)
                for pair in range(4)
                for half in (0, 4)
            ]
            tensor = tensor[order]
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_every_key_and_tensor_of_the_vision_file_is_the_towers_as_far_as_it_is_read(
    parts: dict[str, str], tmp_path: Path
) -> None:
    model = composed(parts)
    path = export_gguf(model, tmp_path / "out", "tiny", "f32").mmproj
    found = keys(path)
    assert found.pop("clip.vision.attention.layer_norm_epsilon") == pytest.approx(1e-6)
    assert {name: value for name, value in found.items() if not name.startswith("GGUF.")} == {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.name": "tiny",
        "general.file_type": 0,
        "clip.has_vision_encoder": True,
        "clip.has_llava_projector": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": True,
        "clip.vision.image_size": TILE,
        "clip.vision.patch_size": PATCH,
        "clip.vision.embedding_length": 24,
        "clip.vision.feed_forward_length": 48,
        "clip.vision.block_count": 2,
        "clip.vision.projection_dim": 32,
        "clip.vision.attention.head_count": 2,
        "clip.vision.image_mean": [0.5] * 3,
        "clip.vision.image_std": [0.5] * 3,
        "clip.vision.feature_layer": [2],
    }
    tower = {name.removeprefix("vision_model."): t for name, t in model.vision_tower.state_dict().items()}
    names = {
        "ln1": "layer_norm1", "ln2": "layer_norm2", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj", "attn_out": "self_attn.out_proj", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2",
    }  # fmt: skip
    expected = {f"mm.{name}": tensor for name, tensor in model.projector.state_dict().items()} | {
        "v.patch_embd.weight": tower["embeddings.patch_embedding.weight"],
        "v.patch_embd.bias": tower["embeddings.patch_embedding.bias"],
        "v.position_embd.weight": tower["embeddings.position_embedding.weight"],
    }
    for layer in range(2):
        for theirs, ours in names.items():
            for kind in ("weight", "bias"):
                expected[f"v.blk.{layer}.{theirs}.{kind}"] = tower[f"encoder.layers.{layer}.{ours}.{kind}"]
    read = tensors(path)
    assert set(read) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(read[name], tensor.numpy(), err_msg=name)


def test_a_linear_projector_is_written_as_two_layers_with_gelu_that_compute_it(
    parts: dict[str, str], tmp_path: Path
) -> None:
    model = composed(parts, projector="linear")
    read = tensors(export_gguf(model, tmp_path / "out", "tiny", "f32").mmproj)
    mm = {name: torch.from_numpy(tensor.copy()) for name, tensor in read.items() if name.startswith("mm.")}
    features = torch.randn(5, 24)
    inner = torch.nn.functional.gelu(features @ mm["mm.0.weight"].T + mm["mm.0.bias"], approximate="tanh")
    with torch.no_grad():
        expected = model.projector(features)
    torch.testing.assert_close(inner @ mm["mm.2.weight"].T + mm["mm.2.bias"], expected, rtol=0, atol=1e-5)


def test_number_types_keep_vectors_exact_and_say_which_matrices_q8_0_cannot_hold(
    parts: dict[str, str], tmp_path: Path
) -> None:
    model = composed(parts, "llama")
    half = export_gguf(model, tmp_path / "half", "tiny", "f16")
    found = types(half.text) | types(half.mmproj)
    assert {name for name, kind in found.items() if kind == "F32"} == {
        name
        for name in found
        if "norm" in name or "ln" in name or name.endswith("bias") or "position" in name
    }
    assert set(found.values()) == {"F32", "F16"} and keys(half.text)["general.file_type"] == 1
    eight = export_gguf(model, tmp_path / "eight", "tiny", "q8_0")
    assert (
        types(eight.text)["blk.0.ffn_down.weight"] == "Q8_0" and types(eight.mmproj)["mm.0.weight"] == "F16"
    )
    assert (
        keys(eight.text)["general.file_type"] == 7 and keys(eight.text)["general.quantization_version"] == 2
    )
    close = tensors(eight.text)["blk.0.ffn_down.weight"]
    weight = model.language_model.state_dict()["model.layers.0.mlp.down_proj.weight"]
    assert np.abs(close - weight.numpy()).max() <= float(weight.abs().max()) / 127
    odd = LlamaConfig(vocab_size=440, eos_token_id=2, **{**TEXT_MODEL, "intermediate_size": 72})
    LlamaForCausalLM(odd).save_pretrained(tmp_path / "odd")
    model.tokenizer.save_pretrained(tmp_path / "odd")
    notes = export_gguf(composed(parts, str(tmp_path / "odd")), tmp_path / "out", "tiny", "q8_0").notes
    assert any("2 of 16 matrices" in note and "blk.0.ffn_down.weight" in note for note in notes), notes


def test_a_number_too_large_for_half_precision_is_named_and_leaves_nothing_behind(
    parts: dict[str, str], tmp_path: Path
) -> None:
    model = composed(parts)
    with torch.no_grad():
        model.language_model.get_parameter("model.layers.1.mlp.up_proj.weight")[0, 0] = 1e5
    with pytest.raises(CheckpointError, match=r"blk\.1\.ffn_up\.weight.*100000.*f32"):
        export_gguf(model, tmp_path / "out", "tiny", "f16")
    assert list(tmp_path.iterdir()) == []
    export_gguf(model, tmp_path / "out", "tiny", "f32")


def test_a_sliding_window_bounds_the_announced_context_and_is_told(
    parts: dict[str, str], tmp_path: Path
) -> None:
    export = export_gguf(composed(parts, "mistral"), tmp_path / "out", "tiny", "f32")
    assert keys(export.text)["llama.context_length"] == 6
    assert any("6 positions, not 512" in note for note in export.notes)


def test_a_saved_and_reopened_model_is_exported_alike(parts: dict[str, str], tmp_path: Path) -> None:
    """The folder's tokenizer has `<image>` and a pad token, for which the model has no rows."""
    model = composed(parts)
    model.save_pretrained(tmp_path / "saved")
    first = export_gguf(model, tmp_path / "first", "tiny", "f32")
    second = export_gguf(Llava.from_pretrained(tmp_path / "saved"), tmp_path / "second", "tiny", "f32")
    assert first.text.read_bytes() == second.text.read_bytes()
    assert first.mmproj.read_bytes() == second.mmproj.read_bytes()


def test_a_clip_tower_is_written_only_when_forced_and_says_why(parts: dict[str, str], tmp_path: Path) -> None:
    model = composed(parts, vision_tower=parts["clip"])
    with pytest.raises(LlavakitError, match=r"class token of a CLIP tower behind the patches.*SigLIP"):
        export_gguf(model, tmp_path / "out", "tiny")
    assert not (tmp_path / "out").exists()
    export = export_gguf(model, tmp_path / "out", "tiny", force=True)
    assert any("features are wrong" in note for note in export.notes)
    assert {"v.class_embd", "v.pre_ln.weight"} <= set(types(export.mmproj))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"vision_tower": ["siglip", "siglip"]}, "2 towers are fused"),
        ({"vision_tower": "dinov2"}, "vision tower of type dinov2"),
        ({"image_policy": "anyres"}, "image_policy anyres"),
        ({"projector": "mlp3x_gelu"}, "mlp3x_gelu.*two layers with GELU"),
        ({"vision_feature_select": "cls_patch"}, "vision_feature_select is cls_patch"),
        ({"vision_feature_layer": [-1, -2]}, r"layers \[3, 2\].*ascending"),
    ],
)
def test_what_llama_cpp_cannot_express_is_refused_by_name(
    parts: dict[str, str], tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    towers = settings.get("vision_tower", "siglip")
    named = parts[towers] if isinstance(towers, str) else [parts[tower] for tower in towers]
    model = composed(parts, **{**settings, "vision_tower": named})
    with pytest.raises(LlavakitError, match=reason):
        export_gguf(model, tmp_path / "out", "tiny", force=True)
    assert not (tmp_path / "out").exists()


def test_a_language_model_of_another_family_is_refused(parts: dict[str, str], tmp_path: Path) -> None:
    tokenizer = qwen_tokenizer()
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(LlavakitError, match=r"language model of type gpt2.*llama, mistral, qwen2, qwen3"):
        export_gguf(composed(parts, str(tmp_path / "gpt2")), tmp_path / "out", "tiny")


def test_a_folder_with_other_files_is_left_as_it_is(parts: dict[str, str], tmp_path: Path) -> None:
    model = composed(parts)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").write_text("dear diary")
    with pytest.raises(CheckpointError, match=r"out: holds 1 other files, the first is diary\.txt"):
        export_gguf(model, tmp_path / "out", "tiny")
    assert (tmp_path / "out" / "diary.txt").read_text() == "dear diary"
    export_gguf(model, tmp_path / "new", "tiny")
    assert export_gguf(model, tmp_path / "new", "tiny").text.exists()


@pytest.mark.parametrize(
    ("name", "outtype", "reason"), [("a/b", "f16", "a/b"), ("tiny", "q4", "q4.*f32, f16, q8_0")]
)
def test_names_and_number_types_are_checked_first(
    parts: dict[str, str], tmp_path: Path, name: str, outtype: str, reason: str
) -> None:
    with pytest.raises(CheckpointError, match=reason):
        export_gguf(composed(parts), tmp_path / "out", name, outtype)


def test_notes_tell_how_llama_cpp_shows_pictures(parts: dict[str, str], tmp_path: Path) -> None:
    padded = export_gguf(composed(parts), tmp_path / "a", "tiny").notes
    assert any("(122, 116, 104)" in note and "(127, 127, 127)" in note for note in padded)
    squeezed = export_gguf(composed(parts, image_policy="square"), tmp_path / "b", "tiny").notes
    assert any("squeezed it to the tile" in note for note in squeezed)
    stopped = export_gguf(composed(parts, template="v0"), tmp_path / "c", "tiny").notes
    assert any("###" in note and "stop string" in note for note in stopped)
