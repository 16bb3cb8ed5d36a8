"""A tokenizer as GGUF keys: named by its own expression or refused, scored by its merges, and honest about the rest."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from llavakit.checkpoints.files import CheckpointError
from llavakit.checkpoints.gguf_tokenizer import Vocabulary, vocabulary

QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
AFTER_SPLIT = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def split(expression: str, behavior: str = "isolated") -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), behavior), AFTER_SPLIT])


def byte_level(
    pre_tokenizer: Any, ignore_merges: bool = False, normalizer: Any = None
) -> PreTrainedTokenizerFast:
    vocab = {text: number for number, text in enumerate(["a", "b", "ab", "\u0120", "\u0120ab"])}
    model = models.BPE(vocab, [("a", "b"), ("\u0120", "ab")], ignore_merges=ignore_merges)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True), AddedToken("<|stop|>", special=True)])
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def sentencepiece(
    extra: dict[str, int] | None = None,
    merges: list[tuple[str, str]] | None = None,
    prefix: Any = None,
    bytes_: int = 256,
) -> PreTrainedTokenizerFast:
    words = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(bytes_)),
        "\u2581",
        "a",
        "b",
        "\u2581a",
        "\u2581ab",
    ]
    vocab = {text: number for number, text in enumerate(words)}
    vocab |= {text: len(vocab) + number for text, number in (extra or {}).items()}
    pairs = merges if merges is not None else [("\u2581", "a"), ("\u2581a", "b")]
    tokenizer = Tokenizer(models.BPE(vocab, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if prefix is None:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    else:
        tokenizer.pre_tokenizer = prefix
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def written(tokenizer: Any, rows: int | None = None, stops: tuple[int, ...] = ()) -> Vocabulary:
    return vocabulary(tokenizer, len(tokenizer) if rows is None else rows, stops, None)


@pytest.mark.parametrize(
    ("pre_tokenizer", "ignore_merges", "name"),
    [
        (BYTE_LEVEL, False, "gpt-2"),
        (
            pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL]),
            False,
            "smollm",
        ),
        (split(QWEN2), False, "qwen2"),
        (split(LLAMA3), True, "llama-bpe"),
        (split(LLAMA3), False, "smaug-bpe"),
    ],
)
def test_a_byte_level_tokenizer_is_named_by_the_expression_that_splits_its_text(
    pre_tokenizer: Any, ignore_merges: bool, name: str
) -> None:
    keys = written(byte_level(pre_tokenizer, ignore_merges)).keys
    assert (keys["tokenizer.ggml.model"], keys["tokenizer.ggml.pre"]) == ("gpt2", name)
    assert keys["tokenizer.ggml.merges"] == ["a b", "\u0120 ab"]
    assert keys["tokenizer.ggml.add_bos_token"] is False


@pytest.mark.parametrize(
    ("pre_tokenizer", "ignore_merges"),
    [
        (split(QWEN2 + "|x"), False),
        (split(QWEN2, "removed"), False),
        (split(QWEN2), True),
        (BYTE_LEVEL, True),
        (pre_tokenizers.ByteLevel(add_prefix_space=True), False),
        (pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), BYTE_LEVEL]), False),
        (AFTER_SPLIT, False),
    ],
)
def test_a_way_of_splitting_that_llama_cpp_has_no_name_for_is_refused(
    pre_tokenizer: Any, ignore_merges: bool
) -> None:
    with pytest.raises(
        CheckpointError, match=r"it splits text by .* none of the ways that llama.cpp knows by name"
    ):
        written(byte_level(pre_tokenizer, ignore_merges))


def test_normalisers_are_refused_but_for_nfc_which_is_told() -> None:
    notes = written(byte_level(BYTE_LEVEL, normalizer=normalizers.NFC())).notes
    assert any("NFC" in note for note in notes)
    with pytest.raises(CheckpointError, match="normalises text by Lowercase"):
        written(byte_level(BYTE_LEVEL, normalizer=normalizers.Lowercase()))


def test_added_tokens_are_control_when_special_and_user_defined_otherwise() -> None:
    keys = written(byte_level(BYTE_LEVEL), rows=10).keys
    assert keys["tokenizer.ggml.tokens"] == [
        "a", "b", "ab", "\u0120", "\u0120ab", "<|end|>", "<|stop|>", "<tool>", "[PAD8]", "[PAD9]",
    ]  # fmt: skip
    assert keys["tokenizer.ggml.token_type"] == [1, 1, 1, 1, 1, 3, 3, 4, 5, 5]


def test_stops_beside_the_end_token_are_written_and_those_past_two_are_told() -> None:
    found = written(byte_level(BYTE_LEVEL), stops=(5, 6))
    assert (found.keys["tokenizer.ggml.eos_token_id"], found.keys["tokenizer.ggml.eot_token_id"]) == (5, 6)
    more = written(byte_level(BYTE_LEVEL), stops=(5, 6, 7))
    assert any("<tool>" in note and "stop strings" in note for note in more.notes)


def test_a_sentencepiece_tokenizer_is_scored_by_the_order_of_its_merges() -> None:
    found = written(sentencepiece())
    assert not found.notes
    keys = found.keys
    assert (keys["tokenizer.ggml.model"], keys["tokenizer.ggml.pre"]) == ("llama", "default")
    assert keys["tokenizer.ggml.add_bos_token"] is True and keys["tokenizer.ggml.add_space_prefix"] is True
    tokens, scores, types = (keys[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type"))
    assert isinstance(tokens, list) and isinstance(scores, list) and isinstance(types, list)
    score = dict(zip(tokens, scores, strict=True))
    assert score["\u2581a"] > score["\u2581ab"] > score["b"]
    assert types[:4] == [2, 3, 3, 6] and types[-1] == 1


def test_pieces_that_scores_could_join_otherwise_than_the_merges_are_counted() -> None:
    loose = sentencepiece(
        {"ab": 0}
    )  # the vocabulary has ab, so a+b and the space with ab are ways that no merge names
    assert any("2 of 265 pieces" in note for note in written(loose).notes)


@pytest.mark.parametrize(
    ("scheme", "prefix", "told"), [("always", True, False), ("first", True, True), ("never", False, False)]
)
def test_the_space_before_a_text_is_the_tokenizers(scheme: str, prefix: bool, told: bool) -> None:
    found = written(
        sentencepiece(prefix=pre_tokenizers.Metaspace("\u2581", prepend_scheme=scheme, split=False))
    )
    assert found.keys["tokenizer.ggml.add_space_prefix"] is prefix
    assert any("behind every special token" in note for note in found.notes) is told


def test_what_a_sentencepiece_reader_needs_is_asked_for() -> None:
    with pytest.raises(CheckpointError, match="16 of the 256 byte tokens are missing, the first is <0xF0>"):
        written(sentencepiece(bytes_=240))
    with pytest.raises(CheckpointError, match=r"prepares text by .*Whitespace.* SentencePiece's way"):
        written(sentencepiece(prefix=pre_tokenizers.Whitespace()))


def test_models_other_than_bpe_and_tokens_without_a_row_are_refused() -> None:
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(CheckpointError, match="a model of kind WordLevel"):
        written(words)
    with pytest.raises(CheckpointError, match="highest id is 7 and the embedding has 7 rows"):
        written(byte_level(BYTE_LEVEL), rows=7)
