"""A language model's configuration and tensors under llama.cpp's names: what is computed anew, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llavakit.checkpoints.files import CheckpointError
from llavakit.checkpoints.gguf_language import language_file

TEXT_MODEL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}  # fmt: skip


def test_llama3s_factors_are_those_by_which_transformers_slows_its_frequencies() -> None:
    rope = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config = LlamaConfig(vocab_size=8, head_dim=128, rope_parameters=rope, **TEXT_MODEL)
    file = language_file(
        config.to_dict(),
        {"model.embed_tokens.weight": torch.zeros(8, 32)},
        {"tokenizer.ggml.tokens": ["x"] * 8},
        "tiny",
    )
    slowed, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 500000.0 ** -(torch.arange(0, 128, 2) / 128)
    torch.testing.assert_close(file.tensors["rope_freqs.weight"], plain / slowed, rtol=1e-4, atol=0)
    assert file.keys["llama.rope.freq_base"] == 500000.0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "rope_type dynamic",
        ),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "rotates 0.5"),
        ({"hidden_act": "gelu"}, "activation is gelu"),
        ({"vocab_size": 9}, "9 rows and its vocabulary 8 tokens"),
    ],
)
def test_settings_that_llama_cpp_does_not_have_are_refused(change: dict[str, Any], reason: str) -> None:
    config = LlamaConfig(vocab_size=8, **TEXT_MODEL).to_dict() | change
    state = {"model.embed_tokens.weight": torch.zeros(config["vocab_size"], 32)}
    with pytest.raises(CheckpointError, match=reason):
        language_file(config, state, {"tokenizer.ggml.tokens": ["x"] * 8}, "tiny")


def test_a_tensor_without_a_place_is_refused_and_not_left_out() -> None:
    config = LlamaConfig(vocab_size=8, **TEXT_MODEL).to_dict() | {"model_type": "qwen3"}
    state = {
        "model.embed_tokens.weight": torch.zeros(8, 32),
        "model.layers.0.self_attn.o_proj.bias": torch.zeros(32),
    }
    with pytest.raises(CheckpointError, match=r"qwen3 has no place for the tensor .*o_proj\.bias"):
        language_file(config, state, {"tokenizer.ggml.tokens": ["x"] * 8}, "tiny")
