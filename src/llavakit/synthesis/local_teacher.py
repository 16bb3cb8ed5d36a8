"""A teacher on this machine: a causal language model, or a LLaVA that sees the picture.

Requests that wait at the same time and whose prompts are of like length are answered in one batch, and what a kind's
requests have in common, system message and examples, is read once. An answer depends on its request alone, and on those
beside it no more than by the rounding of sums. A JSON schema is not enforced: the prompt asks for the form, and readers
refuse what is not in it.

Knows models and chat requests. Knows no kinds and parses no reply.

Shapes: B requests of a batch, Q positions fed at once, T tokens that an answer may take, K vocabulary.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from llavakit.conversation.record import Conversation, Part, Picture, Text, Turn
from llavakit.conversation.templates import get_template
from llavakit.conversation.tokenize import Encoded, encode
from llavakit.errors import LlavakitError
from llavakit.model.generation import Request, batches, decode_batch, read_prompts
from llavakit.model.llava import Llava
from llavakit.model.reuse import PictureFeatures, PromptHeads
from llavakit.model.sampling import Sampling
from llavakit.model.sources import checkpoint_folder
from llavakit.model.stops import Stopping
from llavakit.model.text_model import TextModel
from llavakit.recipe import resolve_source
from llavakit.synthesis.teacher import (
    Message,
    TeacherError,
    TeacherReply,
    TeacherRequest,
    Trouble,
    Usage,
)

BATCH_ROWS, BATCH_TOKENS = 32, 16384


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A request with its prompt. head: positions of the prompt that all requests of its kind share."""

    request: TeacherRequest
    prompt: Encoded
    pictures: tuple[Image.Image, ...]
    head: int
    room: int
    future: asyncio.Future[TeacherReply]

    @property
    def alike(self) -> tuple[float, int]:
        """Requests that are equal in this can share a batch."""
        return self.request.temperature or 0.0, self.room


