"""LLaVA's and LLaVA-NeXT's way from a conversation to ids and labels under v0, ChatML and LLaMA-3, written anew from
its description, to compare with.

ChatML's labels come of tokenising pieces again and adding up lengths, and where the sum does not meet the length the
sample is lost; here `labels` is then None. Qwen's and LLaMA-3's are made message by message. One position stands for a
picture.

Sources: the training scripts of LLaVA 1.2 and LLaVA-NeXT as read for their rules; no line is theirs.
"""

from __future__ import annotations

from typing import Any

from llavakit.conversation.tokenize import IGNORE_INDEX, IMAGE_TOKEN_ID

Rounds = list[tuple[str, str]]
"""Questions, with `<image>` where a picture stands, and answers."""

VISION = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)


def ids_of(text: str, tokenizer: Any) -> list[int]:
    """Every chunk as if alone, with its BOS; the first BOS is kept, the others go; one placeholder between chunks."""
    chunks = [list(tokenizer(chunk).input_ids) for chunk in text.split("<image>")]
    begins = bool(chunks[0]) and chunks[0][0] == tokenizer.bos_token_id
    ids = [chunks[0][0]] if begins else []
    for number, chunk in enumerate(chunks):
        ids += [IMAGE_TOKEN_ID] * bool(number) + chunk[begins:]
    return ids


def _length(text: str, tokenizer: Any) -> int:
    return len(ids_of(text, tokenizer))


def chatml_direct(rounds: Rounds, tokenizer: Any) -> tuple[list[int], list[int] | None]:
    """LLaVA-NeXT's sum, which begins at 1; it is right for tokenizers that add a BOS."""
    text = "<|im_start|>system\nAnswer the questions.<|im_end|>"
    sign = "<|im_start|>assistant\n"
    for asked, answer in rounds:
        text += f"<|im_start|>user\n{asked}<|im_end|>{sign}{answer}<|im_end|>"
    ids = ids_of(text, tokenizer)
    labels = list(ids)
    pieces = text.split("<|im_end|>")
    grouped = ["<|im_end|>".join(pieces[:3])]
    grouped += ["<|im_end|>".join(pieces[start : start + 2]) for start in range(3, len(pieces), 2)]
    at = 1
    labels[:at] = [IGNORE_INDEX]
    for one in grouped:
        parts = one.split(sign)
        if not one or len(parts) != 2:
            break
        asked_length = _length(parts[0] + sign, tokenizer) - 1
        labels[at : at + asked_length] = [IGNORE_INDEX] * asked_length
        at += _length(one, tokenizer)
    labels[at:] = [IGNORE_INDEX] * (len(labels) - at)
    return ids, labels if at == len(ids) else None


def qwen(rounds: Rounds, tokenizer: Any) -> tuple[list[int], list[int] | None]:
    """Message by message. Supervised are whole messages of the assistant and, in every message, the marks and `\\n`."""
    always = {*ids_of("\n", tokenizer), *ids_of("<|im_start|>", tokenizer), *ids_of("<|im_end|>", tokenizer)}
    messages = [("system", "You are a helpful assistant.")]
    for asked, answer in rounds:
        messages += [("user", asked), ("assistant", answer)]
    texts = [(role, f"<|im_start|>{role}\n{words}<|im_end|>\n") for role, words in messages]
    return _by_messages(texts, always, tokenizer)


def llama_3(rounds: Rounds, tokenizer: Any) -> tuple[list[int], list[int] | None]:
    """As `qwen`, with LLaMA-3's marks and the beginning-of-text token once."""
    marks = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "\n\n")
    always = {tokenizer.bos_token_id}.union(*(ids_of(mark, tokenizer)[1:] for mark in marks))
    messages = [("system", VISION)]
    for asked, answer in rounds:
        messages += [("user", asked), ("assistant", answer)]
    texts = [
        (role, f"<|start_header_id|>{role}<|end_header_id|>\n\n{words}<|eot_id|>") for role, words in messages
    ]
    ids, labels = _by_messages(texts, always, tokenizer, skip=1)
    begin = tokenizer.bos_token_id
    return [begin, *ids], [begin, *(labels or [])]


def _by_messages(
    texts: list[tuple[str, str]], always: set[int], tokenizer: Any, skip: int = 0
) -> tuple[list[int], list[int] | None]:
    ids: list[int] = []
    labels: list[int] = []
    for role, text in texts:
        more = ids_of(text, tokenizer)[skip:]
        ids += more
        labels += [i if role == "assistant" or i in always else IGNORE_INDEX for i in more]
    return ids, labels


def v0(rounds: Rounds, tokenizer: Any) -> tuple[list[int], list[int] | None]:
    """The ids alone: its labels cover the header of the answer too, and are compared by what they must contain."""
    text = (
        "A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions.\n\n"
    )
    for asked, answer in rounds:
        text += f"### Human: {asked}\n### Assistant: {answer}\n"
    return ids_of(text + "### ", tokenizer), None


BY_NAME = {"v0": v0, "chatml_direct": chatml_direct, "qwen": qwen, "llama_3": llama_3}
