"""Packs, made by worker processes.

What lives here: the data set whose item `i` is the plan's pack `i`, and its DataLoader. Here, and only here, training
opens pictures. A pack is a pure function of (plan, i): nothing depends on how many processes make packs, nor on which
were made before. A picture whose header was read by the index but whose pixels cannot be takes its conversation out of
the pack, and the pack says so; nothing is put in its place. It does not know models, stages or what is done with a
pack.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from llavakit.conversation.tokenize import Encoded
from llavakit.data.index import Index
from llavakit.data.plan import PlannedPack, mix64
from llavakit.data.shelf import Shelf
from llavakit.data.writing import Writing
from llavakit.errors import LlavakitError
from llavakit.images.frames import open_pictures
from llavakit.images.pixels import PictureError, to_tiles
from llavakit.images.spec import PixelSpec
from llavakit.model.packed import Pack, Tiled, pack_conversations


@dataclass(frozen=True, slots=True)
class Dropped:
    """A conversation that was planned but could not be loaded, and why."""

    sample: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoadedPack:
    """Pack `number` of a plan. `pack` is None when every conversation of it was dropped.

    `failure` is set, and everything else empty, when the pack cannot be made because something is wrong that training
    must not pass over.
    """

    number: int
    pack: Pack | None
    dropped: tuple[Dropped, ...] = ()
    failure: str | None = None


class PackDataset(Dataset[LoadedPack]):
    """The packs of a plan, made on demand."""

    def __init__(
        self,
        packs: Sequence[PlannedPack],
        index: Index,
        shelf: Shelf,
        writing: Writing,
        pixels: PixelSpec,
        seed: int,
    ) -> None:
        self.packs = packs
        self.index = index
        self.shelf = shelf
        self.writing = writing
        self.pixels = pixels
        self.seed = seed

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, number: int) -> LoadedPack:
        """Pack `number`. A mistake of the user's is returned as `failure`, so that it crosses processes as it is."""
        try:
            return self._load(number)
        except LlavakitError as error:
            return LoadedPack(number, None, failure=str(error))

    def sample_names(self, number: int) -> list[str]:
        """The names of the samples that pack `number` is planned to hold."""
        return [self.index.name(self.index.rows[sample]) for sample in self.packs[number].samples]

    def _load(self, number: int) -> LoadedPack:
        planned = self.packs[number]
        encoded: list[Encoded] = []
        tiles: list[Tiled] = []
        names: list[str] = []
        dropped: list[Dropped] = []
        for sample in planned.samples:
            name = self.index.name(self.index.rows[sample])
            try:
                one, its_tiles = self._sample(sample, planned.epoch, name)
            except PictureError as error:
                dropped.append(Dropped(name, str(error)))
                continue
            encoded.append(one)
            tiles += its_tiles
            names.append(name)
        pack = pack_conversations(encoded, tiles, names) if encoded else None
        return LoadedPack(number, pack, tuple(dropped))

    def _sample(self, sample: int, epoch: int, name: str) -> tuple[Encoded, list[Tiled]]:
        """One conversation, written, and the tiles of its pictures in the order in which they stand in it."""
        row, conversation = self.index.rows[sample], self.shelf[sample]
        pictures = open_pictures(conversation.images)
        sizes = [picture.size for picture in pictures]
        encoded = self.writing.encode(conversation, sizes, mix64(self.seed, epoch, sample, 3))
        if len(encoded.ids) > row.length:
            raise LlavakitError(
                f"{name} takes {len(encoded.ids)} tokens and took {row.length} when it was indexed: "
                "a picture changed since; start the run again in a new folder"
            )
        shapes = self.writing.layouts(conversation, sizes)
        shown = sum(shape.pooled is None for shape in shapes)
        tiles = []
        for span in encoded.images:
            picture, shape = pictures[span.index], shapes[span.index]
            frame = shape.pooled is not None
            tiles_NCHW = to_tiles(picture, self.writing.image_policy, self.pixels, shown, frame=frame)
            tiles.append(Tiled(tiles_NCHW, shape))
        return encoded, tiles


def load_packs(
    dataset: PackDataset, numbers: Sequence[int], workers: int
) -> Generator[LoadedPack, None, None]:
    """The packs of these numbers, in this order, made ahead by `workers` processes (0: by this one, when asked for).

    Raises LlavakitError when a pack cannot be made or a worker process dies.
    """
    if workers:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_signals_to_the_trainer,
        generator=torch.Generator(),
    )
    with naming_dead_workers(workers):
        for loaded in loader:
            if loaded.failure is not None:
                raise LlavakitError(loaded.failure)
            yield loaded


@contextmanager
def naming_dead_workers(workers: int) -> Iterator[None]:
    """Turns PyTorch's word of a dead worker, which may arrive anywhere in the main thread, into a LlavakitError."""
    try:
        yield
    except RuntimeError as error:
        dead = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)", str(error))
        if dead is None:
            raise
        raise LlavakitError(
            f"a data worker process (pid {dead.group(1)}) died, most often because memory ran out; "
            f"lower `workers` (it is {workers}; 0 loads in the training process) and resume the run"
        ) from error


def _as_it_is(loaded: Any) -> Any:
    return loaded


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Ctrl-C and SIGTERM reach every process of the group; the trainer finishes its step, so the workers must live."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
