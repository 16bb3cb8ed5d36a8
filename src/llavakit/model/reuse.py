"""What is computed once and used again while answers are made: features of pictures, and the states of prompts' heads.

Questions about one picture share everything up to the picture's end; the language model reads that head of the prompt
once and every answer goes on from the kept keys and values. Whatever does not fit the room given is computed again.

Knows a model's tower, projector and language model. Knows no sampling and no text.

Shapes: B rows, Q positions, D LLM width, N tiles, P features of a tile, M picture positions, G key-value heads,
L positions kept, E width of a head.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from llavakit.images.pixels import to_tiles
from llavakit.model.packed import Tiled, count_pictures

if TYPE_CHECKING:
    from llavakit.model.llava import Llava

# Tiles that go through the tower at once.
_TILES_AT_ONCE = 32
_GIGABYTE = 2**30

Image_ = Image.Image | Tiled
Key = TypeVar("Key", bound=Hashable)


class Shelf(Generic[Key]):
    """Tensors by key within a room of bytes; the longest unused give way."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._held: OrderedDict[Key, list[Tensor]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key) -> list[Tensor] | None:
        """What is kept under the key, which then counts as used."""
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def keep(self, key: Key, tensors: list[Tensor]) -> None:
        """Keeps tensors under a key that is not yet there."""
        self._held[key] = tensors
        self._bytes += sum(tensor.nbytes for tensor in tensors)
        while self._bytes > self._room:
            _, dropped = self._held.popitem(last=False)
            self._bytes -= sum(tensor.nbytes for tensor in dropped)


class PictureFeatures:
    """The features of pictures, each computed once while there is room for it (in bytes)."""

    def __init__(self, model: Llava, room: int = _GIGABYTE) -> None:
        self._model = model
        self._shelf: Shelf[bytes] = Shelf(room)
        self._known: dict[int, tuple[object, bytes]] = {}

    def key(self, picture: Image_, pictures: int) -> bytes:
        """A name that two pictures share when their pixels, and what is made of them beside so many, are the same."""
        known = self._known.get(id(picture))
        if known is None:
            if isinstance(picture, Tiled):
                shape, pixels = str(picture.layout), picture.tiles_NCHW.cpu().contiguous().numpy().tobytes()
            else:
                shape, pixels = f"{picture.mode}{picture.size}", picture.tobytes()
            key = hashlib.blake2b(pixels, digest_size=16, person=_digest(shape)).digest()
            known = self._known[id(picture)] = (picture, key)  # holding the picture keeps its id its own
        tiling = not isinstance(picture, Tiled) and self._model.settings.image_policy.tiling(pictures)
        return known[1] + bytes([tiling])

    @torch.no_grad()
    def __call__(self, conversations: Sequence[Sequence[Image_]]) -> list[Tensor]:
        """The rows (positions, D) of every picture of every conversation, in order."""
        shown = [(picture, count_pictures(some)) for some in conversations for picture in some]
        wanted = {self.key(*one): one for one in shown}
        found = {key: kept[0] for key in wanted if (kept := self._shelf.get(key)) is not None}
        fresh = {key: self._tiled(*one) for key, one in wanted.items() if key not in found}
        for keys in _groups(fresh):
            tiles_NCHW = torch.cat([fresh[key].tiles_NCHW for key in keys]).to(self._model.device)
            features = self._model.encode_images(tiles_NCHW).split([fresh[key].layout.tiles for key in keys])
            for key, features_NPD in zip(keys, features, strict=True):
                found[key] = self._model.arrange(features_NPD, [fresh[key].layout]).clone()
                self._shelf.keep(key, [found[key]])
        return [found[self.key(*one)] for one in shown]

    def _tiled(self, picture: Image_, pictures: int) -> Tiled:
        if isinstance(picture, Tiled):
            return picture
        tiles_NCHW = to_tiles(picture, self._model.settings.image_policy, self._model.pixels, pictures)
        return Tiled(tiles_NCHW, self._model.image_layout(*picture.size, pictures))


def _groups(fresh: Mapping[bytes, Tiled]) -> Iterator[list[bytes]]:
    """Keys of pictures whose tiles go through the tower together."""
    group: list[bytes] = []
    tiles = 0
    for key, one in fresh.items():
        if group and tiles + one.layout.tiles > _TILES_AT_ONCE:
            yield group
            group, tiles = [], 0
        group.append(key)
        tiles += one.layout.tiles
    if group:
        yield group


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


