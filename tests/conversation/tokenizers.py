"""Two small tokenizers: one as LLaMA's (spaces as ▁, bytes for the rest, BOS), one byte-level without a BOS."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

LLAMA_WORDS = (
    "▁USER", "▁ASSISTANT", "▁A", "▁The", "▁the", "▁cat", "▁What", "▁is", "▁on", "INST", "SYS", "###", "▁Human",
    "▁Assistant", "▁user", "▁chat", "▁between",
)  # fmt: skip
BYTE_WORDS = (
    "user", "assistant", "system", "ĊĊ", "Ġcat", "Ġis", "Ġthe", "The", "What", "USER", "ĠASSISTANT", "ĠHuman",
    "ðŁĺ", "###", "INST",
)  # fmt: skip
MARKS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
)  # fmt: skip


# Words, numbers, signs with the line ends after them, line ends, spaces: as LLaMA-3 and Qwen part them.
_STRETCHES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _grow(vocabulary: dict[str, int], words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Merges that make each word of its letters, from the left."""
    merges = []
    for word in words:
        for letter in word:
            vocabulary.setdefault(letter, len(vocabulary))
        made = word[0]
        for _, letter in pairwise(word):
            if made + letter not in vocabulary:
                vocabulary[made + letter] = len(vocabulary)
                merges.append((made, letter))
            made += letter
    return merges


@cache
def llama() -> Any:
    """`<unk> <s> </s>` are 0, 1, 2; the bytes follow."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{byte:02X}>": byte + 3 for byte in range(256)}}
    for letter in ("▁", *map(chr, range(0x21, 0x7F))):
        vocabulary[letter] = len(vocabulary)
    merges = _grow(vocabulary, LLAMA_WORDS)
    core = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@cache
def byte_level() -> Any:
    """With the marks of ChatML and of LLaMA-3, and no beginning-of-sequence token."""
    vocabulary = {sign: place for place, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = _grow(vocabulary, BYTE_WORDS)
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_STRETCHES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=MARKS[0], extra_special_tokens=list(MARKS[1:])
    )


def fresh(kind: Any, chat_template: str) -> Any:
    """A tokenizer of its own with a chat template."""
    made = kind.__wrapped__()
    made.chat_template = chat_template
    return made


def read_back(tokenizer: Any, ids: list[int]) -> str:
    """The text of ids, every space kept, special tokens by their names."""
    if "<0x00>" not in tokenizer.get_vocab():
        return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    raw = b""
    for token in tokenizer.convert_ids_to_tokens(ids):
        alone = len(token) == 6 and token.startswith("<0x")
        raw += bytes([int(token[3:5], 16)]) if alone else token.replace("▁", " ").encode()
    return raw.decode()
