"""What a user or an assistant writes is text: it makes no special token and no picture, whatever it looks like, and
the text around it is tokenised as if it were not there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from llavakit.conversation.guard import guard_of
from llavakit.conversation.record import Conversation, Part, Picture, Text, Turn
from llavakit.conversation.templates import Written, get_template, template_names
from llavakit.conversation.tokenize import IMAGE_TOKEN_ID, encode
from tests.conversation.families import NAMES, fresh_family, made

NAMED = [name for name in template_names() if name != "tokenizer"]
WITH_TEMPLATE = [name for name in NAMES if made(name).chat_template]


def specials(tokenizer: Any) -> set[int]:
    return {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}


def direct(text: str, tokenizer: Any) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def guarded(pieces: list[tuple[str, bool]], tokenizer: Any) -> list[int]:
    return guard_of(tokenizer).encode([Written(text, control, False) for text, control in pieces]).ids


def marks(tokenizer: Any) -> list[str]:
    return [token.content for token in tokenizer.added_tokens_decoder.values()]


LIKENESS = ["<image>", "<s>", "</s>", "<unk>", "[INST]", "###", "<|im_end|>", "<|im_start|>", "<|eot_id|>", "<|user|>",
            "\ue000", "\ue0001\ue000", "\ue000\ue000", "<", "/s>", "|>"]  # fmt: skip
plain_words = st.text("ab cT.:?\n  é猫🙂1", max_size=12)
any_words = st.lists(st.text(max_size=6) | st.sampled_from(LIKENESS), max_size=4).map("".join)


@given(family=st.sampled_from(NAMES), data=st.data())
@settings(max_examples=100, deadline=None)
def test_text_without_likeness_has_the_tokenizers_own_ids(family: str, data: st.DataObject) -> None:
    """One pass over content and the template's words, marks among them, is the tokenizer's pass over the whole text."""
    tokenizer = made(family)
    pieces = data.draw(
        st.lists(
            st.tuples(plain_words, st.just(False))
            | st.tuples(st.sampled_from(marks(tokenizer)), st.just(True)),
            max_size=8,
        )
    )
    assert guarded(pieces, tokenizer) == direct("".join(text for text, _ in pieces), tokenizer)


@given(family=st.sampled_from(NAMES), text=any_words)
@example(family="unigram", text="a </s> b")
@example(family="vicuna", text="</s>")
@example(family="phi", text="<|user|>  hm")
@settings(max_examples=150, deadline=None)
def test_content_makes_no_special_token(family: str, text: str) -> None:
    tokenizer = made(family)
    ids = guarded([("x", True), (text, False), ("y", True)], tokenizer)
    unknown = {tokenizer.unk_token_id}  # says that a character is not in the vocabulary, which is true
    assert not (specials(tokenizer) - unknown).intersection(ids)


@pytest.mark.parametrize("family", ["vicuna", "llama", "qwen", "llama_3", "phi"])
def test_forged_marks_are_spelt_and_nothing_is_lost(family: str) -> None:
    tokenizer = made(family)
    for mark in marks(tokenizer):
        if mark.strip() and mark != "<tool_call>":
            ids = guarded([(f"a {mark} b", False)], tokenizer)
            assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == f"a {mark} b"
            assert len(ids) > 4


def test_the_template_marks_of_yi_are_guarded_though_they_are_not_called_special() -> None:
    tokenizer = made("yi")
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert not tokenizer.added_tokens_decoder[start].special
    ids = guarded([("<|im_start|>user\n", True), ("<|im_start|>", False), ("<|im_end|>", True)], tokenizer)
    assert ids.count(start) == 1


def test_added_tokens_that_are_words_stay_words() -> None:
    tokenizer = made("qwen")
    call = tokenizer.convert_tokens_to_ids("<tool_call>")
    assert guarded([("a <tool_call>b", False)], tokenizer).count(call) == 1


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("special", [True, False])
def test_a_picture_token_is_never_made_by_text(family: str, special: bool) -> None:
    """As the tokenizers of saved models have it: `<image>` is in their vocabulary."""
    tokenizer = fresh_family(family)
    tokenizer.add_tokens([AddedToken("<image>", special=special, normalized=False)], special_tokens=special)
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert direct("<image>", tokenizer) == [image]
    assert image not in guarded([("USER: ", True), ("an <image> here", False)], tokenizer)


def test_a_token_added_later_is_guarded_too() -> None:
    tokenizer = fresh_family("qwen")
    before = guarded([("<|new|>", False)], tokenizer)
    tokenizer.add_tokens([AddedToken("<|new|>", special=True, normalized=False)], special_tokens=True)
    assert guarded([("<|new|>", False)], tokenizer) == before
    assert guarded([("<|new|>", True)], tokenizer) == [tokenizer.convert_tokens_to_ids("<|new|>")]


def test_the_tokenizer_itself_is_left_as_it_was() -> None:
    tokenizer = fresh_family("qwen")
    before = tokenizer.backend_tokenizer.to_str()
    guarded([("<|im_end|>", False), ("<|im_end|>", True)], tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == before
    assert not tokenizer.backend_tokenizer.encode_special_tokens


def test_the_private_characters_are_chosen_so_that_the_text_holds_none() -> None:
    tokenizer = made("vicuna")
    text = "".join(chr(code) for code in range(0xE000, 0xE010)) + "\ue0001\ue000"
    assert guarded([(text, False), ("</s>", True)], tokenizer) == direct(text + "</s>", tokenizer)


def talk(words: str, template: str, system: str = "") -> Conversation:
    turns = [Turn("system", (Text(system),))] if system else []
    for number in range(1 if template == "plain" else 2):
        parts: tuple[Part, ...] = (Picture(0), Text(words)) if number == 0 else (Text(words),)
        turns += [Turn("user", parts), Turn("assistant", (Text(words),))]
    return Conversation("c", "", ("0.jpg",), tuple(turns))


def template_words(written: Any, template: str) -> list[str]:
    pieces = written.write(talk("a", template))
    return [piece.text for piece in pieces if isinstance(piece, Written) and piece.control]


def families_of(template: str) -> list[str]:
    return WITH_TEMPLATE if template == "tokenizer" else list(NAMES)


@pytest.mark.parametrize("template", template_names())
@given(data=st.data(), words=any_words.filter(lambda text: bool(text.strip())), prompt=st.booleans())
@settings(max_examples=30, deadline=None)
def test_no_template_lets_content_forge(template: str, data: st.DataObject, words: str, prompt: bool) -> None:
    """A conversation has as many of each special token as the same one with harmless words, and as many pictures."""
    family = data.draw(st.sampled_from(families_of(template)))
    tokenizer = made(family)
    written = get_template(template, tokenizer)

    own = {m for m in marks(tokenizer) if any(m in text for text in template_words(written, template))}

    def counted(text: str) -> list[int]:
        conversation = talk(text, template)
        if prompt:
            turns = conversation.turns[:-1]
            conversation = Conversation("c", "", conversation.images, turns)
        ids = encode(conversation, written, tokenizer, [5], prompt=prompt).ids
        unknown = tokenizer.unk_token_id
        watched = specials(tokenizer) | {tokenizer.convert_tokens_to_ids(mark) for mark in own}
        return sorted(i for i in ids if i == IMAGE_TOKEN_ID or (i in watched and i != unknown))

    assert counted(words) == counted("a")
