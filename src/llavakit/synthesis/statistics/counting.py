"""Everything that is counted of a data set, in one pass; of each question and picture no more than a hash is kept.

What lives here: the account and how a row enters it, and the account as plain values for `stats.json`. Which samples
are shown is decided here too: those with the smallest hash of their id, so that the same data shows the same samples
wherever they stand.

Knows rows and words. Draws nothing.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llavakit.synthesis.statistics.language import (
    Asking,
    question_start,
    question_type,
    spatial_words,
    words,
)
from llavakit.synthesis.statistics.rows import Boxed, Row

TOP = 40
_LONGEST = 4000  # words; what is longer counts as this long


@dataclass(slots=True)
class Shelf:
    """Rows to be shown: as many as wanted, those with the smallest hash of their id."""

    most: int
    rows: list[tuple[int, int, Row]] = field(default_factory=list)
    seen: int = 0

    def offer(self, row: Row) -> None:
        """Takes the row if it is among the first by hash."""
        number = int.from_bytes(
            hashlib.blake2b(row.id.encode("utf-8", "replace"), digest_size=8).digest(), "big"
        )
        entry = (-number, self.seen, row)
        self.seen += 1
        if len(self.rows) < self.most:
            heapq.heappush(self.rows, entry)
        elif self.rows and entry[:2] > self.rows[0][:2]:
            heapq.heapreplace(self.rows, entry)

    def shown(self) -> list[Row]:
        """In the order of the data."""
        return [row for _, _, row in sorted(self.rows, key=lambda one: one[1])]


@dataclass(slots=True)
class Statistics:
    """The account. Words of place, nouns, lengths, turns and questions are those of samples that were kept."""

    kept: int = 0
    rejected: int = 0
    pictures: int = 0
    exchanges: int = 0
    cost: float = 0.0
    priced: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    rejected_kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    teachers: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    question_words: Counter[int] = field(default_factory=Counter)
    answer_words: Counter[int] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)
    spatial: Counter[str] = field(default_factory=Counter)
    nouns: Counter[str] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    without_pair: int = 0
    repeated_questions: int = 0


@dataclass(frozen=True, slots=True)
class Survey:
    """The account, and the samples that are shown: kept ones and rejected ones."""

    statistics: Statistics
    kept: list[Row]
    rejected: list[Row]


def survey(
    rows: Iterable[Row],
    *,
    most: int = 300,
    boxes: Mapping[str, tuple[Boxed, ...]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Survey:
    """Counts every row and chooses samples, at most `most` kept and as many rejected.

    boxes: by the picture's name, for rows that hold none themselves.
    """
    account, asking = Statistics(), Asking()
    kept, rejected = Shelf(most), Shelf(most)
    pictures: set[bytes] = set()
    questions: set[bytes] = set()
    for number, row in enumerate(rows):
        if progress is not None and number % 1000 == 0:
            progress(number)
        if row.problem:
            account.problems[row.problem] += 1
            continue
        if boxes and not row.boxes and row.image in boxes:
            row = replace(row, boxes=boxes[row.image])
        _count(account, row, asking, pictures, questions)
        (kept if row.kept else rejected).offer(row)
    account.pictures = len(pictures)
    return Survey(account, kept.shown(), rejected.shown())


def _short(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _count(
    account: Statistics, row: Row, asking: Asking, pictures: set[bytes], questions: set[bytes]
) -> None:
    provenance = row.provenance
    teacher, source = provenance.get("teacher"), provenance.get("source")
    if isinstance(teacher, dict) and (teacher.get("returned") or teacher.get("asked")):
        account.teachers[str(teacher.get("returned") or teacher.get("asked"))] += 1
    elif isinstance(teacher, str) and teacher:
        account.teachers[teacher] += 1
    if isinstance(provenance.get("cost"), int | float):
        account.cost += float(provenance["cost"])
        account.priced += 1
    account.notes.update(row.notes)
    if not row.kept:
        account.rejected += 1
        account.rejected_kinds[row.kind or "not told"] += 1
        account.reasons.update(set(row.reasons))
        return
    account.kept += 1
    account.kinds[row.kind or "not told"] += 1
    if isinstance(source, dict):
        account.sources[str(source.get("dataset") or "not told")] += 1
        account.licences[str(source.get("licence") or "not told")] += 1
    if row.image:
        pictures.add(_short(row.image))
    account.exchanges += len(row.exchanges)
    account.turns[len(row.exchanges)] += 1
    account.boxes.update(box[0] for box in row.boxes)
    place: set[str] = set()
    nouns: set[str] = set()
    for question, answer in row.exchanges:
        asked, said = words(question), words(answer)
        account.question_words[min(_LONGEST, len(asked))] += 1
        account.answer_words[min(_LONGEST, len(said))] += 1
        account.types[question_type(asked)] += 1
        account.starts[question_start(asked)] += 1
        place |= spatial_words(answer)
        nouns |= asking.nouns(said)
        pair = asking.verb_and_noun(question)
        if pair is None:
            account.without_pair += 1
        else:
            account.asked[pair] += 1
        short = _short(" ".join(asked))
        account.repeated_questions += short in questions
        questions.add(short)
    account.spatial.update(place)
    account.nouns.update(nouns)


def quantiles(lengths: Counter[int]) -> dict[str, float]:
    """Mean, and the lengths below which so many percent are."""
    total = sum(lengths.values())
    if not total:
        return {}
    found: dict[str, float] = {"mean": round(sum(one * number for one, number in lengths.items()) / total, 2)}
    reached, wanted = 0, [5, 50, 95]
    for length in sorted(lengths):
        reached += lengths[length]
        while wanted and reached * 100 >= wanted[0] * total:
            found[f"p{wanted.pop(0)}"] = length
    found["longest"] = max(lengths)
    return found


def as_values(account: Statistics) -> dict[str, Any]:
    """The account as plain values, the most frequent of each first."""
    pairs = Counter({f"{verb} {noun}": number for (verb, noun), number in account.asked.items()})
    return {
        "samples": {"kept": account.kept, "rejected": account.rejected},
        "pictures": account.pictures,
        "questions": account.exchanges,
        "repeated_questions": account.repeated_questions,
        "words_of_questions": quantiles(account.question_words),
        "words_of_answers": quantiles(account.answer_words),
        "turns": {str(one): account.turns[one] for one in sorted(account.turns)},
        "cost": {"total": round(account.cost, 6), "replies_with_a_price": account.priced},
        "verbs_with_nouns": {
            "different": len(pairs), "questions_without": account.without_pair, "top": _top(pairs),
        },
        "rows_not_read": _all(account.problems),
        "kinds": _all(account.kinds),
        "rejected_kinds": _all(account.rejected_kinds),
        "rejected_for": _all(account.reasons),
        "noted": _all(account.notes),
        "teachers": _all(account.teachers),
        "sources": _all(account.sources),
        "licences": _all(account.licences),
        "question_types": _all(account.types),
        "question_starts": {"different": len(account.starts), "top": _top(account.starts)},
        "words_of_place": _all(account.spatial),
        "nouns_of_answers": {"different": len(account.nouns), "top": _top(account.nouns)},
        "boxes": _all(account.boxes),
    }  # fmt: skip


def ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The most frequent first, equal ones by name."""
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))


def _all(counts: Counter[str]) -> dict[str, int]:
    return dict(ranked(counts))


def _top(counts: Counter[str]) -> dict[str, int]:
    return dict(ranked(counts)[:TOP])
