"""Videos of a conversation give way to the frames that are shown of them.

What lives here: the step from a conversation as its file has it, a video in one place, to the one that is trained on,
in which evenly spread frames stand there one after the other. The index makes it once, before anything is counted, so
that whatever comes after knows pictures alone. It may read how many frames a video has. It does not decode them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from llavakit.conversation.record import Conversation, Part, Picture, frame_name, video_of
from llavakit.images.frames import frame_count, sampled


@dataclass(frozen=True, slots=True)
class Sampled:
    """videos: how many a conversation shows. frames: how many of their frames. found: how many frames they have."""

    videos: int = 0
    frames: int = 0
    found: int = 0


@dataclass(slots=True)
class FrameSampler:
    """Exchanges videos for their frames; remembers how many frames each has. most: frames shown of one video."""

    most: int
    _counts: dict[str, int] = field(default_factory=dict)

    def expand(self, conversation: Conversation) -> tuple[Conversation, Sampled]:
        """The conversation with every video exchanged for its frames, and what was taken of how much.

        Raises PictureError when a video cannot be opened.
        """
        if not any(video_of(name) for name in conversation.images):
            return conversation, Sampled()
        images: list[str] = []
        places: list[tuple[Part, ...]] = []  # what stands where each picture or video stood
        videos = frames = found = 0
        for name in conversation.images:
            first = len(images)
            video = video_of(name)
            if video is None:
                images.append(name)
            else:
                count = self._count(video)
                numbers = sampled(count, self.most)
                images += [frame_name(video, number) for number in numbers]
                videos, frames, found = videos + 1, frames + len(numbers), found + count
            places.append(tuple(Picture(index) for index in range(first, len(images))))
        turns = []
        for turn in conversation.turns:
            parts = [places[part.index] if isinstance(part, Picture) else (part,) for part in turn.parts]
            turns.append(replace(turn, parts=tuple(part for some in parts for part in some)))
        shown = replace(conversation, images=tuple(images), turns=tuple(turns))
        return shown, Sampled(videos, frames, found)

    def _count(self, video: str) -> int:
        if video not in self._counts:
            self._counts[video] = frame_count(video)
        return self._counts[video]
