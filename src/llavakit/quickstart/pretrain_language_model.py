"""The small language model that stands in for Vicuna: trained on dialogues about scenes described in words.

Vicuna can answer questions about a text before it ever meets a picture. So can this one. A scene is described as a
map of words: cell by cell in reading order, one position a cell; the words that hold in a cell (a thing's name,
colour, size and place) are said at once, their embeddings added, and an empty cell is a full stop. Then it is asked
and answers. The result is an ordinary `LlamaForCausalLM` folder with a byte-level BPE tokenizer and a chat template,
saved in float16.

This room trains the language model alone. It knows nothing of pixels, of the tower or of LLaVA.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llavakit.quickstart.pretrain_tower import PATCH, SIDE, optimizers, rate
from llavakit.quickstart.questions import CONVERSATION, REASONING, Asked, detail, dialogue
from llavakit.quickstart.scenes import Scene, draw_scene_plan

# B dialogues, T positions, P cells of a map, W words of a cell, D width, S supervised positions, K vocabulary
USER, ASSISTANT, SYSTEM, END, PAD = "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] != 'user' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
VOCABULARY = 704
CELLS = SIDE * SIDE
WORDS_A_CELL = 5
LOOKUPS = ("colour", "place", "at_place", "of_colour", "size", "kinds")


@dataclass(frozen=True, slots=True)
class LanguageTraining:
    """phases: what dialogues are made of, and for how many steps. alike_heads: see `begin_by_looking_up`."""

    phases: tuple[tuple[str, int], ...] = (("lookups", 250), ("questions", 1450))
    dialogues: int = 16
    turns: int = 8
    width: int = 160
    layers: int = 6
    heads: int = 5
    alike_heads: int = 3
    inner: int = 432
    muon: float = 0.01
    adam: float = 2e-3
    weight_decay: float = 0.01
    seed: int = 11


@dataclass(frozen=True, slots=True)
class Dialogues:
    """A batch: ids_BT with padding to the right, labels_BT, and words_BPW, the ids of every cell's words (the map
    stands at positions 1 to P of each row; PAD where a cell has fewer words)."""

    ids_BT: Tensor
    labels_BT: Tensor
    words_BPW: Tensor


def language_config(plan: LanguageTraining, tokenizer: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=plan.width, intermediate_size=plan.inner,
        num_hidden_layers=plan.layers, num_attention_heads=plan.heads, num_key_value_heads=plan.heads,
        max_position_embeddings=2048, tie_word_embeddings=True, rms_norm_eps=1e-5, bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END), pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
    )  # fmt: skip


def word_map(scene: Scene) -> dict[int, tuple[str, ...]]:
    """The words of every cell that holds the centre of a thing."""
    cells: dict[int, tuple[str, ...]] = {}
    for thing in scene.things:
        x, y = thing.centre
        words = (thing.name, thing.colour, thing.size, thing.row, thing.column)
        cells[int(y // PATCH) * SIDE + int(x // PATCH)] = words
    return cells


def asked_about(scene: Scene, rng: random.Random, phase: str, turns: int) -> list[Asked]:
    """The dialogue of a phase: "lookups" by one of a thing's words, or "questions" of every kind; and a description."""
    if phase == "lookups":
        written = [CONVERSATION[rng.choice(LOOKUPS)](scene.things, rng) for _ in range(2 * turns)]
        asked = list(dict(one for one in written if one is not None).items())[:turns]
    else:
        asked = dialogue(scene.things, rng, turns)
        more = [writer(scene.things, rng) for writer in REASONING.values() if rng.random() < 0.3]
        asked += [one for one in more if one is not None]
    asked.append(detail(scene.things, rng))
    rng.shuffle(asked)
    return asked


