"""Our ids and labels against LLaVA's own way: text joined first, cut at separators, tokenised again, lengths counted.

The rules are written here anew from their description and share nothing with the code under test. They are compared
wherever LLaVA would not have given the sample up ("tokenization mismatch").
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.conversation.record import Conversation
from llavakit.conversation.templates import get_template
from llavakit.conversation.tokenize import encode
from tests.conversation.conversations import talk
from tests.conversation.tokenizers import llama

IGNORED, PLACE = -100, -200
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
LLAMA_TWO = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
Said = list[tuple[str, str]]


def image_tokens(prompt: str) -> list[int]:
    """Each stretch between `<image>` alone, with BOS; of the BOS only the first is kept."""
    ids: list[int] = []
    for number, stretch in enumerate(prompt.split("<image>")):
        own = llama()(stretch)["input_ids"]
        assert own[0] == 1
        ids += [PLACE, *own[1:]] if number else own
    return ids


def joined(name: str, said: Said) -> str:
    text = ""
    for number, (asked, answer) in enumerate(said):
        if name == "vicuna_v1":
            text += ("" if number else VICUNA + " ") + f"USER: {asked} ASSISTANT: {answer}</s>"
            continue
        if name == "llama_2":
            asked = asked if number else f"<<SYS>>\n{LLAMA_TWO}\n<</SYS>>\n\n{asked}"
            text += "<s>" if number else ""
        text += f"[INST] {asked} [/INST] {answer} </s>"
    return text


def masked(name: str, text: str) -> list[int] | None:
    """LLaVA's labels, or None where its count does not come out."""
    ids = image_tokens(text)
    separator = " ASSISTANT: " if name == "vicuna_v1" else "[/INST] "
    labels, at = list(ids), 1
    labels[0] = IGNORED
    for stretch in text.split("</s>"):
        if not stretch:
            break
        parts = stretch.split(separator)
        if len(parts) != 2:
            break
        whole, asked = len(image_tokens(stretch)), len(image_tokens(parts[0] + separator)) - 2
        labels[at : at + asked] = [IGNORED] * asked
        at += whole
    labels[at:] = [IGNORED] * len(labels[at:])
    return labels if at == len(ids) else None


def ours(name: str, said: Said) -> tuple[list[int], list[int]]:
    turns: list[tuple[str | int, ...] | str] = []
    for number, (asked, answer) in enumerate(said):
        turns += [(0, asked.removeprefix("<image>")) if number == 0 else asked, answer]
    made: Conversation = talk(*turns)
    encoded = encode(made, get_template(name), llama(), [1])
    return encoded.ids, encoded.labels


sentence = st.text("abcdeIJTh ,.?!\n'é😀0", min_size=1, max_size=20).map(str.strip).filter(bool)


@pytest.mark.parametrize("name", ["vicuna_v1", "llama_2", "mistral"])
@settings(max_examples=80, deadline=None)
@given(said=st.lists(st.tuples(sentence, sentence), min_size=1, max_size=3))
def test_ids_and_labels_are_llavas(name: str, said: Said) -> None:
    said = [(f"<image>\n{said[0][0]}", said[0][1]), *said[1:]]
    text = joined(name, said)
    ids, labels = ours(name, said)
    assert ids == image_tokens(text)
    expected = masked(name, text)
    assert expected is not None, "the sample says nothing: LLaVA gives it up"
    assert labels == expected


@settings(max_examples=80, deadline=None)
@given(caption=sentence)
def test_plain_is_llavas(caption: str) -> None:
    ids = image_tokens(f"<image>{caption}\n")
    assert ours("plain", [("<image>Describe it.", caption)]) == (ids, [IGNORED, IGNORED, *ids[2:]])
