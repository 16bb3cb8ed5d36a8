"""The index of a data set: what can be trained on and how long it is, and what cannot and why.

What lives here: one pass over the rows of a stage's sources, opening only the headers of pictures, and the file that
keeps its result. Mixture, plan and report work on the index alone. It may touch readers, the conversation room and
picture headers. It does not know packs, models or runs, and never decodes a picture.

Every row ends in exactly one of two lists: `rows` (used, perhaps cut at a turn) or `skipped` (with its reason).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from llavakit import __version__
from llavakit.conversation.record import Conversation, ConversationError
from llavakit.conversation.tokenize import TooLong
from llavakit.data.readers.llava import Row, read_llava
from llavakit.data.shelf import Shelf
from llavakit.data.videos import FrameSampler, Sampled
from llavakit.data.writing import Writing
from llavakit.errors import LlavakitError
from llavakit.images.frames import named_size
from llavakit.images.pixels import PictureError
from llavakit.recipe import DataSource

FORMAT = 1

Progress = Callable[[str, int], None]
"""Called now and then with the name of the source that is read and the number of rows read so far."""


@dataclass(frozen=True, slots=True)
class IndexRow:
    """A row that is used. `source` is a number into `Index.sources`, `position` the row's place in its file. `pictures`
    holds no frames of videos; of the `frames_found` in its `videos`, `frames` are shown. `note` tells what its reader
    left out of it."""

    source: int
    position: int
    id: str
    length: int
    supervised: int
    pictures: int
    turns_dropped: int
    note: str | None = None
    videos: int = 0
    frames: int = 0
    frames_found: int = 0


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is not used. `kind` groups reasons: `row`, `picture`, `too long`, `nothing to learn`."""

    source: int
    position: int
    id: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class IndexedSource:
    """A data file as it was indexed: its name in reports, where it lies, the hash of its bytes, its rows."""

    name: str
    path: str
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class Index:
    """The result of the pass. `fingerprint` is a hash of all that it depends on but the pictures themselves."""

    fingerprint: str
    sources: list[IndexedSource]
    rows: list[IndexRow] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def lengths(self) -> list[int]:
        """Positions that each used row takes."""
        return [row.length for row in self.rows]

    @property
    def cut(self) -> list[IndexRow]:
        """Used rows that lost trailing exchanges to the length limit."""
        return [row for row in self.rows if row.turns_dropped]

    @property
    def sampled(self) -> Sampled:
        """What is shown of the videos of all used rows."""
        rows = self.rows
        return Sampled(
            sum(row.videos for row in rows),
            sum(row.frames for row in rows),
            sum(row.frames_found for row in rows),
        )

    @property
    def noted(self) -> list[IndexRow]:
        """Used rows of which their reader left something out."""
        return [row for row in self.rows if row.note]

    def name(self, row: IndexRow | Skipped) -> str:
        """How a row is called in messages: its file, its place in it, its id."""
        name = f"{self.sources[row.source].name} row {row.position}"
        return f"{name} (id {row.id})" if row.id else name


