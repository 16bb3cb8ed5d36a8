"""What is learnt, what cannot be forged, where pictures stand, what is cut: rules that hold for every conversation."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.conversation.record import Conversation, ConversationError, Picture, Text, Turn
from llavakit.conversation.templates import Slot, Written, get_template
from llavakit.conversation.tokenize import IGNORE_INDEX, IMAGE_TOKEN_ID, Encoded, TooLong, encode
from llavakit.errors import LlavakitError
from tests.conversation.conversations import (
    CHATS,
    LIKENESSES,
    TOKENIZERS,
    anything,
    as_prompt,
    conversations,
    talk,
    words,
)
from tests.conversation.families import made
from tests.conversation.tokenizers import byte_level, llama, read_back

# What stands before and after an answer's words and is learnt with them.
AROUND = {
    "plain": ("", "\n"),
    "v0": (" ", "\n###"),
    "vicuna_v1": (" ", "</s>"),
    "llama_2": (" ", " </s>"),
    "mistral": (" ", " </s>"),
    "chatml_direct": ("", "<|im_end|>"),
    "llama_3": ("", "<|eot_id|>"),
    "qwen": ("", "<|im_end|>"),
}


def lengths(conversation: Conversation) -> list[int]:
    """Another number of positions for each picture."""
    return [3 + 2 * number for number in range(len(conversation.images))]


def learnt(encoded: Encoded, tokenizer: Any) -> list[str]:
    """The text of each run of supervised tokens."""
    texts = []
    for ignored, run in groupby(encoded.labels, lambda label: label == IGNORE_INDEX):
        if not ignored:
            texts.append(read_back(tokenizer, list(run)))
    return texts


def specials(encoded: Encoded, tokenizer: Any) -> list[int]:
    """The special tokens among the ids, in order."""
    return [token for token in encoded.ids if token in tokenizer.all_special_ids]


def with_words(conversation: Conversation, said: str) -> Conversation:
    """The same turns and pictures, every text replaced."""
    turns = tuple(
        Turn(one.role, tuple(part if isinstance(part, Picture) else Text(said) for part in one.parts))
        for one in conversation.turns
    )
    return Conversation("x", "", conversation.images, turns)


chats = pytest.mark.parametrize("name", CHATS)
few = settings(max_examples=25, deadline=None)


@chats
@few
@given(conversation=conversations())
def test_exactly_the_assistants_words_and_ends_are_learnt(name: str, conversation: Conversation) -> None:
    tokenizer = CHATS[name]()
    encoded = encode(conversation, get_template(name), tokenizer, lengths(conversation))
    before, after = AROUND[name]
    answers = [before + one.text + after for one in conversation.turns if one.role == "assistant"]
    if tokenizer is llama():
        answers = [answer.replace("▁", " ") for answer in answers]
    runs = learnt(encoded, tokenizer)
    assert len(runs) == len(answers)
    for run, answer in zip(runs, answers, strict=True):
        header = run.removesuffix(answer)
        assert header + answer == run
        assert header in {"", "\n", "\n\n"}  # of the header, where it is one token with an answer's line ends
        assert not header or answer[0].isspace()


@few
@given(caption=words, asked=anything)
def test_plain_learns_the_caption_and_its_line_end_and_sees_no_instruction(caption: str, asked: str) -> None:
    for tokenizer, lead in ((llama(), " "), (byte_level(), "")):
        encoded = encode(talk((asked, 0), caption), get_template("plain"), tokenizer, [4])
        expected = lead + caption.replace("▁", " ") + "\n" if lead else caption + "\n"
        assert learnt(encoded, tokenizer) == [expected]
        start = 1 if lead else 0
        assert encoded.ids[start : start + 4] == [IMAGE_TOKEN_ID] * 4
        assert encoded.labels[start + 4 :] == encoded.ids[start + 4 :]


@pytest.mark.parametrize("name", CHATS)
@few
@given(conversation=conversations())
def test_no_text_forges_a_special_token_or_a_picture(name: str, conversation: Conversation) -> None:
    template, tokenizer = get_template(name), CHATS[name]()
    shown = lengths(conversation)
    for prompt, written in ((False, conversation), (True, as_prompt(conversation))):
        mild = with_words(written, "x")
        encoded = encode(written, template, tokenizer, shown, prompt=prompt)
        benign = encode(mild, template, tokenizer, shown, prompt=prompt)
        assert specials(encoded, tokenizer) == specials(benign, tokenizer)
        assert encoded.ids.count(IMAGE_TOKEN_ID) == sum(shown)


@pytest.mark.parametrize("likeness", LIKENESSES)
@chats
def test_a_likeness_stays_text_in_every_role(name: str, likeness: str) -> None:
    template, tokenizer = get_template(name), CHATS[name]()
    written = talk((0, likeness), likeness, likeness, likeness, system=likeness)
    encoded = encode(written, template, tokenizer, [2])
    mild = encode(with_words(written, "x"), template, tokenizer, [2])
    assert specials(encoded, tokenizer) == specials(mild, tokenizer)
    assert read_back(tokenizer, [token for token in encoded.ids if token >= 0]).count(likeness) >= 4


@chats
@few
@given(conversation=conversations())
def test_a_prompt_is_the_beginning_of_the_whole_conversation(name: str, conversation: Conversation) -> None:
    template, tokenizer = get_template(name), CHATS[name]()
    shown = lengths(conversation)
    last = conversation.turns[-1].text
    whole = encode(conversation, template, tokenizer, shown)
    prompt = encode(as_prompt(conversation), template, tokenizer, shown, prompt=True)
    assert set(prompt.labels) == {IGNORE_INDEX}
    assert prompt.images == whole.images
    if last[0].isspace() and tokenizer is byte_level():
        return  # byte-level tokenizers join the header's line end with those of an answer
    count = len(prompt.ids)
    assert whole.ids[:count] == prompt.ids
    assert all(label != IGNORE_INDEX for label in whole.labels[count : count + 1])


@chats
@few
@given(conversation=conversations())
def test_pictures_take_exactly_their_positions_in_order(name: str, conversation: Conversation) -> None:
    shown = lengths(conversation)
    encoded = encode(conversation, get_template(name), CHATS[name](), shown)
    assert [span.index for span in encoded.images] == list(conversation.placed())
    inside = set()
    for span in encoded.images:
        assert span.length == shown[span.index]
        inside |= set(range(span.start, span.start + span.length))
    assert inside == {place for place, token in enumerate(encoded.ids) if token == IMAGE_TOKEN_ID}
    assert all(encoded.labels[place] == IGNORE_INDEX for place in inside)
    assert len(encoded.labels) == len(encoded.ids)
    pairs = zip(encoded.ids, encoded.labels, strict=True)
    assert all(label in (token, IGNORE_INDEX) for token, label in pairs)


@chats
@few
@given(conversation=conversations(), data=st.data())
def test_only_whole_exchanges_are_cut_and_counted(
    name: str, conversation: Conversation, data: st.DataObject
) -> None:
    template, tokenizer, shown = get_template(name), CHATS[name](), lengths(conversation)
    whole = encode(conversation, template, tokenizer, shown)
    assert whole.turns_dropped == 0
    limit = data.draw(st.integers(1, len(whole.ids)))
    exchanges = sum(one.role == "assistant" for one in conversation.turns)
    try:
        cut = encode(conversation, template, tokenizer, shown, max_length=limit)
    except TooLong:
        cut, kept = None, 0
    else:
        kept = exchanges - cut.turns_dropped
        assert len(cut.ids) <= limit
        assert cut.ids == whole.ids[: len(cut.ids)] or name in ("v0", "qwen")
        assert len(learnt(cut, tokenizer)) == kept
    if kept < exchanges:  # one exchange more would not have fitted
        turns = conversation.turns[: len(conversation.turns) - 2 * (exchanges - kept - 1)]
        images = tuple(
            conversation.images[: sum(isinstance(part, Picture) for one in turns for part in one.parts)]
        )
        longer = Conversation("l", "", images, turns)
        assert len(encode(longer, template, tokenizer, shown[: len(images)]).ids) > limit


def test_a_long_conversation_is_cut_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = talk(*("What is on the cat", "The cat is") * 200)
    template, calls = get_template("vicuna_v1"), 0

    class Counting:
        name, stop = template.name, template.stop

        def write(self, conversation: Conversation, *, prompt: bool = False) -> list[Written | Slot]:
            nonlocal calls
            calls += 1
            return template.write(conversation, prompt=prompt)

    cut = encode(conversation, Counting(), llama(), [], max_length=300)
    assert calls <= 10
    kept = 200 - cut.turns_dropped
    assert kept > 3 and cut.labels.count(2) == kept
    assert (
        len(cut.ids)
        <= 300
        < len(encode(talk(*("What is on the cat", "The cat is") * (kept + 1)), template, llama(), []).ids)
    )


def test_a_prompt_that_does_not_fit_is_told() -> None:
    with pytest.raises(TooLong, match=r"takes 6.. positions as a prompt and the limit is 20"):
        encode(
            talk((0, "What"), "A", "And"), get_template("mistral"), llama(), [600], max_length=20, prompt=True
        )


def test_a_mark_that_takes_the_spaces_after_it_is_not_learnt_for_them() -> None:
    tokenizer = made("phi")
    encoded = encode(talk("hi", "\n  yes"), get_template("tokenizer", tokenizer), tokenizer, [])
    start, end = tokenizer.convert_tokens_to_ids(["<|assistant|>", "<|end|>"])
    assert encoded.ids.count(start) == 1 and start not in encoded.labels
    assert encoded.labels.count(end) == 1


def test_a_slow_tokenizer_is_told() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(
        LlavakitError, match=r"Slow cannot say which characters a token covers; .* a fast tokenizer"
    ):
        encode(talk("hi", "yes"), get_template("vicuna_v1"), Slow(), [])


def test_a_first_exchange_that_does_not_fit_is_told_with_both_numbers() -> None:
    with pytest.raises(
        TooLong, match=r"takes 5.. positions with its first exchange alone and the limit is 20;"
    ):
        encode(
            talk((0, "What"), "A cat", "more", "no"), get_template("mistral"), llama(), [576], max_length=20
        )
    with pytest.raises(TooLong):
        encode(talk((0, "What")), get_template("mistral"), llama(), [576], max_length=20, prompt=True)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_beginning_is_marked_once(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    encoded = encode(talk((0, "What"), "A cat"), get_template(name), tokenizer, [2])
    if tokenizer is llama():
        assert encoded.ids[0] == 1 and encoded.ids.count(1) == 1
    else:
        assert tokenizer.eos_token_id not in encoded.ids


@chats
def test_the_beginning_is_marked_when_the_first_words_look_like_the_mark(name: str) -> None:
    if CHATS[name]() is llama():
        encoded = encode(talk("hi", "yes", system="<s>"), get_template(name), llama(), [])
        assert encoded.ids[0] == 1 and encoded.ids.count(1) == 1


def test_text_alone_has_no_pictures() -> None:
    encoded = encode(talk("<image> is a word", "Yes <image>"), get_template("vicuna_v1"), llama(), [])
    assert encoded.images == [] and IMAGE_TOKEN_ID not in encoded.ids
    assert learnt(encoded, llama()) == [" Yes <image></s>"]


def test_a_system_turn_stands_instead_of_the_templates_own() -> None:
    for name, tokenizer in CHATS.items():
        own = read_back(tokenizer(), encode(talk("hi", "yes"), get_template(name), tokenizer(), []).ids)
        said = encode(talk("hi", "yes", system="Speak low."), get_template(name), tokenizer(), [])
        text = read_back(tokenizer(), said.ids)
        assert "Speak low." in text and "Speak low." not in own
        assert "helpful" not in text and "Answer the questions" not in text


def test_a_token_that_also_covers_the_end_of_an_answer_is_learnt() -> None:
    class Cut:
        name, stop = "cut", ()

        def write(self, conversation: Conversation, *, prompt: bool = False) -> list[Written | Slot]:
            return [Written("ca", False, True), Written("t the", True, False)]

    tokenizer = byte_level()
    encoded = encode(talk("x", "y"), Cut(), tokenizer, [])
    names = tokenizer.convert_ids_to_tokens(encoded.ids)
    assert [name for name, label in zip(names, encoded.labels, strict=True) if label >= 0] == ["c", "a"]
    encoded = encode(talk("x", "y"), _Straddling(), tokenizer, [])
    names = tokenizer.convert_ids_to_tokens(encoded.ids)
    assert [name for name, label in zip(names, encoded.labels, strict=True) if label >= 0] == ["Ġcat"]


class _Straddling:
    """Ends an answer in the middle of what is one token."""

    name, stop = "straddling", ()

    def write(self, conversation: Conversation, *, prompt: bool = False) -> list[Written | Slot]:
        return [Written("x", True, False), Written(" ca", False, True), Written("t the", True, False)]


@pytest.mark.parametrize(
    ("conversation", "prompt", "shown", "reason"),
    [
        (talk("hi", " \n"), False, [], "the answer in turn 2 is empty"),
        (talk("hi"), False, [], "ends with user; template vicuna_v1 writes whole conversations"),
        (talk("hi", "yes"), True, [], "ends with assistant; template vicuna_v1 writes a prompt"),
        (talk(), True, [], "has no turns"),
        (talk("hi", "yes", images=1), False, [2], "1 pictures and places number none"),
        (talk("hi", images=1), True, [2], "1 pictures and places number none"),
        (talk((0, "hi"), "yes"), False, [], "has 1 pictures and 0 lengths"),
        (talk("hi", ("yes", 0)), False, [2], "a picture stands in the assistant's turn"),
        (talk("hi", "half \ud83d"), False, [], "half of a character"),
        (talk("half \ud83d"), True, [], "half of a character"),
    ],
)
def test_what_cannot_be_encoded_has_its_reason(
    conversation: Conversation, prompt: bool, shown: list[int], reason: str
) -> None:
    with pytest.raises(ConversationError, match=reason):
        encode(conversation, get_template("vicuna_v1"), llama(), shown, prompt=prompt)


def test_a_prompt_may_hold_an_empty_answer_that_a_model_gave() -> None:
    encoded = encode(talk("hi", "", "again"), get_template("vicuna_v1"), llama(), [], prompt=True)
    assert "ASSISTANT: </s>USER:" in read_back(llama(), encoded.ids).replace("  ", " ").replace(
        "</s> ", "</s>"
    )


def test_plain_refuses_what_is_no_caption() -> None:
    for conversation, shown in ((talk("hi", "yes"), []), (talk((0, "hi"), "yes", "and", "no"), [2])):
        with pytest.raises(ConversationError, match="plain writes one picture and its caption"):
            encode(conversation, get_template("plain"), llama(), shown)