@torch.no_grad()
def feed(model: Llava, embeddings_BQD: Tensor, cache: DynamicCache, empty_B: Tensor | None = None) -> Tensor:
    """Runs the language model over the next Q positions and returns the hidden states (B, D) at the last.

    empty_B: how many positions at the start of each row, cached ones included, hold nothing, so that rows of other
    lengths end together; None when none does.
    """
    start = cache.get_seq_length()
    rows, new = embeddings_BQD.shape[:2]
    places_Q = torch.arange(start, start + new, device=embeddings_BQD.device)
    positions_BQ, more = places_Q.expand(rows, -1), {}
    if empty_B is not None:
        positions_BQ = (positions_BQ - empty_B[:, None]).clamp(min=0)
        more["seen"] = _seen(places_Q, start + new, empty_B)
    output = model.language_model.base_model(
        inputs_embeds=embeddings_BQD, position_ids=positions_BQ, past_key_values=cache, use_cache=True, **more
    )
    return output.last_hidden_state[:, -1]


def _seen(places_Q: Tensor, length: int, empty_B: Tensor) -> Tensor:
    """What a position sees (B, 1, Q, L): the row from its first to itself; an empty one sees itself, for a number."""
    places_L = torch.arange(length, device=places_Q.device)
    before_QL, itself_QL = places_L <= places_Q[:, None], places_L == places_Q[:, None]
    held_BQL = (places_L >= empty_B[:, None, None]) & before_QL
    return (held_BQL | itself_QL)[:, None]


class PromptHeads:
    """The keys and values of prompts' heads, each computed once while there is room for it (in bytes)."""

    def __init__(self, model: Llava, features: PictureFeatures, room: int = _GIGABYTE) -> None:
        self._model = model
        self.features = features
        self._shelf: Shelf[tuple[tuple[int, ...], tuple[bytes, ...]]] = Shelf(room)

    @torch.no_grad()
    def cache(
        self,
        heads: Sequence[Sequence[int]],
        pictures: Sequence[Sequence[Image_]],
        lengths: Sequence[int] | None = None,
    ) -> DynamicCache:
        """A cache that has read these heads, with all pictures of each; empty for empty heads.

        lengths: how many of its head's positions each row holds, all when None; rows begin with empty ones, whose keys
        and values are zero, up to the longest.
        """
        lengths = [len(head) for head in heads] if lengths is None else lengths
        longest = max(lengths)
        if not longest:
            return DynamicCache()
        held = [row for row, length in enumerate(lengths) if length]
        read = self._states([heads[row] for row in held], [pictures[row] for row in held])
        states = dict(zip(held, read, strict=True))
        cache = DynamicCache()
        for layer in range(len(read[0]) // 2):
            keys_BGLE, values_BGLE = (
                torch.cat([
                    F.pad(states.get(row, read[0])[part][:, :, :length], (0, 0, longest - length, 0))
                    for row, length in enumerate(lengths)
                ])
                for part in (2 * layer, 2 * layer + 1)
            )  # fmt: skip
            cache.update(keys_BGLE, values_BGLE, layer)
        return cache

    def _states(
        self, heads: Sequence[Sequence[int]], pictures: Sequence[Sequence[Image_]]
    ) -> list[list[Tensor]]:
        """The keys and values of every layer, in turn, of each head; equal heads are read once."""
        keys = [
            (tuple(ids), tuple(self.features.key(picture, count_pictures(mine)) for picture in mine))
            for ids, mine in zip(heads, pictures, strict=True)
        ]
        states = {key: kept for key in dict.fromkeys(keys) if (kept := self._shelf.get(key)) is not None}
        fresh: dict[int, dict[Any, int]] = {}
        for place, key in enumerate(keys):
            if key not in states:
                fresh.setdefault(len(heads[place]), {}).setdefault(key, place)
        for places in fresh.values():
            ids_BQ = torch.tensor([heads[place] for place in places.values()], device=self._model.device)
            rows = self.features([pictures[place] for place in places.values()])
            read = DynamicCache()
            feed(self._model, self._model.place(ids_BQ, torch.cat(rows) if rows else None), read)
            for row, key in enumerate(places):
                states[key] = [tensor[row : row + 1].clone() for tensor in _tensors(read)]
                self._shelf.keep(key, states[key])
        return [states[key] for key in keys]


def _tensors(cache: DynamicCache) -> list[Tensor]:
    """Keys and values of every layer, in turn."""
    tensors = []
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
        tensors += [layer.keys, layer.values]
    return tensors