def train_tokenizer(plan: LanguageTraining) -> PreTrainedTokenizerFast:
    """A byte-level BPE fitted to the dialogues: their words are single tokens, anything else is spelt in bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=[PAD, END, SYSTEM, USER, ASSISTANT],
    )  # fmt: skip
    rng = random.Random(f"tokenizer/{plan.seed}")

    def texts() -> Iterator[str]:
        for _ in range(4000):
            scene = draw_scene_plan(rng)
            yield from (" " + " ".join(words) for words in word_map(scene).values())
            yield from (
                f"\n{question}\n{answer}"
                for question, answer in asked_about(scene, rng, "questions", plan.turns)
            )

    tokenizer.train_from_iterator(texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE, clean_up_tokenization_spaces=False, model_max_length=2048,
    )  # fmt: skip


def batches(plan: LanguageTraining, tokenizer: Any) -> Iterator[Dialogues]:
    """Fresh dialogues for every step of every phase."""
    rng = random.Random(f"language/{plan.seed}")
    for phase in (phase for phase, steps in plan.phases for _ in range(steps)):
        spoken = []
        for _ in range(plan.dialogues):
            scene = draw_scene_plan(rng)
            spoken.append((scene, asked_about(scene, rng, phase, plan.turns)))
        yield batch_of(spoken, tokenizer)


def batch_of(spoken: Sequence[tuple[Scene, list[Asked]]], tokenizer: Any) -> Dialogues:
    """Scenes with their dialogues as one batch; answers are supervised, with the token that ends them."""
    pad, user, stop = (tokenizer.convert_tokens_to_ids(token) for token in (PAD, USER, "."))
    words_BPW = torch.full((len(spoken), CELLS, WORDS_A_CELL), pad)
    words_BPW[:, :, 0] = stop
    rows = [_spoken(asked, tokenizer, [user] + [stop] * CELLS) for _, asked in spoken]
    for number, (scene, _) in enumerate(spoken):
        for cell, words in word_map(scene).items():
            ids = tokenizer([" " + word for word in words])["input_ids"]
            words_BPW[number, cell] = torch.tensor([only for (only,) in ids])
    ids_BT = torch.full((len(rows), max(len(ids) for ids, _ in rows)), pad)
    labels_BT = torch.full_like(ids_BT, -100)
    for number, (ids, labels) in enumerate(rows):
        ids_BT[number, : len(ids)] = torch.tensor(ids)
        labels_BT[number, : len(ids)] = torch.tensor(labels)
    return Dialogues(ids_BT, labels_BT, words_BPW)


def _spoken(asked: list[Asked], tokenizer: Any, ahead: list[int]) -> tuple[list[int], list[int]]:
    questions = [
        ("\n" if turn == 0 else USER) + question + ASSISTANT for turn, (question, _) in enumerate(asked)
    ]
    answers = [answer + END for _, answer in asked]
    ids, labels = list(ahead), [-100] * len(ahead)
    for question, answer in zip(
        tokenizer(questions)["input_ids"], tokenizer(answers)["input_ids"], strict=True
    ):
        ids += question + answer
        labels += [-100] * len(question) + answer
    return ids, labels


def embed(model: LlamaForCausalLM, batch: Dialogues) -> Tensor:
    """Token embeddings (B, T, D) with every cell of the map as the sum of its words' embeddings."""
    table = model.get_input_embeddings()
    embeddings_BTD = table(batch.ids_BT)
    spoken_BPW = batch.words_BPW.ne(int(model.config.pad_token_id or 0))
    cells_BPD = (table(batch.words_BPW) * spoken_BPW.unsqueeze(-1)).sum(2)
    return torch.cat([embeddings_BTD[:, :1], cells_BPD, embeddings_BTD[:, 1 + CELLS :]], dim=1)


@torch.no_grad()
def begin_by_looking_up(model: LlamaForCausalLM, heads: int) -> None:
    """Let heads begin by finding what their own position holds and copying what stands there.

    In the first `heads` heads of every layer keys equal queries, so a position attends to others that hold the same
    words; in all heads the output matrix is half the transpose of the value matrix, so what is attended to is copied.
    Trained language models come to hold such heads, late and suddenly; begun this way they are there within minutes.
    (After Trockman and Kolter, "Mimetic initialization of self-attention layers", 2023.)
    """
    for layer in model.model.layers:
        attention = layer.self_attn
        alike = heads * attention.head_dim
        query, value = (nn.init.orthogonal_(torch.empty_like(attention.q_proj.weight)) for _ in range(2))
        attention.q_proj.weight[:alike] = 1.1 * query[:alike]
        attention.k_proj.weight[:alike] = 1.1 * query[:alike]
        attention.v_proj.weight.copy_(value)
        attention.o_proj.weight.copy_(0.5 * value.T)


def train_language_model(plan: LanguageTraining, folder: Path, say: Callable[[str], None]) -> None:
    """Train on fresh dialogues without any held-out pair and save model and tokenizer at `folder`."""
    torch.manual_seed(plan.seed)
    tokenizer = train_tokenizer(plan)
    model = LlamaForCausalLM(language_config(plan, tokenizer))
    begin_by_looking_up(model, plan.alike_heads)
    optims = optimizers(
        model,
        muon=plan.muon,
        adam=plan.adam,
        weight_decay=plan.weight_decay,
        hidden=lambda name: "layers" in name,
    )
    rates = [[group["lr"] for group in optim.param_groups] for optim in optims]
    steps = sum(steps for _, steps in plan.phases)
    started, tokens = time.monotonic(), 0
    for step, batch in enumerate(batches(plan, tokenizer)):
        for optim, base in zip(optims, rates, strict=True):
            for group, lr in zip(optim.param_groups, base, strict=True):
                group["lr"] = lr * rate(step, steps)
        targets_BT = batch.labels_BT[:, 1:]
        told_BT = targets_BT != -100
        with torch.autocast("cpu", torch.bfloat16):
            hidden_BTD = model.model(inputs_embeds=embed(model, batch), use_cache=False).last_hidden_state[
                :, :-1
            ]
            logits_SK = model.lm_head(hidden_BTD[told_BT]).float()
        truth_S = targets_BT[told_BT]
        loss = nn.functional.cross_entropy(logits_SK, truth_S)
        loss.backward()
        for optim in optims:
            optim.step()
            optim.zero_grad()
        tokens += batch.ids_BT.numel()
        if step % 50 == 0 or step == steps - 1:
            exact = (logits_SK.argmax(-1) == truth_S).float().mean()
            seconds = time.monotonic() - started
            say(
                f"language step {step} of {steps}: loss {loss.item():.4f}, tokens right {exact:.4f}, "
                f"{tokens / seconds:.0f} tokens/s, {seconds:.0f} s"
            )
    tokenizer.save_pretrained(folder)
    model.half().save_pretrained(folder)
