"""From a set of captions to numbers: which phrases each caption holds, by several processes, and a cache of it.

Captions go to the processes in chunks and come back in their order, so that the numbers are the same however many
processes there are. Only numbers and the phrases' own text stay in memory; the captions do not. The cache is one file
for each data file, phrase finder and way of writing phrases, named by their hashes; it is a numpy file that holds no
objects, so that opening it runs nothing.

Knows captions and phrases. Knows no rule of choice.
"""

from __future__ import annotations

import hashlib
import zipfile
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llavakit.errors import LlavakitError
from llavakit.synthesis.balance.captions import Caption, CaptionSet
from llavakit.synthesis.balance.choice import Told
from llavakit.synthesis.balance.phrases import (
    VERSION,
    Normalise,
    Phraser,
    check_normalise,
    spacy_phrases,
)

CHUNK = 8192
Found = tuple[list[str], bytes, bytes]
"""Of a chunk: its phrases, how many each caption holds (int32), and their places in the list (int32)."""


@dataclass(frozen=True, slots=True)
class Finder:
    """How phrases are found. name: `textblob`, or `spacy:MODEL`."""

    name: str = "textblob"
    normalise: Normalise = "determiners"

    def __post_init__(self) -> None:
        check_normalise(self.normalise)
        if self.name != "textblob" and not self.name.startswith("spacy:"):
            raise LlavakitError(f"Phrases are found by textblob or spacy:MODEL; found {self.name!r}.")

    def load(self) -> Callable[[str], list[str]]:
        """The function from a caption to its phrases."""
        if self.name == "textblob":
            return Phraser(self.normalise)
        return spacy_phrases(self.name.partition(":")[2], self.normalise)


@dataclass(frozen=True, slots=True)
class Extracted:
    """Every row of a file in order, as numbers. phrases: their text. problems: rows without a caption, by reason."""

    told: Told
    phrases: list[str]
    problems: dict[str, int]
    cached: bool = False


def extract(
    source: CaptionSet,
    finder: Finder,
    *,
    processes: int = 1,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Extracted:
    """The phrases of every caption of a file.

    processes: how many find phrases; the result is the same. cache: a folder in which the result is kept for another
    call. progress: called with the number of captions read so far.
    """
    stored = None if cache is None else cache / f"{_key(source, finder)}.npz"
    if stored is not None and stored.is_file():
        return _load(stored)
    found = _extract(source, finder, processes, progress)
    if stored is not None:
        _store(stored, found)
    return found


def _extract(
    source: CaptionSet, finder: Finder, processes: int, progress: Callable[[int], None] | None
) -> Extracted:
    hashes, counts, ids = array("Q"), array("i"), array("i")
    problems: Counter[str] = Counter()
    known: dict[str, int] = {}

    def chunks() -> Iterator[list[str]]:
        rows = source.captions()
        while chunk := list(islice(rows, CHUNK)):
            problems.update(row.problem for row in chunk if row.problem)
            hashes.extend(row.hash for row in chunk)
            yield [_usable(row) for row in chunk]

    for phrases, held, places in _found(chunks(), finder, processes):
        numbers = np.array([known.setdefault(one, len(known)) for one in phrases], dtype=np.int32)
        counts.frombytes(held)
        if len(numbers):
            ids.frombytes(numbers[np.frombuffer(places, dtype=np.int32)].tobytes())
        if progress is not None:
            progress(len(counts))
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(np.frombuffer(counts, dtype=np.int32), out=starts[1:])
    told = Told(
        starts, np.array(ids, dtype=np.int32), np.array(hashes, dtype=np.uint64), _phrase_hashes(list(known))
    )
    return Extracted(told, list(known), dict(problems))


def _usable(row: Caption) -> str:
    return "" if row.problem else row.text


def _found(chunks: Iterator[list[str]], finder: Finder, processes: int) -> Iterator[Found]:
    """What is found in each chunk, in order. A set of one chunk is not worth a process."""
    first = list(islice(chunks, 2))
    every = chain(first, chunks)
    if processes < 2 or len(first) < 2:
        phrases = finder.load()
        yield from (phrases_of(chunk, phrases) for chunk in every)
        return
    if finder.name != "textblob":
        finder.load()  # what is not installed is told here, and not as a process that ended
    try:
        yield from _shared(every, finder, processes)
    except BrokenProcessPool as error:
        raise LlavakitError(
            f"One of {processes} processes that find phrases was ended from outside, which happens where memory is "
            "short; run again with fewer --processes."
        ) from error


def _shared(chunks: Iterator[list[str]], finder: Finder, processes: int) -> Iterator[Found]:
    """What several processes find in chunks, in order; a few chunks for each are under way at once."""
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_begin, initargs=(finder,)) as pool:
        waiting: deque[Future[Found]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(_work, chunk))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def phrases_of(chunk: list[str], phrases: Callable[[str], list[str]]) -> Found:
    """The phrases of some captions as numbers."""
    known: dict[str, int] = {}
    counts, ids = array("i"), array("i")
    for caption in chunk:
        found = phrases(caption) if caption else []
        counts.append(len(found))
        for phrase in found:
            ids.append(known.setdefault(phrase, len(known)))
    return list(known), counts.tobytes(), ids.tobytes()


_loaded: list[Callable[[str], list[str]]] = []  # a process's own, filled once when it begins


def _begin(finder: Finder) -> None:
    _loaded[:] = [finder.load()]


def _work(chunk: list[str]) -> Found:
    return phrases_of(chunk, _loaded[0])


def _phrase_hashes(phrases: list[str]) -> NDArray[np.uint64]:
    digests = b"".join(
        hashlib.blake2b(one.encode("utf-8", "surrogatepass"), digest_size=8).digest() for one in phrases
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _key(source: CaptionSet, finder: Finder) -> str:
    seen = hashlib.sha256(
        f"{VERSION}/{finder.name}/{finder.normalise}/{source.form}/{source.field}/".encode()
    )
    with source.path.open("rb") as file:
        while piece := file.read(1 << 20):
            seen.update(piece)
    return seen.hexdigest()[:32]


def _store(path: Path, found: Extracted) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    phrases = "\n".join(found.phrases).encode("utf-8", "surrogatepass")
    problems = "\n".join(f"{number} {reason}" for reason, number in found.problems.items()).encode()
    with partial.open("wb") as file:
        np.savez(
            file,
            starts=found.told.starts,
            ids=found.told.ids,
            captions=found.told.captions,
            phrases=np.frombuffer(phrases, dtype=np.uint8),
            problems=np.frombuffer(problems, dtype=np.uint8),
        )
    partial.replace(path)


def _load(path: Path) -> Extracted:
    try:
        with np.load(path, allow_pickle=False) as content:
            phrases = content["phrases"].tobytes().decode("utf-8", "surrogatepass")
            told = content["problems"].tobytes().decode()
            starts, ids, captions = content["starts"], content["ids"], content["captions"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise LlavakitError(
            f"{path} is no whole cache of phrases ({error}); delete it and run again."
        ) from error
    listed = phrases.split("\n") if phrases else []
    problems = {
        reason: int(number) for number, _, reason in (one.partition(" ") for one in told.split("\n") if one)
    }
    return Extracted(Told(starts, ids, captions, _phrase_hashes(listed)), listed, problems, cached=True)
