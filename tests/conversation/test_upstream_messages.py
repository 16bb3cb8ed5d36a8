"""v0, ChatML and LLaMA-3 give LLaVA's own ids, and its labels of the answers wherever it did not lose the sample."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.conversation.record import Conversation, Part, Picture, Text, Turn
from llavakit.conversation.templates import get_template
from llavakit.conversation.tokenize import IGNORE_INDEX, Encoded, encode
from tests.conversation import upstream
from tests.conversation.families import made

# The family of tokenizer that each template was made for.
FAMILIES = {"v0": ("vicuna", "llama"), "chatml_direct": ("yi",), "qwen": ("qwen",), "llama_3": ("llama_3",)}
PAIRS = [(template, family) for template, families in FAMILIES.items() for family in families]

FIXED: dict[str, upstream.Rounds] = {
    "one": [("<image>\nWhat is this?", "It is a small red circle.")],
    "three": [
        ("<image>\nHow many stars are there?", "Three."),
        ("Is there a cat?", "No, a dog."),
        ("Why?", "I think so."),
    ],
    "after": [("Describe the picture.\n<image>", "A cat, two chairs — and 猫.")],
    "two": [("<image>\n<image>\nWhich is larger?", "The second."), ("Sure?\n<image>", "Yes.\nSure.")],
    "text": [("Answer the questions.", "Ask."), ("What is 2 + 2?", "4")],
    "odd": [("<image>\n  spaced  ", "\n猫 🙂 is the\tanswer"), ("é́", "1")],
}


def conversation(rounds: upstream.Rounds) -> Conversation:
    turns, shown = [], 0
    for asked, answer in rounds:
        parts: list[Part] = []
        for number, words in enumerate(asked.split("<image>")):
            if number:
                parts.append(Picture(shown))
                shown += 1
            if words:
                parts.append(Text(words))
        turns += [Turn("user", tuple(parts)), Turn("assistant", (Text(answer),))]
    return Conversation("sample", "test", tuple(f"{n}.jpg" for n in range(shown)), tuple(turns))


def ours(template: str, rounds: upstream.Rounds, tokenizer: Any) -> Encoded:
    written = conversation(rounds)
    return encode(written, get_template(template, tokenizer), tokenizer, [1] * len(written.images))


def same_as_upstream(template: str, rounds: upstream.Rounds, tokenizer: Any) -> bool:
    """Compares; returns whether upstream had labels to compare."""
    ids, labels = upstream.BY_NAME[template](rounds, tokenizer)
    found = ours(template, rounds, tokenizer)
    assert found.ids == ids
    if labels is None:
        return False
    if template in ("qwen", "llama_3"):
        labels = answers_alone(template, found.ids, labels, tokenizer)
    assert found.labels == labels
    return True


def answers_alone(template: str, ids: list[int], labels: list[int], tokenizer: Any) -> list[int]:
    """Upstream's labels without the marks and headers that it also supervised: what follows the assistant's header, up
    to the end token."""
    header = {
        "qwen": "<|im_start|>assistant\n",
        "llama_3": "<|start_header_id|>assistant<|end_header_id|>\n\n",
    }
    sign = tokenizer(header[template], add_special_tokens=False).input_ids
    kept, answering = [], False
    for at, label in enumerate(labels):
        kept.append(label if answering else IGNORE_INDEX)
        answering = (answering and ids[at] != tokenizer.eos_token_id) or ids[: at + 1][-len(sign) :] == sign
    return kept


@pytest.mark.parametrize("rounds", FIXED.values(), ids=FIXED)
@pytest.mark.parametrize(("template", "family"), PAIRS)
def test_ids_and_labels_are_those_of_upstream(template: str, family: str, rounds: upstream.Rounds) -> None:
    same_as_upstream(template, rounds, made(family))


def test_upstream_has_labels_to_compare_with() -> None:
    compared = [
        same_as_upstream(template, FIXED["one"], made(family))
        for template, family in PAIRS
        if template != "v0"
    ]
    assert all(compared)


words = st.text("abc is. the?!é猫🙂\n,0", min_size=1, max_size=20)
questions = st.tuples(words, st.sampled_from(["{}", "<image>\n{}", "{}\n<image>"])).map(
    lambda drawn: drawn[1].format(drawn[0])
)
dialogues = st.lists(st.tuples(questions, words.filter(str.strip)), min_size=1, max_size=3)


@given(pair=st.sampled_from(PAIRS), rounds=dialogues)
@settings(max_examples=150, deadline=None)
def test_any_dialogue_has_the_ids_and_labels_of_upstream(
    pair: tuple[str, str], rounds: upstream.Rounds
) -> None:
    same_as_upstream(pair[0], rounds, made(pair[1]))


def test_v0_learns_the_answer_and_its_end_sign() -> None:
    tokenizer = made("vicuna")
    rounds = [("<image>\nWhat is this?", "A star."), ("And?", "A cat.")]
    encoded = ours("v0", rounds, tokenizer)
    runs, last = [], IGNORE_INDEX
    for label in encoded.labels:
        if label != IGNORE_INDEX:
            if last == IGNORE_INDEX:
                runs.append([])
            runs[-1].append(label)
        last = label
    assert [tokenizer.decode(run) for run in runs] == ["A star.\n###", "A cat.\n###"]
