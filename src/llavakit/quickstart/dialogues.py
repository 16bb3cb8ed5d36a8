"""Scenes in words and dialogues about them: what the small language model learns from.

A scene is said as a map: cell by cell in reading order, one position a cell; the words that hold in a cell (a thing's
name, colour, size and place) are said at once, their embeddings added, and an empty cell is a full stop. Behind the
map stand questions and answers. Some maps are crowded with more things than a picture has room for: among ten things
a guess is seldom right, so there is more to learn from.

With every name in a question goes what is true of the things so called. The training asks for that early in the model
(`pretrain_language_model`); no token says it.

This room writes ids and truths. It knows the tokenizer, and nothing of models or of training.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from llavakit.quickstart.pretrain_tower import PATCH, SIDE
from llavakit.quickstart.questions import CONVERSATION, REASONING, Asked, detail, dialogue
from llavakit.quickstart.scenes import (
    COLOURS,
    COLUMNS,
    MOST_THINGS,
    NAMES,
    PLURALS,
    ROWS,
    Thing,
    draw_scene_plan,
    held_out,
)

# B dialogues, T positions, P cells of a map, W words of a cell, N names in questions, F facts
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
MOST_CROWDED = 10
# What questions about crowded maps are about; counting stays with the scenes, which never hold more than four things.
CROWD_QUESTIONS = (
    "presence", "presence", "colour", "colour", "relation", "relation", "relation", "bearing", "bearing", "bearing",
    "presence_of_pair", "place", "at_place", "of_colour", "size",
)  # fmt: skip
FACTS = (*COLOURS, "small", "large", *ROWS, *COLUMNS, *range(MOST_THINGS + 1))


@dataclass(frozen=True, slots=True)
class Dialogues:
    """A batch of dialogues.

    ids_BT: padded to the right. labels_BT: the answers with their ends, -100 elsewhere. words_BPW: the ids of every
    cell's words, PAD where a cell has fewer (the map stands at positions 1 to P of each row). named_N2: row and
    position of every name in a question. facts_NF: 1 where the fact holds for a thing of that name.
    """

    ids_BT: Tensor
    labels_BT: Tensor
    words_BPW: Tensor
    named_N2: Tensor
    facts_NF: Tensor


def word_map(things: Sequence[Thing]) -> dict[int, tuple[str, ...]]:
    """The words of every cell that holds the centre of a thing."""
    cells: dict[int, tuple[str, ...]] = {}
    for thing in things:
        x, y = thing.centre
        words = (thing.name, thing.colour, thing.size, thing.row, thing.column)
        cells[int(y // PATCH) * SIDE + int(x // PATCH)] = words
    return cells


def facts(things: Sequence[Thing], name: str) -> list[float]:
    """1 for every fact of FACTS that is true of the things called `name`: their words, and how many there are."""
    so_called = [thing for thing in things if thing.name == name]
    true = {word for thing in so_called for word in (thing.colour, thing.size, thing.row, thing.column)}
    return [float(fact in true or fact == len(so_called)) for fact in FACTS]


def crowd(rng: random.Random) -> list[Thing]:
    """Three to ten things, each in a cell of its own, at most four of a name and no held-out pair."""
    cells = rng.sample(range(CELLS), rng.randint(3, MOST_CROWDED))
    names = [rng.choice(NAMES) for _ in range(max(2, int(len(cells) * rng.choice((0.5, 1, 1)))))]
    things: list[Thing] = []
    for cell in cells:
        full = {thing.name for thing in things if sum(t.name == thing.name for t in things) == MOST_THINGS}
        name = rng.choice([n for n in names if n not in full] or [n for n in NAMES if n not in full])
        colour = rng.choice([c for c in COLOURS if not held_out(name, c)])
        size = rng.choice(("small", "large"))
        x, y = cell % SIDE * PATCH, cell // SIDE * PATCH
        things.append(Thing(name, colour, size, (x, y, PATCH, PATCH)))
    return things


def draw_dialogue(rng: random.Random, turns: int, crowded: float) -> tuple[Sequence[Thing], list[Asked]]:
    """Things, and questions about them with their answers; `crowded` is the share of crowded maps."""
    if rng.random() < crowded:
        things: Sequence[Thing] = crowd(rng)
        kinds = ["presence", *(rng.choice(CROWD_QUESTIONS) for _ in range(2 * turns))]
        drawn = [CONVERSATION[kind](things, rng) for kind in kinds]
        return things, list(dict(one for one in drawn if one is not None).items())[:turns]
    things = draw_scene_plan(rng).things
    asked = dialogue(things, rng, turns)
    more = [writer(things, rng) for writer in REASONING.values() if rng.random() < 0.3]
    asked += [*(one for one in more if one is not None), detail(things, rng)]
    rng.shuffle(asked)
    return things, asked


def train_tokenizer(seed: int, turns: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE fitted to the dialogues: their words are single tokens, anything else is spelt in bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=[PAD, END, SYSTEM, USER, ASSISTANT],
    )  # fmt: skip
    rng = random.Random(f"tokenizer/{seed}")

    def texts() -> Iterator[str]:
        for _ in range(4000):
            things, asked = draw_dialogue(rng, turns, crowded=0)
            yield from (" " + " ".join(words) for words in word_map(things).values())
            yield from (f"\n{question}\n{answer}" for question, answer in asked)

    tokenizer.train_from_iterator(texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE, clean_up_tokenization_spaces=False, model_max_length=2048,
    )  # fmt: skip


def batch_of(spoken: Sequence[tuple[Sequence[Thing], list[Asked]]], tokenizer: Any) -> Dialogues:
    """Things with their dialogues as one batch; answers are supervised, with the token that ends them."""
    pad, user, stop = (tokenizer.convert_tokens_to_ids(token) for token in (PAD, USER, "."))
    names = _name_tokens(tokenizer)
    words_BPW = torch.full((len(spoken), CELLS, WORDS_A_CELL), pad)
    words_BPW[:, :, 0] = stop
    rows, named, true = [], [], []
    for number, (things, asked) in enumerate(spoken):
        for cell, words in word_map(things).items():
            ids = tokenizer([" " + word for word in words])["input_ids"]
            words_BPW[number, cell] = torch.tensor([only for (only,) in ids])
        ids, labels = _spoken(asked, tokenizer, [user] + [stop] * CELLS)
        rows.append((ids, labels))
        for place, (token, label) in enumerate(zip(ids, labels, strict=True)):
            if token in names and label < 0:
                named.append((number, place))
                true.append(facts(things, names[token]))
    ids_BT = torch.full((len(rows), max(len(ids) for ids, _ in rows)), pad)
    labels_BT = torch.full_like(ids_BT, -100)
    for number, (ids, labels) in enumerate(rows):
        ids_BT[number, : len(ids)] = torch.tensor(ids)
        labels_BT[number, : len(ids)] = torch.tensor(labels)
    named_N2 = torch.tensor(named, dtype=torch.long).reshape(-1, 2)
    return Dialogues(ids_BT, labels_BT, words_BPW, named_N2, torch.tensor(true).reshape(-1, len(FACTS)))


def _name_tokens(tokenizer: Any) -> dict[int, str]:
    """The names and their plurals that are one token when a space stands before them."""
    spelt = {" " + word: name for name in NAMES for word in (PLURALS[name], name)}
    ids = tokenizer(list(spelt))["input_ids"]
    return {one[0]: name for one, name in zip(ids, spelt.values(), strict=True) if len(one) == 1}


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