def fingerprint(sources: Sequence[DataSource], hashes: Sequence[str], writing: Writing) -> str:
    """A hash of what an index depends on: the bytes of the data files and how their rows are written."""
    content = {
        "format": FORMAT,
        "llavakit": __version__,
        "sources": [
            [source.path, source.images, source.limit, sha]
            for source, sha in zip(sources, hashes, strict=True)
        ],
        "writing": writing.describe(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_hash(path: str | Path) -> str:
    """SHA-256 of a data file. Raises LlavakitError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LlavakitError(
            f"data file {path}: {error.strerror or error}; expected a JSON or JSONL file of conversations"
        ) from error


def open_index(
    sources: Sequence[DataSource],
    writing: Writing,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Index, Shelf]:
    """The index of `sources` and the conversations of its rows, number by number.

    With `folder`, the index is looked for there under its fingerprint and the pass over rows and pictures is not made
    again; a fresh one is kept there. Raises LlavakitError when a data file cannot be read.
    """
    hashes = [file_hash(source.path) for source in sources]
    key = fingerprint(sources, hashes, writing)
    place = folder / f"{key[:20]}.jsonl" if folder else None
    if place and place.is_file():
        index = load_index(place)
        if index.fingerprint == key:
            return index, _shelve(index, sources, FrameSampler(writing.image_policy.frames))
    index, shelf = _build(sources, hashes, key, writing, progress or (lambda name, rows: None))
    if place:
        save_index(index, place)
    return index, shelf


def read_rows(source: DataSource) -> Iterator[Row]:
    """The rows of one source, up to its limit."""
    images = Path(source.images) if source.images is not None else None
    return islice(read_llava(Path(source.path), images), source.limit)


def source_names(sources: Sequence[DataSource]) -> list[str]:
    """What reports call each source: its name or its file's name, made different where two are the same."""
    names = [source.name or Path(source.path).name for source in sources]
    return [name if names.count(name) == 1 else f"{name} [{i}]" for i, name in enumerate(names)]


def _build(
    sources: Sequence[DataSource], hashes: Sequence[str], key: str, writing: Writing, progress: Progress
) -> tuple[Index, Shelf]:
    index, shelf = Index(key, []), Shelf()
    sizes: dict[str, tuple[int, int]] = {}
    sampler = FrameSampler(writing.image_policy.frames)
    for number, (source, name, sha) in enumerate(zip(sources, source_names(sources), hashes, strict=True)):
        count = 0
        for row in read_rows(source):
            count += 1
            outcome, conversation = judge_row(number, row, writing, sizes, sampler)
            if isinstance(outcome, Skipped):
                index.skipped.append(outcome)
            else:
                index.rows.append(outcome)
                assert conversation is not None
                shelf.add(conversation)
            if count % 100 == 0:
                progress(name, count)
        progress(name, count)
        index.sources.append(IndexedSource(name, source.path, sha, count))
    return index, shelf


def judge_row(
    source: int, row: Row, writing: Writing, sizes: dict[str, tuple[int, int]], sampler: FrameSampler
) -> tuple[IndexRow | Skipped, Conversation | None]:
    """Whether a row can be used and how long it is, and its conversation with frames in the place of videos.

    source: the number of its source. `sizes` and `sampler` remember pictures and videos that many rows show.
    """
    conversation = row.conversation
    name = "" if conversation is None else str(conversation.id)

    def skipped(kind: str, reason: str) -> tuple[Skipped, None]:
        return Skipped(source, row.position, name, kind, reason), None

    if conversation is None:
        return skipped("row", row.problem or "the row holds no conversation")
    try:
        conversation, sampled = sampler.expand(conversation)
        for image in conversation.images:
            if image not in sizes:
                sizes[image] = named_size(image)
        ways = writing.encode_orders(conversation, [sizes[image] for image in conversation.images])
    except PictureError as error:
        return skipped("picture", str(error))
    except TooLong as error:
        return skipped("too long", str(error))
    except ConversationError as error:
        return skipped("row", str(error))
    supervised = min(sum(label >= 0 for label in way.labels[1:]) for way in ways)
    if not supervised:
        return skipped("nothing to learn", "no token of it is supervised: it has no answer")
    used = IndexRow(
        source=source,
        position=row.position,
        id=name,
        length=max(len(way.ids) for way in ways),
        supervised=supervised,
        pictures=len(conversation.images) - sampled.frames,
        turns_dropped=max(way.turns_dropped for way in ways),
        note=row.note,
        videos=sampled.videos,
        frames=sampled.frames,
        frames_found=sampled.found,
    )
    return used, conversation


def _shelve(index: Index, sources: Sequence[DataSource], sampler: FrameSampler) -> Shelf:
    """The conversations of an index that was kept, read again from files whose bytes are the same."""
    shelf = Shelf()
    for number, source in enumerate(sources):
        used = {row.position for row in index.rows if row.source == number}
        for row in read_rows(source):
            if row.position in used:
                assert row.conversation is not None
                shelf.add(sampler.expand(row.conversation)[0])
    return shelf


def refuse_mostly_bad(index: Index, stage: str, most: float) -> None:
    """Raises LlavakitError when no row is usable, or a larger share than `most` is not."""
    total = len(index.rows) + len(index.skipped)
    files = ", ".join(source.path for source in index.sources)
    if not total:
        raise LlavakitError(f"stage {stage}: {files} holds no rows; expected at least one conversation")
    if index.rows and len(index.skipped) <= most * total:
        return
    example, count = commonest(index.skipped)
    often = "" if len(index.skipped) == 1 else f"; the commonest reason, {count} times, e.g."
    limit = f", more than max_skipped = {most} allows" if index.rows else ""
    rows = "row" if total == 1 else "rows"
    raise LlavakitError(
        f"stage {stage}: {len(index.skipped)} of {total} {rows} cannot be used{limit}{often or ':'} "
        f"{index.name(example)}: {example.reason.rstrip('.')}; "
        f"`llavakit data check {index.sources[example.source].path}` lists every one"
    )


def commonest(skipped: Sequence[Skipped]) -> tuple[Skipped, int]:
    """The first row that was skipped for the commonest reason, and how many were."""
    counts = Counter(same_reason(one.kind, one.reason) for one in skipped)
    reason, count = counts.most_common(1)[0]
    return next(one for one in skipped if same_reason(one.kind, one.reason) == reason), count


def same_reason(kind: str, reason: str) -> tuple[str, str]:
    """A key that is the same for reasons that differ only in names and numbers."""
    return kind, re.sub(r"\S*[/\\.\d'\"]\S*", "…", reason)


def save_index(index: Index, path: Path) -> None:
    """Writes an index as JSON lines: a header, then one line a row, used or skipped. The file appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {
        "format": FORMAT,
        "fingerprint": index.fingerprint,
        "rows": len(index.rows),
        "skipped": len(index.skipped),
        "sources": [asdict(source) for source in index.sources],
    }
    partial = path.with_suffix(".partial")
    with open(partial, "w", encoding="utf-8", errors="backslashreplace") as file:
        for line in (header, *map(asdict, index.rows), *map(asdict, index.skipped)):
            file.write(json.dumps(line) + "\n")
    partial.replace(path)


def load_index(path: Path) -> Index:
    """Reads what `save_index` wrote. Raises LlavakitError when the file is not whole."""
    try:
        with open(path, encoding="utf-8") as file:
            header = json.loads(next(file, ""))
            lines = [json.loads(line) for line in file]
        if header["format"] != FORMAT or len(lines) != header["rows"] + header["skipped"]:
            raise ValueError("its lines are not those its header announces")
        return Index(
            fingerprint=header["fingerprint"],
            sources=[IndexedSource(**source) for source in header["sources"]],
            rows=[IndexRow(**line) for line in lines[: header["rows"]]],
            skipped=[Skipped(**line) for line in lines[header["rows"] :]],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LlavakitError(f"index {path}: {error}; delete the file and it is made again") from error
