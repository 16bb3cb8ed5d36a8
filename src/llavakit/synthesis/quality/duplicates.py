"""The gate of duplicates: the same text again, nearly the same, and one answer given too often.

Texts of one picture are compared whatever their length; those of two pictures only when they are long enough that
chance does not explain it, since `Yes` is the right answer to many questions. Near duplicates are found by MinHash over
runs of three words, whose buckets hold signatures of a fixed size and no text. Of equals the one with the smallest id
is kept, whatever order they come in.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence

from rensa import RMinHash, RMinHashLSH

from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.quality.settings import Settings
from llavakit.synthesis.quality.text import Finding, normalised

VERSION = 1

_PERMUTATIONS = 120
# Bands of 6 values each: two texts at an index of 0.8 share one with a chance of 1 - (1 - 0.8^6)^20 > 0.99.
_BANDS = 20
_RUN = 3
_ALWAYS = 3  # so many equal answers are no excess in any set, however small


def find_all(
    candidates: Sequence[Candidate], settings: Settings, skip: frozenset[int]
) -> dict[int, list[Finding]]:
    """Findings by the candidates' places. skip: places that are no data anyway, which no other is a duplicate of."""
    order = sorted(
        (place for place in range(len(candidates)) if place not in skip), key=lambda p: (candidates[p].id, p)
    )
    seen: dict[bytes, int] = {}
    near = RMinHashLSH(settings.similarity, _PERMUTATIONS, _BANDS)
    signatures: dict[int, RMinHash] = {}
    answers: Counter[bytes] = Counter()
    allowed = max(_ALWAYS, math.ceil(settings.same_answer * len(order) / 10_000))
    found: dict[int, list[Finding]] = {}
    for place in order:
        one = candidates[place]
        whole = normalised(" ".join(part for exchange in one.exchanges for part in exchange))
        if not whole:
            continue
        spoken = whole.split()
        is_long = len(spoken) >= settings.duplicate_words
        scope = "" if is_long else one.picture.image or str(one.picture.id)
        digest = _digest(scope + "\n" + whole)
        if (earlier := seen.setdefault(digest, place)) != place:
            found[place] = [Finding("the same text", candidates[earlier].id)]
            continue
        answer = normalised(" ".join(answer for _, answer in one.exchanges))
        if len(answer.split()) >= settings.duplicate_words // 2:
            answers[counted := _digest(answer)] += 1
            if answers[counted] > allowed:
                found[place] = [Finding("one answer too often", answer[:80])]
                continue
        if not is_long:
            continue
        signature = RMinHash(_PERMUTATIONS, 42)
        signature.update([" ".join(spoken[at : at + _RUN]) for at in range(len(spoken) - _RUN + 1)])
        like = [
            key for key in near.query(signature) if signatures[key].jaccard(signature) >= settings.similarity
        ]
        if like:
            found[place] = [Finding("nearly the same text", candidates[min(like)].id)]
            continue
        near.insert(place, signature)
        signatures[place] = signature
    return found


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
