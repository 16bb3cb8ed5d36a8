"""What befalls a request: its key, and the faults drawn for it from the seed, the key and the number of the attempt.

Nothing here depends on time or order, so that a run that was killed meets the same replies as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llavakit.synthesis.endpoint.fake.settings import WAY_FAULTS, WRITTEN_FAULTS, FakeSettings

_NO_PART_OF_IDENTITY = {"stream", "user", "metadata", "store", "service_tier", "stream_options"}


@dataclass(frozen=True, slots=True)
class Fate:
    """The fault on the way and the fault in what is written, "" for none; `rng` draws the rest of this attempt."""

    way: str
    written: str
    rng: random.Random


def key_of(body: Mapping[str, Any]) -> str:
    """The hash of a body's messages and parameters, in 32 hexadecimal digits."""
    identity = {name: value for name, value in body.items() if name not in _NO_PART_OF_IDENTITY}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def draw(settings: FakeSettings, key: str, attempt: int, *, seeded: bool) -> Fate:
    """The fate of the attempt-th request with this key. seeded: it names a seed, so the same is written every time."""
    return Fate(
        _pick(settings.faults, WAY_FAULTS, generator(settings, key, f"way {attempt}").random()),
        _pick(
            settings.faults,
            WRITTEN_FAULTS,
            generator(settings, key, "written" if seeded else f"written {attempt}").random(),
        ),
        generator(settings, key, f"rest {attempt}"),
    )


def generator(settings: FakeSettings, key: str, purpose: str) -> random.Random:
    """A generator of numbers for one purpose of one request."""
    digest = hashlib.blake2b(f"{settings.seed}|{key}|{purpose}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))


def _pick(rates: Mapping[str, float], group: Mapping[str, str], drawn: float) -> str:
    for name in group:
        rate = rates.get(name, 0.0)
        if drawn < rate:
            return name
        drawn -= rate
    return ""
