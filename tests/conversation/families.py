"""Small tokenizers of seven families, trained on the spot.

Each has the normaliser, pre-tokenizer, post-processor and added tokens of its family; only the vocabulary is small.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: What is this? ASSISTANT: It is a small red circle.",
    "A chat between a curious human and an artificial intelligence assistant.\n\n### Human: Hi\n### Assistant: Hello\n###",
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language. [INST] <<SYS>>\n<</SYS>>\n\n [/INST]",
    "system\nYou are a helpful assistant.\nuser\nAnswer the questions.\nassistant\nThere are three stars, I think.",
    "How many stars are there? Is there a green triangle? No. Describe the picture: a cat, a dog, two chairs.",
]


def _sentencepiece(legacy: bool) -> Any:
    """LLaMA's: BPE with bytes to fall back on, `<s>` before the text, `▁` for spaces and before the text.

    legacy: `▁` also stands before the text that follows a special token, as the tokenizers of Vicuna have it.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Metaspace()
    )  # pieces do not reach over a space, as in LLaMA's vocabulary
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < 3]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.pre_tokenizer = None  # type: ignore[assignment]
    if legacy:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.chat_template = (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}"
        "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
    )
    return fast


def _byte_level(specials: list[str], plain: tuple[str, ...] = ()) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return tokenizer


CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

LLAMA_3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def _chatml() -> Any:
    """Qwen's: bytes, no beginning-of-sequence token, marks that are special, and one added token that is not."""
    tokenizer = _byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], ("<tool_call>",))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHATML
    return fast


def _chatml_with_marks_that_are_not_special() -> Any:
    """Yi's: `<|im_start|>` is an added token, but no special one; a beginning-of-sequence token is added."""
    tokenizer = _byte_level(["<|startoftext|>", "<|endoftext|>", "<|im_end|>"], ("<|im_start|>",))
    begin = tokenizer.token_to_id("<|startoftext|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A", special_tokens=[("<|startoftext|>", begin)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|startoftext|>", eos_token="<|im_end|>"
    )
    fast.chat_template = CHATML
    return fast


def _llama_3() -> Any:
    """LLaMA-3's: bytes, `<|begin_of_text|>` added by the tokenizer and written by the chat template as well."""
    names = ["begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id"]
    tokenizer = _byte_level([f"<|{name}|>" for name in names])
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )
    fast.chat_template = LLAMA_3
    return fast


def _unigram() -> Any:
    """A vocabulary of whole words in which the names of special tokens are words too, with the best of scores."""
    signs = sorted({sign for line in CORPUS for sign in line} | set("<>/|\u2581"))
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((sign, -9.0) for sign in signs if sign != " ")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _greedy() -> Any:
    """Phi's: marks that take the space after them, and runs of spaces as words of their own."""
    tokenizer = _byte_level(["<|endoftext|>"], ("  ", "    "))
    marks = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
    tokenizer.add_special_tokens([AddedToken(m, special=True, rstrip=True, normalized=False) for m in marks])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    fast.chat_template = (
        "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    )
    return fast


_MAKERS = {
    "vicuna": lambda: _sentencepiece(legacy=True),
    "llama": lambda: _sentencepiece(legacy=False),
    "qwen": _chatml,
    "yi": _chatml_with_marks_that_are_not_special,
    "llama_3": _llama_3,
    "unigram": _unigram,
    "phi": _greedy,
}
NAMES = tuple(_MAKERS)


def fresh_family(name: str) -> Any:
    """A tokenizer of this family that may be changed."""
    return _MAKERS[name]()


@cache
def made(name: str) -> Any:
    """The tokenizer of this family, shared."""
    return fresh_family(name)
