"""The small language model that stands in for Vicuna: trained on dialogues about scenes described in words.

Vicuna can answer questions about a text before it ever meets a picture. So can this one. What is hard for a small
model is to find a thing by its name, the step before every answer about it; from the answers alone it learns that
very late. So the training also asks early: where a question names a thing, a linear layer on the state after a few
layers must tell what is true of it (how many there are, which colours, sizes and places), and is thrown away in the
end. The later layers are free to compare and to answer.

The result is an ordinary `LlamaForCausalLM` folder with a byte-level BPE tokenizer and a chat template, saved in
float16.

This room trains the language model alone. It knows nothing of pixels, of the tower or of LLaVA.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from llavakit.quickstart.dialogues import (
    CELLS,
    END,
    FACTS,
    PAD,
    Dialogues,
    batch_of,
    draw_dialogue,
    train_tokenizer,
)
from llavakit.quickstart.pretrain_tower import optimizers, rate

# B dialogues, T positions, P cells of a map, D width, S supervised positions, K vocabulary, N names, F facts


@dataclass(frozen=True, slots=True)
class LanguageTraining:
    """dialogues: a batch, of which the share `crowded` is about crowded maps. turns: questions of a dialogue.

    early_layer, early_weight: after which layer the facts of a name are asked for, and how much that counts.
    """

    steps: int = 1500
    dialogues: int = 32
    turns: int = 8
    crowded: float = 0.5
    early_layer: int = 3
    early_weight: float = 0.2
    width: int = 160
    layers: int = 6
    heads: int = 5
    inner: int = 432
    rope_theta: float = 1e6
    muon: float = 0.01
    adam: float = 2e-3
    weight_decay: float = 0.01
    seed: int = 11


def language_config(plan: LanguageTraining, tokenizer: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=plan.width, intermediate_size=plan.inner,
        num_hidden_layers=plan.layers, num_attention_heads=plan.heads, num_key_value_heads=plan.heads,
        max_position_embeddings=2048, tie_word_embeddings=True, rms_norm_eps=1e-5, bos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": plan.rope_theta},
        eos_token_id=tokenizer.convert_tokens_to_ids(END), pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
    )  # fmt: skip


def batches(plan: LanguageTraining, tokenizer: Any) -> Iterator[Dialogues]:
    """Fresh dialogues for every step."""
    rng = random.Random(f"language/{plan.seed}")
    for _ in range(plan.steps):
        yield batch_of(
            [draw_dialogue(rng, plan.turns, plan.crowded) for _ in range(plan.dialogues)], tokenizer
        )


def embed(model: LlamaForCausalLM, batch: Dialogues) -> Tensor:
    """Token embeddings (B, T, D) with every cell of the map as the sum of its words' embeddings."""
    table = model.get_input_embeddings()
    embeddings_BTD = table(batch.ids_BT)
    spoken_BPW = batch.words_BPW.ne(int(model.config.pad_token_id or 0))
    cells_BPD = (table(batch.words_BPW) * spoken_BPW.unsqueeze(-1)).sum(2)
    return torch.cat([embeddings_BTD[:, :1], cells_BPD, embeddings_BTD[:, 1 + CELLS :]], dim=1)


class Losses(nn.Module):
    """The language model with the layer that is asked early; gives both losses of a batch."""

    def __init__(self, model: LlamaForCausalLM, plan: LanguageTraining) -> None:
        super().__init__()
        self.model, self.early_layer = model, plan.early_layer
        self.early = nn.Sequential(
            nn.RMSNorm(plan.width, elementwise_affine=False), nn.Linear(plan.width, len(FACTS))
        )

    def forward(self, batch: Dialogues) -> tuple[Tensor, Tensor, float]:
        """The mean loss of the answers' tokens, the summed loss of a name's facts, the share of tokens right."""
        targets_BT = batch.labels_BT[:, 1:]
        told_BT = targets_BT != -100
        states = self.model.model(
            inputs_embeds=embed(self.model, batch), use_cache=False, output_hidden_states=True
        )
        logits_SK = self.model.lm_head(states.last_hidden_state[:, :-1][told_BT]).float()
        truth_S = targets_BT[told_BT]
        early_NF = self.early(states.hidden_states[self.early_layer][tuple(batch.named_N2.T)].float()).float()
        facts = nn.functional.binary_cross_entropy_with_logits(early_NF, batch.facts_NF, reduction="sum")
        return (
            nn.functional.cross_entropy(logits_SK, truth_S),
            facts / max(1, len(early_NF)),
            float((logits_SK.argmax(-1) == truth_S).float().mean()),
        )


def train_language_model(plan: LanguageTraining, folder: Path, say: Callable[[str], None]) -> None:
    """Train on fresh dialogues without any held-out pair and save model and tokenizer at `folder`."""
    torch.manual_seed(plan.seed)
    tokenizer = train_tokenizer(plan.seed, plan.turns)
    model = LlamaForCausalLM(language_config(plan, tokenizer))
    losses = Losses(model, plan)
    optims = optimizers(
        losses, muon=plan.muon, adam=plan.adam, weight_decay=plan.weight_decay,
        hidden=lambda name: "layers" in name,
    )  # fmt: skip
    rates = [[group["lr"] for group in optim.param_groups] for optim in optims]
    started, tokens = time.monotonic(), 0
    for step, batch in enumerate(batches(plan, tokenizer)):
        for optim, base in zip(optims, rates, strict=True):
            for group, lr in zip(optim.param_groups, base, strict=True):
                group["lr"] = lr * rate(step, plan.steps)
        with torch.autocast("cpu", torch.bfloat16):
            answers, facts, exact = losses(batch)
        (answers + plan.early_weight * facts).backward()
        for optim in optims:
            optim.step()
            optim.zero_grad()
        tokens += batch.ids_BT.numel()
        if step % 50 == 0 or step == plan.steps - 1:
            seconds = time.monotonic() - started
            say(
                f"language step {step} of {plan.steps}: loss {answers.item():.4f}, facts {facts.item():.3f}, "
                f"tokens right {exact:.4f}, {tokens / seconds:.0f} tokens/s, {seconds:.0f} s"
            )
    tokenizer.save_pretrained(folder)
    model.half().save_pretrained(folder)
