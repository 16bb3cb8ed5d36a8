"""How a stage writes its conversations: template, tokenizer, order of pictures, length limit.

What lives here: the one function from a conversation and the sizes of its pictures to ids and labels. Index and loader
both call it, so the length that is planned is the length that is trained on. It knows the conversation and geometry
rooms. It does not open files and does not know packs.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llavakit.conversation.record import Conversation, frame_of
from llavakit.conversation.templates import Template, arrange_pictures, get_template
from llavakit.conversation.tokenize import Encoded, encode
from llavakit.images.geometry import Grid, ImagePolicy, Layout, TowerGeometry, frame_layout, layout
from llavakit.recipe import Stage


@dataclass(frozen=True)
class Writing:
    """Everything that decides how a conversation of a stage becomes ids and labels."""

    template: Template
    tokenizer: Any
    geometry: TowerGeometry
    image_policy: ImagePolicy
    picture_order: str
    max_length: int

    @classmethod
    def of_stage(cls, stage: Stage, tokenizer: Any, geometry: TowerGeometry) -> Writing:
        """As `stage` asks. Raises LlavakitError when its template is not known."""
        return cls(
            template=get_template(stage.template, tokenizer),
            tokenizer=tokenizer,
            geometry=geometry,
            image_policy=image_policy(stage),
            picture_order=stage.picture_order,
            max_length=min(stage.max_length, stage.batch.pack),
        )

    def encode(self, conversation: Conversation, sizes: Sequence[tuple[int, int]], draw: int = 0) -> Encoded:
        """Ids and labels of a conversation.

        sizes: (width, height) of each of its pictures. draw: decides the order when it is random.
        Raises ConversationError when it cannot be written, TooLong when not even its first exchange fits.
        """
        rng = random.Random(draw)
        arranged = arrange_pictures(conversation, self.picture_order, rng)  # type: ignore[arg-type]
        return self._encode_arranged(arranged, sizes)

    def encode_orders(self, conversation: Conversation, sizes: Sequence[tuple[int, int]]) -> list[Encoded]:
        """Every way in which `encode` may write the conversation: one, or two when the order is random."""
        if self.picture_order != "random" or not conversation.images:
            return [self.encode(conversation, sizes)]
        arranged: list[Conversation] = []
        for draw in range(_DRAWS):
            one = arrange_pictures(conversation, "random", random.Random(draw))
            if one not in arranged:
                arranged.append(one)
            if len(arranged) == 2:
                break
        return [self._encode_arranged(one, sizes) for one in arranged]

    def layouts(self, conversation: Conversation, sizes: Sequence[tuple[int, int]]) -> list[Layout]:
        """What becomes of each of a conversation's pictures; frames of a video are pooled and count as no picture."""
        frames = [frame_of(name) is not None for name in conversation.images]
        pictures = frames.count(False)
        return [
            frame_layout(self.image_policy, self.geometry)
            if frame
            else layout(self.image_policy, self.geometry, *size, pictures)
            for frame, size in zip(frames, sizes, strict=True)
        ]

    def _encode_arranged(self, conversation: Conversation, sizes: Sequence[tuple[int, int]]) -> Encoded:
        lengths = [one.tokens for one in self.layouts(conversation, sizes)]
        return encode(
            conversation, self.template, self.tokenizer, lengths, max_length=self.max_length, prompt=False
        )

    def describe(self) -> dict[str, object]:
        """What lengths depend on, as plain values; equal descriptions write equal ids."""
        return {
            "template": self.template.name,
            "tokenizer": tokenizer_hash(self.tokenizer),
            "geometry": asdict(self.geometry),
            "image_policy": asdict(self.image_policy),
            "picture_order": self.picture_order,
            "max_length": self.max_length,
        }


def image_policy(stage: Stage) -> ImagePolicy:
    """The stage's image policy as the geometry room knows it."""
    tiled = stage.anyres
    grids = tuple(Grid(*grid) for grid in tiled.grids)
    video = stage.video
    return ImagePolicy(
        stage.image_policy,
        grids,
        tiled.merge,
        tiled.max_tiles,
        tiled.several,
        video.frames,
        video.pool,
        video.pooling,
    )


# With two orders that are equally likely, the chance that sixteen draws show only one is 2 ** -15, and the draws are
# the same every time.
_DRAWS = 16


def tokenizer_hash(tokenizer: Any) -> str:
    """A hash of what a tokenizer does: its whole definition where it can be written out, its vocabulary otherwise."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    definition = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    extra = repr((getattr(tokenizer, "chat_template", None), tokenizer.bos_token_id, tokenizer.eos_token_id))
    return hashlib.sha256((definition + extra).encode("utf-8", "surrogatepass")).hexdigest()
