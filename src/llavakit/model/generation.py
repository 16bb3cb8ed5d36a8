"""Answers: prompts and pictures in, text out, many at a time.

Requests whose prompts have the same length share a batch, so a batch has no padding and no mask, and an answer is
computed exactly as it would be alone. A picture that several requests ask about goes through the tower once. Rows
whose answer is over leave the batch when half of it is idle.

Knows models, encoded prompts and pictures. Does not write prompts: that is the conversation room's.

Shapes: B answers of a batch, Q positions fed at once, P features of a tile, D LLM width, K vocabulary.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from llavakit.conversation.tokenize import IMAGE_TOKEN_ID, Encoded
from llavakit.errors import LlavakitError
from llavakit.images.pixels import to_tiles
from llavakit.model.sampling import Sampling
from llavakit.model.stops import Stopping

if TYPE_CHECKING:
    from llavakit.model.llava import Llava

# Tiles that go through the tower at once.
_TILES_AT_ONCE = 32


@dataclass(frozen=True)
class Request:
    """A prompt that ends where the assistant begins to speak, and its pictures in order of placement.

    pictures: RGB images, or tiles (N, C, H, W) already made for the model.
    """

    prompt: Encoded
    pictures: Sequence[Image.Image | Tensor] = ()


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
    features = PictureFeatures(model)
    for place, request in enumerate(requests):
        _check(model, place, request, max_new_tokens)
    answers = [""] * len(requests)
    was_training = model.training
    model.eval()
    try:
        for places in _batches(requests, batch_tokens, batch_rows):
            for place, text in _answer_batch(
                model, places, [requests[p] for p in places], features, sampling, stopping, max_new_tokens
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


class PictureFeatures:
    """The features of pictures, each computed once while there is room; the longest unused give way.

    room: bytes of features kept.
    """

    def __init__(self, model: Llava, room: int = 2**30) -> None:
        self._model = model
        self._room = room
        self._held: OrderedDict[bytes, Tensor] = OrderedDict()
        self._known: dict[int, tuple[object, bytes]] = {}

    def key(self, picture: Image.Image | Tensor) -> bytes:
        """A name that two pictures share when their pixels are the same."""
        known = self._known.get(id(picture))
        if known is None:
            if isinstance(picture, Tensor):
                shape, pixels = str(tuple(picture.shape)), picture.cpu().contiguous().numpy().tobytes()
            else:
                shape, pixels = f"{picture.mode}{picture.size}", picture.tobytes()
            key = hashlib.blake2b(pixels, digest_size=16, key=shape.encode()[:64]).digest()
            known = self._known[id(picture)] = (picture, key)  # holding the picture keeps its id its own
        return known[1]

    def __call__(self, pictures: Sequence[Image.Image | Tensor]) -> list[Tensor]:
        """The features (positions, D) of each picture."""
        wanted = {self.key(picture): picture for picture in pictures}
        found = {key: self._held[key] for key in wanted if key in self._held}
        fresh = {key: picture for key, picture in wanted.items() if key not in found}
        names = list(fresh)
        for start in range(0, len(names), _TILES_AT_ONCE):
            some = names[start : start + _TILES_AT_ONCE]
            tiles = [self._tiles(fresh[key]) for key in some]
            with torch.no_grad():
                rows_NPD = self._model.encode_images(torch.cat(tiles).to(self._model.device))
            split = rows_NPD.split([len(tile) for tile in tiles])
            found |= {key: rows.flatten(0, 1) for key, rows in zip(some, split, strict=True)}
        for key in wanted:
            self._held[key] = found[key]
            self._held.move_to_end(key)
        while sum(rows.nbytes for rows in self._held.values()) > self._room and len(self._held) > len(wanted):
            self._held.popitem(last=False)
        return [found[self.key(picture)] for picture in pictures]

    def _tiles(self, picture: Image.Image | Tensor) -> Tensor:
        if isinstance(picture, Tensor):
            return picture
        return to_tiles(picture, self._model.settings.image_policy, self._model.pixels)


@torch.no_grad()
def prompt_embeddings(model: Llava, requests: Sequence[Request], features: PictureFeatures) -> Tensor:
    """Embeddings (B, Q, D) of prompts of one length."""
    ids_BQ = torch.tensor([request.prompt.ids for request in requests], device=model.device)
    pictures = [picture for request in requests for picture in request.pictures]
    return model.place(ids_BQ, torch.cat(features(pictures)) if pictures else None)


@torch.no_grad()
def feed(model: Llava, embeddings_BQD: Tensor, cache: DynamicCache) -> Tensor:
    """Runs the language model over the next Q positions and returns the scores (B, K) after the last."""
    start = cache.get_seq_length()
    rows, new = embeddings_BQD.shape[:2]
    positions_BQ = torch.arange(start, start + new, device=embeddings_BQD.device).expand(rows, -1)
    output = model.language_model.base_model(
        inputs_embeds=embeddings_BQD, position_ids=positions_BQ, past_key_values=cache, use_cache=True
    )
    return model.head(output.last_hidden_state[:, -1])


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
        logits_1K = feed(model, embeddings_1QD, cache)
        while True:
            chosen_1 = sampling.choose(logits_1K, draws[len(written)][None])
            written.append(int(chosen_1))
            if stopping.ended(written) or len(written) == max_new_tokens:
                break
            sure = stopping.sure_text(written)
            if len(sure) > len(shown) and sure.startswith(shown):
                yield sure[len(shown) :]
                shown = sure
            logits_1K = feed(model, model.place(chosen_1[None], None), cache)
    finally:
        model.train(was_training)
    rest = stopping.text(written)[len(shown) :]
    if rest:
        yield rest


def _batches(requests: Sequence[Request], tokens: int, rows: int) -> Iterator[list[int]]:
    """Places of requests that are computed together: of one prompt length, in order, within the limits."""
    by_length: dict[int, list[int]] = {}
    for place, request in enumerate(requests):
        by_length.setdefault(len(request.prompt.ids), []).append(place)
    for length, places in sorted(by_length.items(), reverse=True):
        size = max(1, min(rows, tokens // length))
        for start in range(0, len(places), size):
            yield places[start : start + size]


@torch.no_grad()
def _answer_batch(
    model: Llava,
    places: list[int],
    requests: list[Request],
    features: PictureFeatures,
    sampling: Sampling,
    stopping: Stopping,
    max_new_tokens: int,
) -> Iterator[tuple[int, str]]:
    """Answers prompts of one length together; yields place and text as each is done."""
    cache = DynamicCache()
    written: list[list[int]] = [[] for _ in places]
    draws = torch.stack([sampling.draws(place, max_new_tokens) for place in places])
    rows = list(range(len(places)))  # which answer each row of the batch is writing
    done = [False] * len(places)
    logits_BK = feed(model, prompt_embeddings(model, requests, features), cache)
    for step in range(max_new_tokens):
        chosen_B = sampling.choose(logits_BK, draws[rows, step])
        for answer, token in zip(rows, chosen_B.tolist(), strict=True):
            if done[answer]:
                continue
            written[answer].append(token)
            if stopping.ended(written[answer]) or step + 1 == max_new_tokens:
                done[answer] = True
                yield places[answer], stopping.text(written[answer])
        left = [row for row, answer in enumerate(rows) if not done[answer]]
        if not left:
            return
        if len(left) <= len(rows) // 2:
            keep = torch.tensor(left, device=chosen_B.device)
            cache.batch_select_indices(keep)
            chosen_B, rows = chosen_B[keep], [rows[row] for row in left]
        logits_BK = feed(model, model.place(chosen_B[:, None], None), cache)


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
        tiles = len(picture) if isinstance(picture, Tensor) else 1
        if span.length != tiles * model.geometry.tokens:
            raise LlavakitError(
                f"request {place}: its prompt keeps {span.length} positions for picture {number}, the model makes "
                f"{tiles * model.geometry.tokens} features of it"
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
