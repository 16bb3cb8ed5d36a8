"""The doctor of data sets: every row read, every picture decoded, every fault named.

What lives here: `check`, which looks at more than the index does (it decodes pictures to their last pixel) and changes
nothing. It may touch readers and pictures, and tokenizers when it is given one. It does not know stages or models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llavakit.conversation.record import Conversation, ConversationError, video_of
from llavakit.conversation.templates import Template, get_template
from llavakit.conversation.tokenize import encode
from llavakit.data.index import read_rows
from llavakit.errors import LlavakitError
from llavakit.images.frames import frame_count, open_frames
from llavakit.images.pixels import PictureError, open_picture
from llavakit.recipe import DataSource

THREADS = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """A row that training would not use, or not whole. `kind` is `row`, `picture` or `note`."""

    position: int
    id: str
    kind: str
    reason: str


@dataclass(slots=True)
class Checkup:
    """What was found. `notes` are usable rows of which the reader leaves something out. `lengths` are text tokens a row
    (pictures not counted), when a tokenizer was given."""

    path: str
    rows: int = 0
    conversations: int = 0
    text_only: int = 0
    turns: int = 0
    supervised_words: int = 0
    pictures: int = 0
    videos: int = 0
    findings: list[Finding] = field(default_factory=list)
    picture_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    repeated_ids: int = 0
    notes: list[Finding] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    @property
    def kinds(self) -> Counter[str]:
        """How many findings of each kind."""
        return Counter(finding.kind for finding in self.findings)


def check(
    path: str | Path,
    images: str | Path | None = None,
    *,
    template: str | None = None,
    tokenizer: Any = None,
    progress: Callable[[int], None] | None = None,
) -> Checkup:
    """Reads every row of a LLaVA JSON or JSONL file and decodes every picture, and every frame of every video, once.

    images: the pictures' root folder (None: the folder of the file). template, tokenizer: given together, every row
    is also written and tokenised. progress is called with the number of rows done.
    Raises LlavakitError when the file itself cannot be read or holds no rows.
    """
    if template is not None and tokenizer is None and template == "tokenizer":
        raise LlavakitError("template tokenizer: a tokenizer must be given for its own template to be used")
    writer = get_template(template, tokenizer) if template is not None else None
    checkup = Checkup(str(path))
    source = DataSource(path=str(path), images=None if images is None else str(images))
    known: dict[str, str | tuple[int, int]] = {}
    ids: Counter[str] = Counter()
    with ThreadPoolExecutor(THREADS) as pool:
        for row in read_rows(source):
            checkup.rows += 1
            conversation = row.conversation
            if conversation is None:
                reason = row.problem or "the row holds no conversation"
                checkup.findings.append(Finding(row.position, "", "row", reason))
            else:
                ids[str(conversation.id)] += 1
                if row.note:
                    checkup.notes.append(Finding(row.position, str(conversation.id), "note", row.note))
                fresh = [image for image in dict.fromkeys(conversation.images) if image not in known]
                known.update(zip(fresh, pool.map(_decode, fresh), strict=True))
                _examine(checkup, row.position, conversation, known, writer, tokenizer)
            if progress is not None:
                progress(checkup.rows)
    if not checkup.rows:
        raise LlavakitError(f"{path}: the file holds no rows; expected at least one conversation")
    sizes = [size for size in known.values() if not isinstance(size, str)]
    checkup.videos = sum(video_of(name) is not None for name in known)
    checkup.pictures = len(known) - checkup.videos
    checkup.picture_sizes = Counter(sizes)
    checkup.repeated_ids = sum(count - 1 for name, count in ids.items() if count > 1 and name)
    return checkup


def _decode(image: str) -> str | tuple[int, int]:
    """The size of a picture, or of a video all of whose frames decode, or the reason why one does not."""
    try:
        if (video := video_of(image)) is not None:
            first, *_ = (frame.size for frame in open_frames(video, range(frame_count(video))))
            return first
        return open_picture(image).size
    except PictureError as error:
        return str(error)


def _examine(
    checkup: Checkup,
    position: int,
    conversation: Conversation,
    known: dict[str, str | tuple[int, int]],
    template: Template | None,
    tokenizer: Any,
) -> None:
    name = str(conversation.id)
    for image in conversation.images:
        reason = known[image]
        if isinstance(reason, str):
            checkup.findings.append(Finding(position, name, "picture", reason))
            return
    try:
        conversation.check()
        pieces = template.write(conversation) if template is not None else []
        if template is not None and tokenizer is not None:
            encoded = encode(conversation, template, tokenizer, [1] * len(conversation.images))
            checkup.lengths.append(len(encoded.ids) - len(conversation.images))
            if not any(label >= 0 for label in encoded.labels[1:]):
                raise ConversationError("no token of it is supervised: it has no answer")
        elif template is not None and not any(getattr(piece, "supervised", False) for piece in pieces):
            raise ConversationError("nothing of it is supervised: it has no answer")
    except ConversationError as error:
        checkup.findings.append(Finding(position, name, "row", str(error)))
        return
    checkup.conversations += 1
    checkup.text_only += not conversation.images
    checkup.turns += len(conversation.turns)
    checkup.supervised_words += sum(
        len(getattr(part, "text", "").split())
        for turn in conversation.turns
        if turn.role == "assistant"
        for part in turn.parts
    )