class LocalTeacher:
    """Answers with a model of this process. name: how replies say which model wrote them."""

    def __init__(self, model: TextModel | Llava, name: str, batch_rows: int = BATCH_ROWS) -> None:
        self.name = name
        # `generation` and its rooms ask of a Llava only what a TextModel has too, as long as there are no pictures.
        alike: Any = model
        self._model, self._sees = alike, isinstance(model, Llava)
        if isinstance(model, Llava):
            model.eval()
        self._template = get_template(model.settings.template, model.tokenizer)
        self._stopping = Stopping(self._model)
        self._heads = PromptHeads(self._model, PictureFeatures(self._model))
        self._shared: dict[tuple[Message, ...], list[int]] = {}
        self._rows = batch_rows
        self._waiting: list[_Waiting] = []
        self._under_way: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    async def reply(self, request: TeacherRequest) -> TeacherReply:
        """See `Teacher.reply`. Raises TeacherError for a prompt that is too long, or pictures nobody sees."""
        waiting = self._prepare(request, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
            self._worker.add_done_callback(self._ended)
        return await waiting.future

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # whoever asks in the same turn of the loop comes along
            self._waiting = [one for one in self._waiting if not one.future.done()]  # given up
            alike: dict[tuple[float, int], list[_Waiting]] = {}
            for one in self._waiting:
                alike.setdefault(one.alike, []).append(one)
            if not alike:
                return
            some = max(alike.values(), key=len)
            prompts, heads = [one.prompt for one in some], [one.head for one in some]
            places = max(batches(prompts, heads, BATCH_TOKENS, self._rows), key=len)
            batch = [some[place] for place in places]
            for one in batch:
                self._waiting.remove(one)
            self._under_way = batch
            try:
                replies = await asyncio.to_thread(self._answer, batch)
            except (LlavakitError, RuntimeError) as error:  # of torch: out of memory
                for one in batch:
                    if not one.future.done():
                        trouble = TeacherError(Trouble.REFUSED, f"{self.name} could not answer: {error}")
                        one.future.set_exception(trouble)
                continue
            for one, reply in zip(batch, replies, strict=True):
                if not one.future.done():
                    one.future.set_result(reply)

    def _ended(self, worker: asyncio.Task[None]) -> None:
        """Nobody waits for a worker that a fault has ended: all who wait are told of it."""
        fault = asyncio.CancelledError() if worker.cancelled() else worker.exception()
        if fault is None:
            return
        left, self._waiting = [*self._under_way, *self._waiting], []
        for one in left:
            if not one.future.done():
                one.future.set_exception(fault)

    def _prepare(self, request: TeacherRequest, future: asyncio.Future[TeacherReply]) -> _Waiting:
        pictures = tuple(
            Image.open(io.BytesIO(picture.data)).convert("RGB")
            for message in request.messages
            for picture in message.pictures
        )
        if pictures and not self._sees:
            raise TeacherError(
                Trouble.REFUSED,
                f"{self.name} is a language model and sees no pictures; name a LLaVA's folder",
            )
        try:
            prompt = self._encode(request.messages, pictures)
            shared = self._shared_head(request.messages)
        except TeacherError:
            raise
        except LlavakitError as error:
            raise TeacherError(Trouble.REFUSED, f"{self.name}: {error}") from error
        limit = getattr(self._model.language_model.config, "max_position_embeddings", None)
        room = request.max_tokens if limit is None else min(request.max_tokens, limit - len(prompt.ids))
        if room < 1:
            raise TeacherError(
                Trouble.REFUSED,
                f"{self.name}: the prompt takes {len(prompt.ids)} positions and the model has {limit}; use a prompt "
                "with fewer examples, or a model that reads more",
            )
        head = len(shared) if len(shared) < len(prompt.ids) and prompt.ids[: len(shared)] == shared else 0
        return _Waiting(request, prompt, pictures, head, room, future)

    def _encode(self, messages: Sequence[Message], pictures: Sequence[Image.Image]) -> Encoded:
        turns, shown = [], 0
        for message in messages:
            parts: list[Part] = []
            for _ in message.pictures:
                parts += [Picture(shown), Text("\n")]
                shown += 1
            turns.append(Turn(message.role, (*parts, Text(message.content))))
        names = tuple(f"picture {number + 1}" for number in range(shown))
        lengths = [self._model.image_length(*picture.size, len(pictures)) for picture in pictures]
        record = Conversation("teacher", "", names, tuple(turns), {})
        return encode(record, self._template, self._model.tokenizer, lengths, prompt=True)

    def _shared_head(self, messages: Sequence[Message]) -> list[int]:
        """The ids with which every prompt begins that differs from this one in its last message alone."""
        before = tuple(messages[:-1])
        if not before or any(message.pictures for message in before):
            return []
        if before not in self._shared:
            one, other = (
                self._encode([*before, Message(messages[-1].role, text)], ()).ids
                for text in ("A dog.", "1\n2")
            )
            same = 0
            while same < min(len(one), len(other)) and one[same] == other[same]:
                same += 1
            self._shared[before] = one[:same]
        return self._shared[before]

    @torch.no_grad()
    def _answer(self, batch: Sequence[_Waiting]) -> list[TeacherReply]:
        """Replies to requests that are alike, in their order."""
        model = self._model
        asked = [Request(one.prompt, one.pictures) for one in batch]
        heads = [one.head for one in batch]
        logits_BK, cache, empty_B = read_prompts(model, asked, heads, self._heads, PictureFeatures(model))
        temperature = batch[0].request.temperature or 0.0
        draws_BT = torch.stack([
            Sampling(temperature, seed=one.request.seed or 0).draws(one.request.sample, one.room) for one in batch
        ])  # fmt: skip
        replies: dict[int, TeacherReply] = {}
        sampling = Sampling(temperature)
        for row, ids in decode_batch(model, logits_BK, cache, sampling, draws_BT, self._stopping, empty_B):
            replies[row] = TeacherReply(
                self._stopping.text(ids),
                self.name,
                "stop" if self._stopping.ended(ids) else "length",
                Usage(len(batch[row].prompt.ids), len(ids)),
            )
        return [replies[row] for row in range(len(batch))]


def open_local_teacher(source: str) -> LocalTeacher:
    """The model of a folder (or whatever else `load_language_model` opens): a LLaVA where `config.json` says so.

    On a GPU, in bfloat16, where there is one. Raises LlavakitError when it cannot be opened.
    """
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    place = resolve_source(source)
    if _is_llava(place):
        return LocalTeacher(Llava.from_pretrained(place, dtype=dtype, device=device), source)
    model = TextModel.open(source, dtype)
    model.language_model.to(device)
    return LocalTeacher(model, source)


def _is_llava(source: str) -> bool:
    if source.endswith(".gguf"):
        return False
    file = checkpoint_folder(source) / "config.json"
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise LlavakitError(
            f"{source} has no config.json that can be read; `local:` takes the folder of a causal language model or "
            "of a LLaVA, or a GGUF file."
        ) from error
    return isinstance(config, dict) and ("vision_config" in config or "mm_vision_tower" in config)
