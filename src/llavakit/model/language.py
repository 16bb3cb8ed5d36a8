"""Language models: loading any causal one, its tokenizer, its head, and proof that it can be packed.

Not every model keeps the conversations of a packed row apart: a model with recurrent state carries it across, one that
ignores `transformers`' attention interface attends across. So the model is tried once, on a few tokens, and refused
in words if a conversation changes when its neighbour does.

Knows causal language models. Knows nothing of pictures.

Shapes: T packed positions, D width, K vocabulary.
"""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedModel

from llavakit.errors import LlavakitError
from llavakit.model.attention import ATTENTION_NAME
from llavakit.model.sources import load_pretrained, loading
from llavakit.recipe import resolve_source


def load_language_model(source: str, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, Any]:
    """Opens the causal language model called `source` and its tokenizer, ready for packed rows.

    source: a folder, a hub name, `package:PKG/path`, or any of these that ends in `.gguf` (read through transformers,
    which needs the package `gguf`). Raises LlavakitError when it cannot be opened or cannot be packed.
    """
    name, arguments = _place(source)
    model = load_pretrained(AutoModelForCausalLM, "language model", source, name, dtype=dtype, **arguments)
    tokenizer = load_tokenizer(source)
    prepare_language_model(model, source)
    return model, tokenizer


def language_config(source: str, **reading: Any) -> PretrainedConfig:
    """The configuration of the language model called `source`; no weights are read.

    reading: for `transformers`, e.g. `local_files_only`. Raises LlavakitError when it is not there.
    """
    name, arguments = _place(source)
    with loading("language model", source):
        return AutoConfig.from_pretrained(name, trust_remote_code=False, **arguments, **reading)


def load_tokenizer(source: str) -> Any:
    """Opens the tokenizer of the language model called `source`, which is named as for `load_language_model`.

    Raises LlavakitError when it is not there, is empty, or would need its own code.
    """
    name, arguments = _place(source)
    with loading("tokenizer of the language model", source):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **arguments)
    if len(tokenizer) == 0:
        raise LlavakitError(
            f"language model {source}: its tokenizer is empty; expected tokenizer.json beside it"
        )
    return tokenizer


def _place(source: str) -> tuple[str, dict[str, Any]]:
    """Where `source` lies, and what `transformers` must be told to open it."""
    name = resolve_source(source)
    if not name.endswith(".gguf"):
        return name, {}
    if importlib.util.find_spec("gguf") is None:
        raise LlavakitError(
            f"language model {source}: reading a GGUF file needs the package gguf; pip install gguf"
        )
    return str(Path(name).parent), {"gguf_file": Path(name).name}


def prepare_language_model(model: PreTrainedModel, source: str) -> None:
    """Gives the model packed attention and tries it; raises LlavakitError when it cannot be packed."""
    kind = type(model).__name__
    if getattr(model.config, "attention_chunk_size", None):
        raise LlavakitError(f"language model {source}: {kind} attends in chunks, which llavakit cannot pack")
    if model.base_model is model or model.get_output_embeddings() is None:
        raise LlavakitError(
            f"language model {source}: {kind} is not a decoder under a head; expected a causal language model"
        )
    with loading("language model", source):
        model.set_attn_implementation(ATTENTION_NAME)
    _try_packing(model, source)


def token_embedding(model: PreTrainedModel) -> nn.Embedding:
    """The model's table of token embeddings (K, D)."""
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    return embedding


def apply_head(model: PreTrainedModel, hidden_nD: Tensor) -> Tensor:
    """Scores (n, K) of hidden states, as the model's own forward makes them: scaled or capped where it does so."""
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Module)
    logits_nK = head(hidden_nD)
    config = model.config
    if (scale := getattr(config, "logit_scale", None)) is not None:  # Cohere
        logits_nK = logits_nK * scale
    if (scaling := getattr(config, "logits_scaling", None)) is not None:  # Granite
        logits_nK = logits_nK / scaling
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma
        logits_nK = cap * torch.tanh(logits_nK / cap)
    return logits_nK


def head_is_plain(model: PreTrainedModel) -> bool:
    """Whether the scores are the hidden states times the head's weight and nothing more."""
    special = ("logit_scale", "logits_scaling", "final_logit_softcapping")
    head = model.get_output_embeddings()
    return getattr(head, "bias", None) is None and all(
        getattr(model.config, k, None) is None for k in special
    )


@torch.no_grad()
def _try_packing(model: PreTrainedModel, source: str) -> None:
    """Two conversations in a row: the second must not notice the first, and the head must be the model's own."""
    rows = token_embedding(model).weight.shape[0]
    device = next(model.parameters()).device
    first, other, second = ([n % rows for n in ids] for ids in ([5, 7, 11], [13, 3, 17], [2, 19, 4, 6]))
    was_training = model.training
    model.eval()

    def hidden(ids: list[int], bounds: list[int]) -> Tensor:
        positions = [p for a, b in pairwise(bounds) for p in range(b - a)]
        output = model.base_model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            cu_seqlens=bounds,
            use_cache=False,
        )
        return output.last_hidden_state[0]

    with loading("language model", source):
        beside_first = hidden(first + second, [0, 3, 7])[3:].float()
        beside_other = hidden(other + second, [0, 3, 7])[3:].float()
        alone = hidden(second, [0, 4])
        expected = model(input_ids=torch.tensor([second], device=device), use_cache=False).logits[0].float()
    model.train(was_training)
    # Half precision may round differently from run to run on a GPU; a leak changes far more than that.
    tolerance = 1e-4 if alone.dtype == torch.float32 else 3e-2
    scale = float(alone.float().abs().max())
    kind = type(model).__name__
    if max(_gap(beside_first, beside_other), _gap(beside_first, alone.float())) > tolerance * scale:
        raise LlavakitError(
            f"language model {source}: in {kind} the conversations of a packed row see each other, because its "
            "attention or its state cannot be kept inside one; choose a model with ordinary causal attention"
        )
    scores = apply_head(model, alone).float()
    if _gap(scores, expected) > tolerance * float(expected.abs().max()):
        raise LlavakitError(
            f"language model {source}: {kind} does more to its scores than llavakit knows, so its loss would be wrong"
        )


def _gap(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max())
