"""A language model's tensors and configuration under the names that llama.cpp gives them.

The families whose arithmetic llama.cpp shares to the last step: Llama and Mistral (its architecture `llama`), Qwen2 and
Qwen2.5 (`qwen2`), Qwen3 (`qwen3`). Any other is refused. Names and keys are those of llama.cpp's own converter.

Rotary embeddings: transformers turns the first half of a head against the second, llama.cpp's `llama` turns
neighbours, so the rows of query and key are put in its order; its Qwen architectures turn halves and keep theirs.

Knows tensors by name and a configuration as a dictionary. Knows no module and no tokenizer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llavakit.checkpoints.files import CheckpointError
from llavakit.checkpoints.gguf import GgufFile, Value


@dataclass(frozen=True)
class _Family:
    """architecture: llama.cpp's. neighbours: whether it turns neighbouring numbers. biased: layers that may have one.
    normed: whether query and key are normalised."""

    architecture: str
    neighbours: bool
    biased: frozenset[str]
    normed: bool = False


_QKV = frozenset({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"})
_ALL = _QKV | {"self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}
_FAMILIES = {
    "llama": _Family("llama", True, _ALL),
    "mistral": _Family("llama", True, frozenset()),
    "qwen2": _Family("qwen2", False, _QKV),
    "qwen3": _Family("qwen3", False, _QKV, normed=True),
}

_OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_INNER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")


def check_family(model_type: str) -> None:
    """Raises CheckpointError for a family of language models that cannot be written."""
    if model_type not in _FAMILIES:
        raise CheckpointError(
            f"language model of type {model_type}: it cannot be written as GGUF; expected {', '.join(_FAMILIES)}"
        )


def language_file(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    vocabulary: Mapping[str, Value],
    name: str,
) -> GgufFile:
    """The GGUF file of a language model.

    config: as `to_dict` of its configuration gives it. tensors: under their names in `transformers`, without the head
    where it is tied to the embedding. vocabulary: the keys of `gguf_tokenizer`, one token a row of the embedding.
    Raises CheckpointError for a family, a setting or a tensor that llama.cpp's architecture does not have.
    """
    check_family(config["model_type"])
    family = _FAMILIES[config["model_type"]]
    rows, tokens = len(tensors["model.embed_tokens.weight"]), len(_tokens(vocabulary))
    if rows != tokens:
        raise CheckpointError(
            f"language model: its embedding has {rows} rows and its vocabulary {tokens} tokens; llama.cpp opens a file "
            "only where they are as many"
        )
    act = config.get("hidden_act", "silu")
    if act != "silu":
        raise CheckpointError(
            f"language model: its activation is {act}, expected silu, the only one llama.cpp has"
        )
    context, notes = _context(config)
    keys, factors = _rope(config, family)
    heads = int(config["num_attention_heads"])
    named: dict[str, Value] = {
        "block_count": int(config["num_hidden_layers"]),
        "context_length": context,
        "embedding_length": int(config["hidden_size"]),
        "feed_forward_length": int(config["intermediate_size"]),
        "attention.head_count": heads,
        "attention.head_count_kv": int(config.get("num_key_value_heads") or heads),
        "attention.key_length": _head_width(config),
        "attention.value_length": _head_width(config),
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "vocab_size": rows,
        **keys,
    }
    general: dict[str, Value] = {"general.type": "model", "general.name": name}
    mapped = {_name(key, family): _turned(key, tensor, config, family) for key, tensor in tensors.items()}
    return GgufFile(
        family.architecture,
        general | {f"{family.architecture}.{key}": value for key, value in named.items()} | dict(vocabulary),
        mapped | factors,
        notes=notes,
    )


def _tokens(vocabulary: Mapping[str, Value]) -> list[Any]:
    tokens = vocabulary["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    return tokens


def _head_width(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _context(config: Mapping[str, Any]) -> tuple[int, tuple[str, ...]]:
    """How many positions the file announces: no more than a sliding window, which llama.cpp would not slide."""
    length = int(config["max_position_embeddings"])
    slides = config["model_type"] == "mistral" or "sliding_attention" in (config.get("layer_types") or [])
    window = config.get("sliding_window") if slides else None
    if window is None or window >= length:
        return length, ()
    return int(window), (
        f"the context is announced as {window} positions, not {length}: past its sliding window llama.cpp would attend "
        "otherwise than the model was made to",
    )


def _rope(config: Mapping[str, Any], family: _Family) -> tuple[dict[str, Value], dict[str, Tensor]]:
    """The keys of the rotary embeddings, and the tensor of factors where a scheme has one."""
    rope = dict(config.get("rope_parameters") or {})
    kind, part = rope.get("rope_type", "default"), rope.get("partial_rotary_factor", 1.0)
    if part != 1.0:
        raise CheckpointError(f"language model: it rotates {part} of each head, expected all of it")
    width = _head_width(config)
    keys: dict[str, Value] = {
        "rope.dimension_count": width,
        "rope.freq_base": float(rope.get("rope_theta", 10000.0)),
    }
    if kind == "default":
        return keys, {}
    if kind == "llama3":
        if family.architecture != "llama":
            raise CheckpointError(
                f"language model of type {config['model_type']}: rope_type llama3 is Llama's alone"
            )
        return keys, {"rope_freqs.weight": _llama3_factors(rope, width)}
    if kind == "linear":
        return keys | {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}, {}
    plain = {
        "rope_type",
        "rope_theta",
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
    }
    if kind == "yarn" and all(value is None for key, value in rope.items() if key not in plain):
        scaling: dict[str, Value] = {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(rope["factor"]),
            "rope.scaling.original_context_length": int(
                rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
            ),
        }
        for beta in ("beta_fast", "beta_slow"):
            if rope.get(beta) is not None:
                scaling[f"rope.scaling.yarn_{beta}"] = float(rope[beta])
        return keys | scaling, {}
    settings = ", ".join(f"{key} {value}" for key, value in rope.items())
    raise CheckpointError(
        f"language model: its rotary embeddings are {settings}; expected the rope_type default, linear, llama3, or "
        "yarn without an attention factor of its own"
    )


def _llama3_factors(rope: Mapping[str, Any], width: int) -> Tensor:
    """By what each frequency is divided (Llama 3.1): 1 for short waves, the factor for long ones, a blend between."""
    factor, original = float(rope["factor"]), float(rope["original_max_position_embeddings"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    factors = []
    for step in range(0, width, 2):
        wave = 2 * math.pi * float(rope["rope_theta"]) ** (step / width)
        blend = min(max((original / wave - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - blend) / factor + blend))
    return torch.tensor(factors, dtype=torch.float32)


def _name(key: str, family: _Family) -> str:
    if key in _OUTER:
        return _OUTER[key]
    match = _LAYER.fullmatch(key)
    inner = match.group(2) if match else ""
    fits = inner in _INNER and (family.normed or not inner.endswith(("q_norm", "k_norm")))
    if match is None or not fits or (match.group(3) == "bias" and inner not in family.biased):
        raise CheckpointError(
            f"language model: llama.cpp's architecture {family.architecture} has no place for the tensor {key}"
        )
    return f"blk.{match.group(1)}.{_INNER[inner]}.{match.group(3)}"


def _turned(key: str, tensor: Tensor, config: Mapping[str, Any], family: _Family) -> Tensor:
    """Rows of query and key in the order of llama.cpp: row i of a head's second half behind row i of its first."""
    if not family.neighbours or not re.search(r"\.[qk]_proj\.", key):
        return tensor
    heads = len(tensor) // _head_width(config)
    return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
