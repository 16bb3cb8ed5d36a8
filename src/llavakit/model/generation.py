"""Answers: prompts and pictures in, text out, many at a time.

Requests share a batch when their texts after the last picture are of like length. A batch reads the last positions of
every prompt together, so that all end at one place. What lies before comes from the keys and values of the prompt's
head, up to its last picture, which is read once for all requests that begin alike, as a picture goes through the tower
once. Shorter prompts begin with empty positions that nothing sees, so that an answer is that which it would be alone,
but for the rounding of sums. Where all lengths are equal there are no empty positions and no mask. Rows whose answer is
over leave the batch when half of it is idle.

Knows models, encoded prompts and pictures. Does not write prompts: that is the conversation room's.

Shapes: B answers of a batch, Q positions fed at once, P features of a tile, D LLM width, K vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from llavakit.conversation.tokenize import IMAGE_TOKEN_ID, Encoded
from llavakit.errors import LlavakitError
from llavakit.model.packed import Tiled, count_pictures
from llavakit.model.reuse import PictureFeatures, PromptHeads, feed
from llavakit.model.sampling import Sampling
from llavakit.model.stops import Stopping

if TYPE_CHECKING:
    from llavakit.model.llava import Llava

# Every row of a batch reads as many positions as the longest text after a head: at most this factor and this many more
# than its own.
ALIKE, ALIKE_POSITIONS = 1.5, 16


@dataclass(frozen=True)
class Request:
    """A prompt that ends where the assistant begins to speak, and its pictures in order of placement.

    pictures: RGB images, or such as are already cut into tiles for the model.
    """

    prompt: Encoded
    pictures: Sequence[Image.Image | Tiled] = ()


def generate(
    model: Llava,
    requests: Sequence[Request],
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Sequence[str] = (),
    batch_tokens: int = 16384,
    batch_rows: int = 128,
    on_answer: Callable[[int, str], None] | None = None,
) -> list[str]:
    """The answers to all requests, in their order.

    temperature: 0 takes the best token each time. seed: of the draws; an answer depends on it and on the place of its
    request, not on the others. stop: texts that end an answer besides the template's. batch_tokens, batch_rows: the
    most prompt positions and requests computed together. on_answer: called with place and text as answers are done,
    which is not in order. Raises LlavakitError, with the request's place, for one that the model cannot answer.
    """
    sampling = Sampling(temperature, top_p, seed)
    stopping = Stopping(model, stop)
    heads = PromptHeads(model, PictureFeatures(model))
    for place, request in enumerate(requests):
        _check(model, place, request, max_new_tokens)
    answers = [""] * len(requests)
    was_training = model.training
    model.eval()
    try:
        prompts = [request.prompt for request in requests]
        for places in batches(prompts, [*map(_head_length, prompts)], batch_tokens, batch_rows):
            for place, text in _answer_batch(
                model, places, [requests[p] for p in places], heads, sampling, stopping, max_new_tokens
            ):
                answers[place] = text
                if on_answer is not None:
                    on_answer(place, text)
    finally:
        model.train(was_training)
    return answers


def stream(
    model: Llava,
    request: Request,
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Sequence[str] = (),
) -> Iterator[str]:
    """The answer to one request, piece by piece as it is written; the pieces joined are the answer."""
    _check(model, 0, request, max_new_tokens)
    embeddings = prompt_embeddings(model, [request], PictureFeatures(model))
    sampling = Sampling(temperature, top_p, seed)
    yield from decode_one(
        model, embeddings, DynamicCache(), sampling, Stopping(model, stop), max_new_tokens, []
    )


@torch.no_grad()
def prompt_embeddings(model: Llava, requests: Sequence[Request], features: PictureFeatures) -> Tensor:
    """Embeddings (B, Q, D) of prompts of one length."""
    ids_BQ = torch.tensor([request.prompt.ids for request in requests], device=model.device)
    rows = features([request.pictures for request in requests])
    return model.place(ids_BQ, torch.cat(rows) if rows else None)


def decode_one(
    model: Llava,
    embeddings_1QD: Tensor,
    cache: DynamicCache,
    sampling: Sampling,
    stopping: Stopping,
    max_new_tokens: int,
    written: list[int],
) -> Iterator[str]:
    """Continues one sequence and yields its text as it becomes sure.

    written: receives the ids. The cache then holds the prompt and all of them but the last.
    """
    was_training = model.training
    model.eval()
    shown = ""
    draws = sampling.draws(0, max_new_tokens)
    try:
        logits_1K = _scores(model, embeddings_1QD, cache)
        while True:
            chosen_1 = sampling.choose(logits_1K, draws[len(written)][None])
            written.append(int(chosen_1))
            if stopping.ended(written) or len(written) == max_new_tokens:
                break
            sure = stopping.sure_text(written)
            if len(sure) > len(shown) and sure.startswith(shown):
                yield sure[len(shown) :]
                shown = sure
            logits_1K = _scores(model, model.place(chosen_1[None], None), cache)
    finally:
        model.train(was_training)
    rest = stopping.text(written)[len(shown) :]
    if rest:
        yield rest


@torch.no_grad()
def _scores(model: Llava, embeddings_1QD: Tensor, cache: DynamicCache) -> Tensor:
    """The scores (1, K) after the next Q positions of one sequence."""
    return model.head(feed(model, embeddings_1QD, cache))


def _pictures_end(prompt: Encoded) -> int:
    """Positions up to the end of the last picture; 0 without one."""
    return max((span.start + span.length for span in prompt.images), default=0)


def _head_length(prompt: Encoded) -> int:
    """Positions up to the end of the last picture; 0 without a picture, or when one ends the prompt."""
    end = _pictures_end(prompt)
    return end if end < len(prompt.ids) else 0


def batches(prompts: Sequence[Encoded], heads: Sequence[int], tokens: int, rows: int) -> Iterator[list[int]]:
    """Places of prompts that are read together: of like length after their heads, longest first, within limits.

    heads: how many positions of each are its head. tokens, rows: the most positions and prompts of a batch.
    """
    sizes = [(len(prompt.ids) - head, len(prompt.ids)) for prompt, head in zip(prompts, heads, strict=True)]
    batch: list[int] = []
    longest = 0
    for place in sorted(range(len(prompts)), key=sizes.__getitem__, reverse=True):
        rest, length = sizes[place]
        if batch:
            most = sizes[batch[0]][0]  # what every row of the batch reads
            full = len(batch) >= rows or (len(batch) + 1) * max(longest, length, most) > tokens
            if full or most > ALIKE * rest + ALIKE_POSITIONS:
                yield batch
                batch, longest = [], 0
        batch.append(place)
        longest = max(longest, length)
    if batch:
        yield batch


@torch.no_grad()
def read_prompts(
    model: Llava,
    requests: Sequence[Request],
    heads: Sequence[int],
    kept: PromptHeads,
    features: PictureFeatures | None = None,
) -> tuple[Tensor, DynamicCache, Tensor | None]:
    """Reads prompts together; returns scores (B, K) of what comes next, the cache, and the empty positions (B).

    heads: how many positions of each prompt are its head, with all pictures in it or none; heads come from `kept` as
    far as they were read before. features: of pictures after a head; those that `kept` has when None.
    """
    prompts = [request.prompt for request in requests]
    read = max(len(prompt.ids) - head for prompt, head in zip(prompts, heads, strict=True))
    before = [max(0, len(prompt.ids) - read) for prompt in prompts]
    cache = kept.cache(
        [prompt.ids[:head] for prompt, head in zip(prompts, heads, strict=True)],
        [
            request.pictures if head >= _pictures_end(request.prompt) else ()
            for request, head in zip(requests, heads, strict=True)
        ],
        before,
    )
    last = [_last_embeddings(model, request, read, features or kept.features) for request in requests]
    embeddings_BQD = torch.stack([F.pad(rows_QD, (0, 0, read - len(rows_QD), 0)) for rows_QD in last])
    width = max(before) + read
    empty = [width - len(prompt.ids) for prompt in prompts]
    empty_B = torch.tensor(empty, device=model.device) if any(empty) else None
    return model.head(feed(model, embeddings_BQD, cache, empty_B)), cache, empty_B


def _last_embeddings(model: Llava, request: Request, count: int, features: PictureFeatures) -> Tensor:
    """The embeddings (Q, D) of a prompt's last positions, at most so many."""
    ids = request.prompt.ids
    if len(ids) - count >= _pictures_end(request.prompt):
        return model.place(torch.tensor(ids[-count:], device=model.device), None)
    return prompt_embeddings(model, [request], features)[0, -count:]


