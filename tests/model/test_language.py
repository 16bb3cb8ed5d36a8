"""Language models: those that can be packed are accepted, others refused in words."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from llavakit.errors import LlavakitError
from llavakit.model import language
from llavakit.model.language import apply_head, load_language_model, prepare_language_model

from .conftest import TEXT_MODEL


def larger(model):
    """The model with weights large enough that a leak or a wrong head shows."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


MODELS = {
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(vocab_size=60, head_dim=8, sliding_window=4, **TEXT_MODEL)),
    "cohere": lambda: CohereForCausalLM(CohereConfig(vocab_size=60, logit_scale=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2, **TEXT_MODEL)),
    "granite": lambda: GraniteForCausalLM(GraniteConfig(vocab_size=60, logits_scaling=3.0, embedding_multiplier=2.0, **TEXT_MODEL)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_scores_and_hidden_states_are_the_models_own(name):
    model = larger(MODELS[name]())
    ids = torch.tensor([[5, 9, 2, 33, 7, 8, 41, 3]])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(input_ids=ids).logits[0]
        prepare_language_model(model, name)
        positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7]])
        packed = torch.cat([torch.tensor([[50, 51, 52]]), ids], dim=1)
        output = model.base_model(
            input_ids=packed, position_ids=positions, cu_seqlens=[0, 3, 11], use_cache=False
        )
        found = apply_head(model, output.last_hidden_state[0, 3:])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_model_whose_conversations_see_each_other_is_refused():
    model = larger(
        MambaForCausalLM(MambaConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, state_size=4))
    )
    with pytest.raises(LlavakitError, match="language model mamba"):
        prepare_language_model(model, "mamba")


def test_a_leak_and_an_unknown_head_are_noticed(parts, monkeypatch):
    from llavakit.model import attention

    model = larger(LlamaForCausalLM.from_pretrained(parts["llama"]))
    monkeypatch.setattr(language, "apply_head", lambda model, hidden: 2 * apply_head(model, hidden))
    with pytest.raises(LlavakitError, match="does more to its scores"):
        prepare_language_model(model, "doubled")
    monkeypatch.setattr(language, "apply_head", apply_head)
    leaky = attention.packed_attention

    def across(*args, cu_seqlens=None, **kwargs):
        return leaky(*args, **kwargs)

    attention.AttentionInterface.register(attention.ATTENTION_NAME, across)
    try:
        with pytest.raises(LlavakitError, match="see each other"):
            prepare_language_model(model, "leaky")
    finally:
        attention.AttentionInterface.register(attention.ATTENTION_NAME, leaky)


def test_sources_that_cannot_be_opened_are_named(parts, tmp_path, monkeypatch):
    with pytest.raises(LlavakitError, match="no such file or folder"):
        load_language_model("./nowhere")
    with pytest.raises(LlavakitError, match=r"language model .*clip"):
        load_language_model(parts["clip"])
    nameless = tmp_path / "nameless"
    shutil.copytree(parts["llama"], nameless)
    for file in nameless.glob("token*"):
        file.unlink()
    with pytest.raises(LlavakitError, match="tokenizer"):
        load_language_model(str(nameless))
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    with pytest.raises(LlavakitError, match="cannot be opened"):
        load_language_model(str(gguf))
    monkeypatch.setattr(language.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LlavakitError, match="pip install gguf"):
        load_language_model(str(gguf))
    assert Path(parts["llama"]).exists()
