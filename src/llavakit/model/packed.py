"""A pack: several conversations laid end to end in one row, with nothing between them and no padding.

Positions restart at each conversation and `cu_seqlens` says where each begins, which is all that attention needs to
keep them apart. Labels are already shifted: `labels_T[t]` is the token that should follow position t.

Knows encoded conversations and pixel tiles. Does not open pictures, does not tokenise, holds no model.

Shapes: T packed positions, N tiles, C H W channels and pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from llavakit.conversation.tokenize import IGNORE_INDEX, IMAGE_TOKEN_ID, Encoded
from llavakit.errors import LlavakitError
from llavakit.images.geometry import Layout

__all__ = ["IGNORE_INDEX", "IMAGE_TOKEN_ID", "Pack", "Tiled", "count_pictures", "pack_conversations"]


class Tiled(NamedTuple):
    """A picture as a model takes it: its normalised tiles (N, C, H, W) and how their features are laid out."""

    tiles_NCHW: Tensor
    layout: Layout


def count_pictures(shown: Iterable[object]) -> int:
    """How many of a conversation's pictures are no frames of a video; by this number they are cut into tiles or not."""
    return sum(not (isinstance(one, Tiled) and one.layout.pooled) for one in shown)


@dataclass(frozen=True)
class Pack:
    """One packed row, ready for `Llava.forward`.

    ids_T: token ids, IMAGE_TOKEN_ID at every position that a picture's feature will take.
    labels_T: the target of each position, IGNORE_INDEX where nothing is supervised (always at a conversation's end).
    positions_T: position inside the conversation.
    cu_seqlens: where each conversation begins, and T last.
    tiles_NCHW: the tiles of all pictures in order of placement, or None when the pack has no picture.
    sample_ids: one name a conversation, for messages.
    layouts: how each conversation's pictures are laid out, in order of placement.
    """

    ids_T: Tensor
    labels_T: Tensor
    positions_T: Tensor
    cu_seqlens: list[int]
    tiles_NCHW: Tensor | None
    sample_ids: list[str]
    layouts: list[list[Layout]] = field(default_factory=list)

    @property
    def supervised(self) -> int:
        """How many positions have a target."""
        return int((self.labels_T != IGNORE_INDEX).sum())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Pack:
        """The same pack with its tensors on `device`."""
        return replace(
            self,
            ids_T=self.ids_T.to(device, non_blocking=non_blocking),
            labels_T=self.labels_T.to(device, non_blocking=non_blocking),
            positions_T=self.positions_T.to(device, non_blocking=non_blocking),
            tiles_NCHW=None
            if self.tiles_NCHW is None
            else self.tiles_NCHW.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Pack:
        """The same pack in page-locked memory, which a DataLoader asks for before a copy to a GPU."""
        return replace(
            self,
            ids_T=self.ids_T.pin_memory(),
            labels_T=self.labels_T.pin_memory(),
            positions_T=self.positions_T.pin_memory(),
            tiles_NCHW=None if self.tiles_NCHW is None else self.tiles_NCHW.pin_memory(),
        )


def pack_conversations(
    encoded: Sequence[Encoded], pictures: Sequence[Tiled], sample_ids: Sequence[str | int]
) -> Pack:
    """Lays encoded conversations end to end.

    pictures: in order of placement: all of the first conversation, then of the second, and so on. Raises
    LlavakitError, naming the sample, when a conversation is empty, when the pictures run out or are left over, or when
    its picture positions are not those its spans and its pictures' layouts announce.
    """
    if not encoded or len(encoded) != len(sample_ids):
        raise LlavakitError(
            f"a pack needs at least one conversation and one name each; got {len(encoded)} conversations "
            f"and {len(sample_ids)} names"
        )
    ids: list[int] = []
    labels: list[int] = []
    cu_seqlens = [0]
    layouts: list[list[Layout]] = []
    taken = 0
    for item, name in zip(encoded, sample_ids, strict=True):
        if not item.ids or len(item.ids) != len(item.labels):
            raise LlavakitError(
                f"sample {name}: {len(item.ids)} ids and {len(item.labels)} labels; expected as many of each, and some"
            )
        announced = sum(span.length for span in item.images)
        found = item.ids.count(IMAGE_TOKEN_ID)
        if announced != found:
            raise LlavakitError(
                f"sample {name}: {found} picture positions among its ids, but its picture spans announce {announced}"
            )
        mine = pictures[taken : taken + len(item.images)]
        if len(mine) < len(item.images):
            raise LlavakitError(
                f"sample {name}: it places {len(item.images)} pictures but only {len(mine)} were given for it"
            )
        for span, picture in zip(item.images, mine, strict=True):
            if span.length != picture.layout.tokens or len(picture.tiles_NCHW) != picture.layout.tiles:
                raise LlavakitError(
                    f"sample {name}: {span.length} positions are kept for its picture {span.index}, whose "
                    f"{len(picture.tiles_NCHW)} tiles take {picture.layout.tokens}; the positions must be counted with "
                    "the geometry and the image policy of this model"
                )
        taken += len(mine)
        layouts.append([picture.layout for picture in mine])
        ids += item.ids
        labels += [*item.labels[1:], IGNORE_INDEX]
        cu_seqlens.append(len(ids))
    if taken != len(pictures):
        raise LlavakitError(
            f"samples {', '.join(map(str, sample_ids))}: {taken} pictures are placed but {len(pictures)} were given"
        )
    lengths = [end - start for start, end in pairwise(cu_seqlens)]
    return Pack(
        ids_T=torch.tensor(ids, dtype=torch.long),
        labels_T=torch.tensor(labels, dtype=torch.long),
        positions_T=torch.cat([torch.arange(length) for length in lengths]),
        cu_seqlens=cu_seqlens,
        tiles_NCHW=torch.cat([picture.tiles_NCHW for picture in pictures]) if pictures else None,
        sample_ids=[str(name) for name in sample_ids],
        layouts=layouts,
    )
