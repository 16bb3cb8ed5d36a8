"""A conversation with a model, turn by turn, that computes only what is new.

The key-value cache is kept between turns: of the next prompt, the part that the model has already read, pictures
included, is not read again.

Knows models, templates, pictures and short videos. Does not print.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from llavakit.conversation.record import Conversation, Part, Picture, Text, Turn
from llavakit.conversation.templates import get_template
from llavakit.conversation.tokenize import encode
from llavakit.errors import LlavakitError
from llavakit.images.frames import frame_count, open_frames, sampled
from llavakit.images.geometry import frame_layout
from llavakit.images.pixels import open_picture, to_tiles
from llavakit.model.generation import Request, decode_one, prompt_embeddings
from llavakit.model.packed import Tiled, count_pictures
from llavakit.model.reuse import PictureFeatures
from llavakit.model.sampling import Sampling
from llavakit.model.stops import Stopping

if TYPE_CHECKING:
    from llavakit.model.llava import Llava

Source = str | Path | bytes | Image.Image


class ChatSession:
    """One conversation. `ask` and `stream` add a turn; `clear` begins anew."""

    def __init__(
        self,
        model: Llava,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> None:
        """The sampling settings are those of `generation.generate` and hold for every turn."""
        if max_new_tokens < 1:
            raise LlavakitError(f"max_new_tokens is {max_new_tokens}, expected at least 1")
        self._model = model
        self._template = get_template(model.settings.template, model.tokenizer)
        self._sampling = Sampling(temperature, top_p, seed)
        self._stopping = Stopping(model, stop)
        self._max_new_tokens = max_new_tokens
        self._features = PictureFeatures(model)
        self.clear()

    def clear(self) -> None:
        """Forgets every turn and picture."""
        self._turns: list[Turn] = []
        self._pictures: list[Image.Image | Tiled] = []  # frames of videos are tiled, pictures as they are
        self._cache = DynamicCache()
        self._read: list[int] = []  # the ids that the cache holds; pictures are never exchanged, only added
        self._tiling = False  # whether the pictures that the cache holds were cut into tiles

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation so far."""
        return tuple(self._turns)

    @property
    def positions(self) -> int:
        """Positions that the key-value cache holds: what has been read, pictures included."""
        return int(self._cache.get_seq_length())

    def recall(
        self,
        history: Sequence[tuple[str, str]],
        images: Sequence[Source] = (),
        videos: Sequence[str | Path] = (),
    ) -> None:
        """Adds turns that took place elsewhere: questions with their answers, pictures and videos before the first."""
        for number, (question, answer) in enumerate(history):
            self._add_question(question, *((images, videos) if number == 0 else ((), ())))
            self._turns.append(Turn("assistant", (Text(answer),)))

    def ask(self, question: str, images: Sequence[Source] = (), videos: Sequence[str | Path] = ()) -> str:
        """The answer to the next question, `images` and then `videos` before it.

        Raises PictureError when one cannot be opened.
        """
        return "".join(self.stream(question, images, videos))

    def stream(
        self, question: str, images: Sequence[Source] = (), videos: Sequence[str | Path] = ()
    ) -> Iterator[str]:
        """The answer to the next question, piece by piece. A turn that is broken off is remembered as far as it got."""
        before = len(self._turns), len(self._pictures)
        self._add_question(question, images, videos)
        try:
            request, room = self._request()
        except LlavakitError:
            del self._turns[before[0] :], self._pictures[before[1] :]
            raise
        written: list[int] = []
        shown: list[str] = []
        kept = self._reuse(request.prompt.ids)
        embeddings_1QD = prompt_embeddings(self._model, [request], self._features)[:, kept:]
        try:
            for piece in decode_one(
                self._model, embeddings_1QD, self._cache, self._sampling, self._stopping, room, written
            ):
                shown.append(piece)
                yield piece
        finally:
            self._read = [*request.prompt.ids, *written][: self.positions]
            self._turns.append(Turn("assistant", (Text("".join(shown)),)))

    def _add_question(self, question: str, images: Sequence[Source], videos: Sequence[str | Path]) -> None:
        shown: list[list[Image.Image | Tiled]] = [[open_picture(image)] for image in images]
        shown += [list(self._frames(video)) for video in videos]
        parts: list[Part] = []
        for some in shown:  # a picture, or the frames of a video
            parts += [Picture(len(self._pictures) + number) for number in range(len(some))]
            parts.append(Text("\n"))
            self._pictures += some
        self._turns.append(Turn("user", (*parts, Text(question))))

    def _frames(self, video: str | Path) -> Iterator[Tiled]:
        model, policy = self._model, self._model.settings.image_policy
        shape = frame_layout(policy, model.geometry)
        for frame in open_frames(video, sampled(frame_count(video), policy.frames)):
            yield Tiled(to_tiles(frame, policy, model.pixels, frame=True), shape)

    def _request(self) -> tuple[Request, int]:
        """The prompt of the conversation so far, and how many tokens its answer may take."""
        names = tuple(f"picture {number + 1}" for number in range(len(self._pictures)))
        conversation = Conversation(id="chat", source="chat", images=names, turns=tuple(self._turns), meta={})
        shown = count_pictures(self._pictures)
        lengths = [
            picture.layout.tokens
            if isinstance(picture, Tiled)
            else self._model.image_length(*picture.size, shown)
            for picture in self._pictures
        ]
        prompt = encode(conversation, self._template, self._model.tokenizer, lengths, prompt=True)
        room = self._max_new_tokens
        limit = getattr(self._model.language_model.config, "max_position_embeddings", None)
        if limit is not None:
            room = min(room, limit - len(prompt.ids))
            if room < 1:
                raise LlavakitError(
                    f"the conversation takes {len(prompt.ids)} positions, the language model has {limit}; "
                    "begin a new one"
                )
        return Request(prompt, self._pictures), room

    def _reuse(self, ids: list[int]) -> int:
        """Cuts the cache to what it shares with the prompt, short of its last position; returns how much that is."""
        tiling = self._model.settings.image_policy.tiling(count_pictures(self._pictures))
        if tiling != self._tiling:  # one more picture, and the earlier ones are shown in another way
            self._read, self._tiling = [], tiling
        kept = 0
        for old, new in zip(self._read, ids[:-1], strict=False):
            if old != new:
                break
            kept += 1
        if kept == 0:
            self._cache = DynamicCache()
        for layer in self._cache.layers:
            assert isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
            layer.keys, layer.values = layer.keys[:, :, :kept], layer.values[:, :, :kept]
        return kept