@torch.no_grad()
def _answer_batch(
    model: Llava,
    places: list[int],
    requests: list[Request],
    heads: PromptHeads,
    sampling: Sampling,
    stopping: Stopping,
    max_new_tokens: int,
) -> Iterator[tuple[int, str]]:
    """Answers requests together; yields place and text as each is done."""
    ends = [_head_length(request.prompt) for request in requests]
    logits_BK, cache, empty_B = read_prompts(model, requests, ends, heads)
    draws_BT = torch.stack([sampling.draws(place, max_new_tokens) for place in places])
    for row, ids in decode_batch(model, logits_BK, cache, sampling, draws_BT, stopping, empty_B):
        yield places[row], stopping.text(ids)


@torch.no_grad()
def decode_batch(
    model: Llava,
    logits_BK: Tensor,
    cache: DynamicCache,
    sampling: Sampling,
    draws_BT: Tensor,
    stopping: Stopping,
    empty_B: Tensor | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """Continues B sequences that end together and yields the row and the ids of each answer as it is done.

    logits_BK: scores after the prompts, which the cache holds. draws_BT: a number for every token, and so many tokens
    at most. empty_B: positions at the start of each row that hold nothing.
    """
    written: list[list[int]] = [[] for _ in range(len(draws_BT))]
    rows = list(range(len(written)))  # which answer each row of the batch is writing
    done = [False] * len(written)
    max_new_tokens = draws_BT.shape[1]
    for step in range(max_new_tokens):
        chosen_B = sampling.choose(logits_BK, draws_BT[rows, step])
        for answer, token in zip(rows, chosen_B.tolist(), strict=True):
            if done[answer]:
                continue
            written[answer].append(token)
            if stopping.ended(written[answer]) or step + 1 == max_new_tokens:
                done[answer] = True
                yield answer, written[answer]
        left = [row for row, answer in enumerate(rows) if not done[answer]]
        if not left:
            return
        if len(left) <= len(rows) // 2:
            keep = torch.tensor(left, device=chosen_B.device)
            cache.batch_select_indices(keep)
            chosen_B, rows = chosen_B[keep], [rows[row] for row in left]
            empty_B = None if empty_B is None else empty_B[keep]
        logits_BK = model.head(feed(model, model.place(chosen_B[:, None], None), cache, empty_B))


def _check(model: Llava, place: int, request: Request, max_new_tokens: int) -> None:
    """Raises LlavakitError when a request cannot be answered."""
    spans = request.prompt.images
    if max_new_tokens < 1:
        raise LlavakitError(f"max_new_tokens is {max_new_tokens}, expected at least 1")
    if not request.prompt.ids:
        raise LlavakitError(f"request {place}: its prompt is empty")
    if len(spans) != len(request.pictures):
        raise LlavakitError(
            f"request {place}: its prompt places {len(spans)} pictures but {len(request.pictures)} were given"
        )
    for number, (span, picture) in enumerate(zip(spans, request.pictures, strict=True)):
        shape = (
            picture.layout
            if isinstance(picture, Tiled)
            else model.image_layout(*picture.size, count_pictures(request.pictures))
        )
        if span.length != shape.tokens:
            raise LlavakitError(
                f"request {place}: its prompt keeps {span.length} positions for picture {number}, the model makes "
                f"{shape.tokens} features of it"
            )
    if request.prompt.ids.count(IMAGE_TOKEN_ID) != sum(span.length for span in spans):
        raise LlavakitError(
            f"request {place}: its picture positions are not those its picture spans announce"
        )
    limit = getattr(model.language_model.config, "max_position_embeddings", None)
    if limit is not None and len(request.prompt.ids) >= limit:
        raise LlavakitError(
            f"request {place}: its prompt takes {len(request.prompt.ids)} positions, the language model has {limit}"
        )
