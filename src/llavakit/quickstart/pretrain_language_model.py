"""The small language model that stands in for Vicuna: trained on dialogues about scenes described in words.

Vicuna can answer questions about a text before it ever meets a picture. So can this one: every example describes a
scene in words (as a caption, as an inventory in any order, as terse notes with the words of a thing shuffled), then asks
and answers. The result is an ordinary `LlamaForCausalLM` folder with a byte-level BPE tokenizer and a chat template,
saved in float16.

This room trains the language model alone. It knows nothing of pictures or of LLaVA.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llavakit.quickstart.pretrain_tower import optimizers, rate
from llavakit.quickstart.questions import REASONING, Asked, detail, dialogue
from llavakit.quickstart.scenes import Scene, article, captions, draw_scene_plan, join, sentence

# B dialogues, T positions
USER, ASSISTANT, SYSTEM, END = "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] != 'user' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
VOCABULARY = 704


@dataclass(frozen=True, slots=True)
class LanguageTraining:
    steps: int = 6000
    retelling: float = 0.2  # share of the steps that only retell, before questions join
    dialogues: int = 10
    turns: int = 10
    width: int = 160
    layers: int = 6
    heads: int = 5
    inner: int = 432
    muon: float = 0.01
    adam: float = 2e-3
    weight_decay: float = 0.01
    seed: int = 11


def language_config(plan: LanguageTraining, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=plan.width, intermediate_size=plan.inner,
        num_hidden_layers=plan.layers, num_attention_heads=plan.heads, num_key_value_heads=plan.heads,
        max_position_embeddings=2048, tie_word_embeddings=True, rms_norm_eps=1e-5,
        bos_token_id=None, eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids("<|pad|>"),
    )  # fmt: skip


def in_words(scene: Scene, rng: random.Random) -> str:
    """The scene as text, in one of three manners."""
    things = list(scene.things)
    manner = rng.random()
    if manner < 0.25:
        return captions(scene, rng)[rng.randrange(2)]
    rng.shuffle(things)
    if manner < 0.5:
        plain = [f"{article(t.colour)} {t.colour} {t.name}, {t.size}, {t.place}" for t in things]
        return sentence("; ".join(plain))
    notes = []
    for thing in things:
        words = [thing.name, thing.colour, thing.size, thing.row, thing.column]
        rng.shuffle(words)
        notes.append("." * rng.randint(0, 6) + " " + " ".join(words) + ";")
    return "".join(notes) + "." * rng.randint(0, 6)


def retelling(scene: Scene, rng: random.Random) -> list[Asked]:
    """The scene told again in other orders and manners: nearly every word of the answers has to be looked up, which
    teaches looking up long before questions could."""
    return [("Say it in other words.", in_words(scene, rng)) for _ in range(2)] + [detail(scene.things, rng)]


def questioning(scene: Scene, rng: random.Random, turns: int) -> list[Asked]:
    """Questions of every kind, and a telling or a description now and then."""
    asked = dialogue(scene.things, rng, turns)
    more = [writer(scene.things, rng) for writer in REASONING.values() if rng.random() < 0.3]
    if rng.random() < 0.6:
        more.append(rng.choice(retelling(scene, rng)))
    for one in more:
        if one is not None:
            asked.insert(rng.randint(0, len(asked)), one)
    return asked


def example(rng: random.Random, turns: int) -> str:
    """One described scene with its dialogue, written out with the chat template's marks; no turns: a retelling."""
    scene = draw_scene_plan(rng)
    text = in_words(scene, rng) + "\n"
    asked = questioning(scene, rng, turns) if turns else retelling(scene, rng)
    return "".join(
        f"{USER}{text if turn == 0 else ''}{question}{ASSISTANT}{answer}{END}"
        for turn, (question, answer) in enumerate(asked)
    )


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE fitted to the dialogues: their words are single tokens, anything else is spelt in bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=["<|pad|>", END, SYSTEM, USER, ASSISTANT],
    )  # fmt: skip
    rng = random.Random(f"tokenizer/{seed}")
    tokenizer.train_from_iterator((example(rng, 12) for _ in range(4000)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token="<|pad|>",
        additional_special_tokens=[SYSTEM, USER, ASSISTANT], chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False, model_max_length=2048,
    )  # fmt: skip


def batches(plan: LanguageTraining, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless fresh dialogues, padded on the right: ids and labels (B, T), supervised from <|assistant|> to <|end|>."""
    rng = random.Random(f"language/{plan.seed}")
    step = 0
    pad, end, assistant = (tokenizer.convert_tokens_to_ids(t) for t in ("<|pad|>", END, ASSISTANT))
    while True:
        turns = plan.turns if step >= plan.retelling * plan.steps else 0
        texts = [example(rng, turns) for _ in range(plan.dialogues)]
        step += 1
        rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
        ids_BT = torch.full((len(rows), max(map(len, rows))), pad)
        labels_BT = torch.full_like(ids_BT, -100)
        for row, ids in enumerate(rows):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            speaking = False
            for position, token in enumerate(ids):
                if speaking:
                    labels_BT[row, position] = token
                speaking = token == assistant or (speaking and token != end)
        yield ids_BT, labels_BT


def train_language_model(plan: LanguageTraining, folder: Path, say: Callable[[str], None]) -> None:
    """Train on fresh dialogues without any held-out pair and save model and tokenizer at `folder`."""
    torch.manual_seed(plan.seed)
    tokenizer = train_tokenizer(plan.seed)
    tokenizer.save_pretrained(folder)
    model = LlamaForCausalLM(language_config(plan, tokenizer))
    optims = optimizers(
        model, muon=plan.muon, adam=plan.adam, weight_decay=plan.weight_decay, hidden=lambda name: "layers" in name
    )
    rates = [[group["lr"] for group in optim.param_groups] for optim in optims]
    started, tokens = time.monotonic(), 0
    for step, (ids_BT, labels_BT) in enumerate(batches(plan, tokenizer)):
        if step == plan.steps:
            break
        for optim, base in zip(optims, rates, strict=True):
            for group, lr in zip(optim.param_groups, base, strict=True):
                group["lr"] = lr * rate(step, plan.steps)
        targets_BT = labels_BT[:, 1:]
        told_BT = targets_BT != -100
        with torch.autocast("cpu", torch.bfloat16):
            hidden_BTD = model.model(input_ids=ids_BT, use_cache=False).last_hidden_state[:, :-1]
            logits_SK = model.lm_head(hidden_BTD[told_BT]).float()
        truth_S = targets_BT[told_BT]
        loss = nn.functional.cross_entropy(logits_SK, truth_S)
        loss.backward()
        for optim in optims:
            optim.step()
            optim.zero_grad()
        tokens += ids_BT.numel()
        if step % 100 == 0 or step == plan.steps - 1:
            exact = (logits_SK.argmax(-1) == truth_S).float().mean()
            say(
                f"language step {step} loss {loss.item():.4f} tokens right {exact:.4f} "
                f"{tokens / (time.monotonic() - started):.0f} tok/s {time.monotonic() - started:.0f}s"
            )
            if step % 1000 == 0:
                model.save_pretrained(folder)
    model.half().save_pretrained(folder)
