"""Families of language models: each is composed, packed, saved and opened by the same code, and computes what stock
transformers computes of the same folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from llavakit.conversation.record import Conversation, Picture, Text, Turn
from llavakit.conversation.templates import get_template
from llavakit.conversation.tokenize import IMAGE_TOKEN_ID, Encoded, encode
from llavakit.model.generation import Request, decode_one, generate, prompt_embeddings
from llavakit.model.language import token_embedding
from llavakit.model.llava import Llava
from llavakit.model.packed import pack_conversations
from llavakit.model.reuse import PictureFeatures
from llavakit.model.sampling import Sampling
from llavakit.model.stops import Stopping
from tests.conversation.families import fresh_family

from .conftest import PATCHES, tile

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
EVERY_OTHER = ["sliding_attention", "full_attention"]


@dataclass(frozen=True)
class Family:
    """config: a tiny one. tokenizer: of tests/conversation/families.py. own: why it is saved in llavakit's layout."""

    config: type
    settings: dict[str, Any]
    tokenizer: str
    tied: bool = False
    own: str | None = None
    rows: int = 8  # of the embedding, beyond the tokenizer's


FAMILIES = {
    "vicuna": Family(LlamaConfig, {}, "vicuna", rows=0),
    "llama_3": Family(LlamaConfig, {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}, "llama_3"),
    "smollm": Family(LlamaConfig, {"num_attention_heads": 4, "num_key_value_heads": 1, "rms_norm_eps": 1e-5}, "qwen", tied=True),
    "yi": Family(LlamaConfig, {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6}}, "yi", rows=64000),
    "mistral": Family(MistralConfig, {"sliding_window": 7, "head_dim": 16}, "llama"),
    "qwen2": Family(Qwen2Config, {}, "qwen"),
    "qwen2_tied": Family(Qwen2Config, {"use_sliding_window": True, "sliding_window": 6, "layer_types": EVERY_OTHER}, "qwen", tied=True),
    "qwen3": Family(Qwen3Config, {"head_dim": 16}, "qwen"),
    "qwen3_tied": Family(Qwen3Config, {"head_dim": 16}, "qwen", tied=True, rows=0),
    "phi": Family(PhiConfig, {"partial_rotary_factor": 0.5, "num_key_value_heads": 4}, "phi", own="biases its scores"),
    "phi3": Family(Phi3Config, {"sliding_window": 9, "num_key_value_heads": 4}, "phi"),
    "gemma": Family(GemmaConfig, {"head_dim": 16, "num_key_value_heads": 1}, "unigram", tied=True),
    "gemma2": Family(Gemma2Config, {"head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}, "unigram", tied=True, own="caps"),
    "gemma3": Family(Gemma3TextConfig, {"head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 24, "layer_types": EVERY_OTHER}, "unigram", tied=True),
}  # fmt: skip


def write_family(name: str, folder: Path) -> str:
    """A random language model of this family with its tokenizer."""
    family = FAMILIES[name]
    tokenizer = fresh_family(family.tokenizer)
    torch.manual_seed(len(name))
    config = family.config(
        **{**SIZES, **family.settings},
        vocab_size=len(tokenizer) + family.rows,
        tie_word_embeddings=family.tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = AutoModelForCausalLM.from_config(config)
    for part, parameter in model.named_parameters():  # large enough that a mistake shows
        deviation = 0.2 if family.tied or "embed" not in part else 0.5
        if parameter.dim() > 1 or "bias" in part:
            torch.nn.init.normal_(parameter, std=deviation)
        else:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, parts: dict[str, str], tmp_path_factory: pytest.TempPathFactory):
    """(name, the LLaVA composed of it, the folder of the language model, the folder in which the LLaVA is saved)."""
    root = tmp_path_factory.mktemp(request.param)
    source = write_family(request.param, root / "language_model")
    template = "vicuna_v1" if FAMILIES[request.param].tokenizer == "unigram" else "tokenizer"
    model = Llava.compose(vision_tower=parts["clip"], language_model=source, template=template)
    model.save_pretrained(root / "saved")
    return request.param, model, source, root / "saved"


def said(model: Llava, number: int, pictures: int, prompt: bool = False) -> Encoded:
    """A conversation of two exchanges, or a prompt, written as the model's own template does."""
    shown = tuple(Picture(place) for place in range(pictures))
    turns = [Turn("user", (*shown, Text(f"\nHow many stars are there, {number}?")))]
    if not prompt:
        turns += [
            Turn("assistant", (Text("There are three stars, I think."),)),
            Turn("user", (Text("Is there a cat?"),)),
            Turn("assistant", (Text(f"No, {number} dogs."),)),
        ]
    conversation = Conversation(number, "test", ("a.png",) * pictures, tuple(turns))
    template = get_template(model.settings.template, model.tokenizer)
    return encode(conversation, template, model.tokenizer, [PATCHES] * pictures, prompt=prompt)


def test_a_pack_has_the_loss_and_the_gradients_of_its_conversations_alone(family) -> None:
    _, model, *_ = family
    shown = [1, 0, 2, 1]
    encoded = [said(model, number, pictures) for number, pictures in enumerate(shown)]
    tiles = [[tile(10 * number + place) for place in range(count)] for number, count in enumerate(shown)]

    def learn(packs: list[Any]) -> tuple[float, list[torch.Tensor]]:
        model.zero_grad()
        total = torch.stack([model(pack).loss_sum for pack in packs]).sum()
        total.backward()
        weights = [model.projector[0].weight, token_embedding(model.language_model).weight]
        return total.item(), [weight.grad.clone() for weight in weights]

    together, theirs = learn([pack_conversations(encoded, [one for some in tiles for one in some], "abcd")])
    alone, mine = learn(
        [pack_conversations([one], some, "a") for one, some in zip(encoded, tiles, strict=True)]
    )
    assert together == pytest.approx(alone, rel=1e-5)
    for left, right in zip(theirs, mine, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4 * float(right.abs().max()))


def test_a_picture_stands_in_the_sequence_as_the_projector_made_it(family) -> None:
    """Text is scaled where a family scales its embeddings; a picture never is."""
    _, model, *_ = family
    pack = pack_conversations([said(model, 1, 2)], [tile(1), tile(2)], "a")
    with torch.no_grad():
        embeddings = model.embed(pack)
        features = model.encode_images(pack.tiles_NCHW).flatten(0, 1)
        text = token_embedding(model.language_model)(pack.ids_T.clamp(min=0))
    pictured = pack.ids_T == IMAGE_TOKEN_ID
    assert torch.equal(embeddings[pictured], features)
    assert torch.equal(embeddings[~pictured], text[~pictured])


def test_opening_the_saved_folder_gives_the_same_model(family) -> None:
    name, model, _, folder = family
    config = json.loads((folder / "config.json").read_text())
    reason = FAMILIES[name].own
    assert config["model_type"] == ("llava" if reason is None else "llavakit_llava")
    assert reason is None or reason in config["why_this_layout"]
    again = Llava.from_pretrained(folder)
    embedding, head = (
        again.language_model.get_input_embeddings(),
        again.language_model.get_output_embeddings(),
    )
    assert (head.weight is embedding.weight) == FAMILIES[name].tied
    assert again.vocabulary == model.vocabulary
    mine, other = model.state_dict(), again.state_dict()
    assert mine.keys() == other.keys() and all(torch.equal(mine[key], other[key]) for key in mine)
    pack = pack_conversations([said(model, 1, 1)], [tile(1)], "a")
    assert pack.ids_T.tolist() == said(again, 1, 1).ids
    with torch.no_grad():
        assert torch.equal(model.logits(pack), again.logits(pack))


def test_stock_transformers_computes_the_same(family) -> None:
    """Of the saved folder where its layout can express the family, else of the language model fed the same rows."""
    name, model, source, folder = family
    encoded = said(model, 1, 2)
    tiles = [tile(1), tile(2)]
    pack = pack_conversations([encoded], tiles, "a")
    with torch.no_grad():
        mine = model.logits(pack)
        if FAMILIES[name].own is None:
            stock, info = LlavaForConditionalGeneration.from_pretrained(
                folder, output_loading_info=True, dtype=torch.float32
            )
            assert not (info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"])
            ids = pack.ids_T[None].masked_fill(
                pack.ids_T[None] == IMAGE_TOKEN_ID, stock.config.image_token_id
            )
            theirs = stock.eval()(input_ids=ids, pixel_values=pack.tiles_NCHW).logits[
                0, :, : model.vocabulary
            ]
        else:
            alone = AutoModelForCausalLM.from_pretrained(source, attn_implementation="eager").eval()
            theirs = alone(inputs_embeds=model.embed(pack)[None]).logits[0]
    assert float((theirs - mine).abs().max()) <= 1e-4
    assert float(mine.std()) > 0.1


def test_greedy_answers_are_those_of_the_familys_own_generate(family) -> None:
    """The language model alone, with its own attention, masks and cache, fed the same embeddings."""
    _, model, source, _ = family
    own = AutoModelForCausalLM.from_pretrained(source, attn_implementation="eager").eval()
    own.generation_config.eos_token_id = None
    request = Request(said(model, 1, 1, prompt=True), [tile(1)])
    embeddings = prompt_embeddings(model, [request], PictureFeatures(model))
    stopping = Stopping(model)
    stopping.ended = lambda written: False  # type: ignore[method-assign]
    written: list[int] = []
    list(decode_one(model, embeddings, DynamicCache(), Sampling(), stopping, 20, written))
    expected = own.generate(
        inputs_embeds=embeddings,
        attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long),
        max_new_tokens=20,
        do_sample=False,
    )
    assert written == expected[0].tolist()
    assert len(set(written)) > 1


def test_prompts_of_other_lengths_in_one_batch_are_answered_as_alone(family, monkeypatch) -> None:
    """Empty positions before the shorter prompts are seen by nothing, in any family's attention."""
    _, model, *_ = family
    requests = [
        Request(
            said(model, number, pictures, prompt=True), [tile(number + place) for place in range(pictures)]
        )
        for number, pictures in ((1, 1), (2, 2), (34567, 1), (4, 0), (5_000_000_000, 0), (34567, 2), (1, 1))
    ]
    assert len({len(request.prompt.ids) for request in requests}) >= 3
    fed: list[bool] = []
    run = model.language_model.base_model.forward

    def heard(**given: Any) -> Any:
        fed.append(given.get("seen") is not None)
        return run(**given)

    monkeypatch.setattr(model.language_model.base_model, "forward", heard)
    together = generate(model, requests, max_new_tokens=12)
    assert any(fed), "rows of several lengths shared a batch"
    fed.clear()
    alone = [generate(model, [request], max_new_tokens=12)[0] for request in requests]
    assert not any(fed)
    assert together == alone
