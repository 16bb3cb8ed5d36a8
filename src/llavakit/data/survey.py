"""A look at a data set before training: how many rows there are, and how long those of a sample are.

What lives here: one pass that reads every row and judges some of them, drawn evenly, as the index judges all. It opens
the headers of the sample's pictures alone, so a large mixture takes as long as reading its file. It knows the index
and the writing of conversations. It does not know steps or models.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llavakit.data.index import IndexRow, Progress, judge_row, read_rows, source_names
from llavakit.data.readers.llava import Row
from llavakit.data.videos import FrameSampler
from llavakit.data.writing import Writing
from llavakit.recipe import DataSource

SAMPLE = 1000
"""Rows that are judged of each source."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found. rows: in all sources. judged: how many were looked at. used: the usable ones among those. shares:
    for each of `used`, how many rows of the data it stands for."""

    rows: int
    judged: int
    used: tuple[IndexRow, ...]
    shares: tuple[float, ...]

    @property
    def whole(self) -> bool:
        """Whether every row was judged."""
        return self.judged == self.rows

    @property
    def usable(self) -> int:
        """Rows that can be used, as far as the sample tells."""
        return round(sum(self.shares))

    def mean(self, values: Sequence[float]) -> float:
        """The mean over usable rows of a value of each of `used`."""
        total = sum(value * share for value, share in zip(values, self.shares, strict=True))
        return total / sum(self.shares)


def count_rows(sources: Sequence[DataSource]) -> int:
    """Rows of all sources. Raises LlavakitError when a file cannot be read."""
    return sum(1 for source in sources for _ in read_rows(source))


def survey(
    sources: Sequence[DataSource], writing: Writing, progress: Progress | None = None, sample: int = SAMPLE
) -> Survey:
    """Reads every row of `sources` and judges an even sample of each.

    Raises LlavakitError when a data file cannot be read.
    """
    rows = judged = 0
    used: list[IndexRow] = []
    shares: list[float] = []
    sizes: dict[str, tuple[int, int]] = {}
    sampler = FrameSampler(writing.image_policy.frames)
    for number, (source, name) in enumerate(zip(sources, source_names(sources), strict=True)):
        drawn, count = _draw(source, name, sample, progress)
        outcomes = [judge_row(number, row, writing, sizes, sampler)[0] for row in drawn]
        good = [one for one in outcomes if isinstance(one, IndexRow)]
        rows, judged = rows + count, judged + len(drawn)
        used += good
        shares += [count / len(drawn)] * len(good)
    return Survey(rows, judged, tuple(used), tuple(shares))


def _draw(source: DataSource, name: str, sample: int, progress: Progress | None) -> tuple[list[Row], int]:
    """At most `sample` rows, each drawn with the same chance (Vitter's algorithm R), and how many there are."""
    draw = random.Random(source.path)
    kept: list[Row] = []
    count = 0
    for row in read_rows(source):
        count += 1
        if len(kept) < sample:
            kept.append(row)
        elif (place := draw.randrange(count)) < sample:
            kept[place] = row
        if progress is not None and count % 1000 == 0:
            progress(name, count)
    return sorted(kept, key=lambda row: row.position), count


def files_exist(sources: Sequence[DataSource]) -> bool:
    """Whether every data file is there."""
    return all(Path(source.path).is_file() for source in sources)
