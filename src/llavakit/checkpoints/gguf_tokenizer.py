"""A tokenizer as the keys from which llama.cpp builds its own.

Two kinds can be written. A SentencePiece-like one (`llama`: BPE over characters with `▁` for a space and bytes to fall
back on) is given by scores: llama.cpp joins the two neighbours whose union has the highest. A byte-level one (`gpt2`)
is given by its merges and by the name of the expression that first splits a text into words; llama.cpp has a list of
such names, and a tokenizer is written only where its own expression is one of theirs, letter for letter.

Knows a tokenizer by its public methods and by the JSON of its backend. Knows no tensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llavakit.checkpoints.companions import IMAGE_TOKEN, PAD_TOKEN
from llavakit.checkpoints.files import CheckpointError
from llavakit.checkpoints.gguf import Value
from llavakit.conversation.guard import guard_of

_SPACE = "\u2581"

# The numbers of `tokenizer.ggml.token_type` (llama.h, llama_token_type).
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)

_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}

# Expressions that split a text into words, as tokenizer.json has them, with whether words are looked up whole before
# merging (`ignore_merges`), and llama.cpp's name for each such pair.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_EXPRESSIONS = {
    (_GPT2, False): "gpt-2",
    (_WORDS + r"\p{N}{1,3}" + _REST, True): "llama-bpe",
    (_WORDS + r"\p{N}{1,3}" + _REST, False): "smaug-bpe",
    (_WORDS + r"\p{N}" + _REST, False): "qwen2",
}


@dataclass(frozen=True)
class Vocabulary:
    """keys: `tokenizer.*`. notes: where llama.cpp may tokenise otherwise, a sentence each."""

    keys: dict[str, Value]
    notes: tuple[str, ...]


def vocabulary(tokenizer: Any, rows: int, stops: Iterable[int], chat_template: str | None) -> Vocabulary:
    """The keys of a tokenizer for an embedding of so many rows, those past the tokenizer being named and unused.

    stops: the ids at which an answer ends. chat_template: Jinja, None where there is none.
    Raises CheckpointError for a tokenizer that llama.cpp cannot be told of, saying which part of it is the cause.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model = backend["model"]
    if model["type"] != "BPE":
        raise CheckpointError(
            f"tokenizer: a model of kind {model['type']} cannot be written as GGUF; expected BPE"
        )
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise CheckpointError("tokenizer: its pieces carry a prefix or suffix, which llama.cpp does not know")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    added = {token["id"]: token for token in backend["added_tokens"] if not _rowless(token, rows)}
    pieces = model["vocab"] | {token["content"]: number for number, token in added.items()}
    highest = max(pieces.values())
    if highest >= rows:
        raise CheckpointError(
            f"tokenizer: its highest id is {highest} and the embedding has {rows} rows; expected a row for every token"
        )
    byte_level = not model.get("byte_fallback")
    kind, notes = _byte_level(backend) if byte_level else _sentencepiece(backend, merges)
    texts = {number: text for text, number in pieces.items()}
    tokens = [texts.get(number, f"[PAD{number}]") for number in range(rows)]
    types = [_type(number, texts, added, tokenizer.unk_token_id, byte_level) for number in range(rows)]
    unused = types.count(_UNUSED)
    if unused:
        notes.append(
            f"{unused} rows of the embedding belong to no token; they are named [PAD...] and marked unused"
        )
    if any(
        token.get("lstrip") or token.get("rstrip") or token.get("single_word") for token in added.values()
    ):
        notes.append("some added tokens take the spaces beside them, which llama.cpp's do not")
    keys: dict[str, Value] = {**kind, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    if byte_level:
        keys["tokenizer.ggml.merges"] = merges
    else:
        keys["tokenizer.ggml.tokens"] = [
            text.replace(_SPACE, " ") if types[number] == _USER_DEFINED else text
            for number, text in enumerate(tokens)
        ]
        keys["tokenizer.ggml.scores"] = _scores(tokens, merges)
    keys |= _special(tokenizer, set(stops), rows, notes)
    if chat_template is not None:
        keys["tokenizer.chat_template"] = chat_template
    return Vocabulary(keys, tuple(notes))


def _type(
    number: int, texts: Mapping[int, str], added: Mapping[int, Any], unknown: int | None, byte_level: bool
) -> int:
    if number not in texts:
        return _UNUSED
    if not byte_level and number == unknown:
        return _UNKNOWN
    if number in added:
        return _CONTROL if added[number]["special"] else _USER_DEFINED
    return _BYTE if not byte_level and texts[number] in _BYTES else _NORMAL


def _rowless(token: Mapping[str, Any], rows: int) -> bool:
    """Whether a token is there for a saved folder's sake alone: the model has no row for it and never reads it."""
    return token["id"] >= rows and token["content"] in (IMAGE_TOKEN, PAD_TOKEN)


def _special(tokenizer: Any, stops: set[int], rows: int, notes: list[str]) -> dict[str, Value]:
    """Ids of the special tokens, and which of them begin and end a text."""
    keys: dict[str, Value] = {
        "tokenizer.ggml.add_bos_token": bool(guard_of(tokenizer).prefix),
        "tokenizer.ggml.add_eos_token": False,
    }
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else min(stops, default=None)
    others = sorted(stops - {end})
    ids = {
        "bos": tokenizer.bos_token_id,
        "eos": end,
        "eot": others[0] if others else None,
        "unknown": tokenizer.unk_token_id,
        "padding": tokenizer.pad_token_id,
    }
    keys |= {
        f"tokenizer.ggml.{name}_token_id": int(number)
        for name, number in ids.items()
        if number is not None and number < rows
    }
    if len(others) > 1:
        names = ", ".join(str(tokenizer.convert_ids_to_tokens(number)) for number in others[1:])
        notes.append(
            f"an answer also ends at {names}, for which there is no key; give them to llama.cpp as stop strings"
        )
    return keys


def _byte_level(backend: Mapping[str, Any]) -> tuple[dict[str, Value], list[str]]:
    notes = []
    normalizer = backend["normalizer"]
    if normalizer is not None:
        if normalizer["type"] != "NFC":
            raise CheckpointError(
                f"tokenizer: it normalises text by {normalizer['type']}, which llama.cpp does not do"
            )
        notes.append(
            "the tokenizer composes accents (NFC) before it splits a text, which llama.cpp does not do"
        )
    whole = bool(backend["model"].get("ignore_merges"))
    steps = _steps(backend["pre_tokenizer"])
    last = steps[-1] if steps else {}
    name = None
    if last.get("type") == "ByteLevel" and not last["add_prefix_space"]:
        if last["use_regex"]:
            digits = [{"type": "Digits", "individual_digits": True}]
            name = {0: "gpt-2", 1: "smollm"}.get(len(steps) - 1) if steps[:-1] in ([], digits) else None
            name = None if whole else name
        elif len(steps) == 2 and steps[0]["type"] == "Split":
            split = steps[0]
            if split["behavior"] == "Isolated" and not split["invert"]:
                name = _EXPRESSIONS.get((split["pattern"].get("Regex", ""), whole))
    if name is None:
        raise CheckpointError(
            f"tokenizer: it splits text by {json.dumps(backend['pre_tokenizer'])}"
            f"{' and looks words up whole' if whole else ''}, which is none of the ways that llama.cpp knows by name"
        )
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": name}, notes


def _steps(part: Mapping[str, Any] | None, inside: str = "pretokenizers") -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, one after the other."""
    if part is None:
        return []
    return [dict(step) for step in part[inside]] if part["type"] == "Sequence" else [dict(part)]


def _sentencepiece(backend: Mapping[str, Any], merges: list[str]) -> tuple[dict[str, Value], list[str]]:
    vocab = backend["model"]["vocab"]
    absent = sorted(_BYTES - set(vocab))
    if absent:
        raise CheckpointError(
            f"tokenizer: {len(absent)} of the 256 byte tokens are missing, the first is {absent[0]}; llama.cpp needs "
            "them all"
        )
    prefix = _prefix(backend)
    notes = []
    if prefix == "first":
        notes.append(
            "llama.cpp puts a space before the text behind every special token, this tokenizer only before the first"
        )
    loose = _loose(vocab, merges)
    if loose:
        notes.append(
            f"{loose} of {len(vocab)} pieces can be joined in more ways than the tokenizer's merges name; llama.cpp, "
            "which goes by scores, may tokenise a text with them otherwise"
        )
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.add_space_prefix": prefix != "never",
    }, notes


def _prefix(backend: Mapping[str, Any]) -> str:
    """Where a space is put before a text: `always` (behind every special token too), `first` or `never`."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    prepend = {"type": "Prepend", "prepend": _SPACE}
    normal, steps = _steps(backend["normalizer"], "normalizers"), _steps(backend["pre_tokenizer"])
    if not steps and normal in ([prepend, replace], [replace]):
        return "always" if normal[0] == prepend else "never"
    if not normal and len(steps) == 1 and steps[0]["type"] == "Metaspace":
        inside = any(_SPACE in piece.lstrip(_SPACE) for piece in backend["model"]["vocab"])
        if steps[0]["replacement"] == _SPACE and not (steps[0].get("split", True) and inside):
            return str(steps[0]["prepend_scheme"])
    raise CheckpointError(
        f"tokenizer: it prepares text by {json.dumps(backend['normalizer'])} and "
        f"{json.dumps(backend['pre_tokenizer'])}, expected SentencePiece's way, every space as \u2581 and nothing else"
    )


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """The earlier a piece is made by the merges, the higher its score; one that they never make has the lowest."""
    rank: dict[str, int] = {}
    for number, pair in enumerate(merges):
        rank.setdefault(pair.replace(" ", ""), number)
    return [float(-rank.get(token, len(merges))) for token in tokens]


def _loose(vocab: Mapping[str, int], merges: list[str]) -> int:
    """How many pieces have a way of being joined, of two others, that is not among the merges, or have theirs apart."""
    ranks: dict[str, dict[str, int]] = {}
    for number, pair in enumerate(merges):
        ranks.setdefault(pair.replace(" ", ""), {})[pair] = number
    loose = 0
    for piece in vocab:
        if piece in _BYTES:
            continue
        mine = ranks.get(piece, {})
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        ways = {f"{left} {right}" for left, right in halves if left in vocab and right in vocab}
        apart = bool(mine) and max(mine.values()) - min(mine.values()) >= len(mine)
        loose += ways != set(mine) or apart
    return loose
