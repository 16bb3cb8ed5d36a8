"""Concept balance of as many captions as CC3M has: time, memory, and the quick phrase finder against textblob's parser.

    python benchmarks/balance.py [--captions 3300000] [--processes 2]

Captions come from a small grammar whose nouns and adjectives follow Zipf's law, so that there are some phrases that
hundreds of thousands share and many that are told of once. What is compared: `plain_phrases`, which asks textblob's
parser for every caption, and `Phraser`, on one process and the same captions, with equal results demanded. Then the
whole way is run in a process of its own, from a TSV file to the file of what stays, and its memory is measured.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from llavakit.synthesis.balance.balancing import Balance, balance
from llavakit.synthesis.balance.phrases import Phraser, plain_phrases

NOUNS, ADJECTIVES, ZIPF = 60_000, 2_000, 1.25
VERBS = ("stands near", "is next to", "looks at", "holds", "sits on", "walks past", "is behind", "waits for")
SYLLABLES = (
    "ba",
    "con",
    "del",
    "fer",
    "gra",
    "hom",
    "jun",
    "kel",
    "lim",
    "mor",
    "nep",
    "pol",
    "ran",
    "sto",
    "tur",
)
SAMPLE = 10_000


def word(number: int) -> str:
    """A made-up word, a different one for each number."""
    parts = [SYLLABLES[number % 15]]
    while number := number // 15:
        parts.append(SYLLABLES[number % 15])
    return "".join(parts)


def captions(wanted: int, seed: int) -> Iterator[str]:
    """Captions of one to three phrases."""
    rng = np.random.default_rng(seed)
    nouns = [word(number) + "o" for number in range(NOUNS)]
    adjectives = [word(number) + "ous" for number in range(ADJECTIVES)]
    for _ in range(0, wanted, 100_000):
        drawn = np.minimum(rng.zipf(ZIPF, (100_000, 3)), NOUNS) - 1
        looks = np.minimum(rng.zipf(ZIPF, (100_000, 3)), ADJECTIVES) - 1
        shape = rng.integers(0, 1 << 16, 100_000)
        for (a, b, c), (x, y, z), form in zip(drawn.tolist(), looks.tolist(), shape.tolist(), strict=True):
            text = f"a {adjectives[x]} {nouns[a]} " if form & 1 else f"the {nouns[a]} "
            text += f"{VERBS[form >> 3 & 7]} {adjectives[y] + ' ' if form & 2 else 'some '}{nouns[b]}"
            yield text + (f" in the {adjectives[z]} {nouns[c]} ." if form & 4 else " .")


def whole(source: Path, target: Path, processes: int) -> dict[str, Any]:
    """Balances a file; for a process of its own, whose memory is then the work's."""
    began = time.perf_counter()
    report = balance(source, target, Balance(processes=processes))
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    finder = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "seconds": time.perf_counter() - began,
        "own_peak_mib": own,
        "largest_finder_peak_mib": finder,
        "peak_mib": own + (processes * finder if processes > 1 else 0),
        "report": report,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=3_300_000)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    sample = [one for _, one in zip(range(SAMPLE), captions(SAMPLE, seed=1), strict=False)]
    quick = Phraser()
    quick(sample[0]), plain_phrases(sample[0])
    began = time.perf_counter()
    plain_found = [plain_phrases(one) for one in sample]
    plain_rate = SAMPLE / (time.perf_counter() - began)
    began = time.perf_counter()
    quick_found = [quick(one) for one in sample]
    quick_rate = SAMPLE / (time.perf_counter() - began)
    assert quick_found == plain_found, "the quick phrases are not the parser's"
    print(
        f"phrases, one process: textblob's parser {plain_rate:,.0f} captions/s, ours {quick_rate:,.0f}, "
        f"{quick_rate / plain_rate:.1f} times; equal on {SAMPLE:,} captions"
    )
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.tsv", Path(folder) / "out.tsv"
        with source.open("w") as file:
            for number, caption in zip(
                range(arguments.captions), captions(arguments.captions, 0), strict=False
            ):
                file.write(f"{caption}\thttp://example.org/{number}\n")
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            done = pool.submit(whole, source, target, arguments.processes).result()
    report = done.pop("report")
    rate = arguments.captions / done["seconds"]
    print(
        f"{arguments.captions:,} captions to {report['kept']:,} in {done['seconds']:.0f} s ({rate:,.0f}/s), "
        f"{done['peak_mib']:.0f} MiB in all processes at most"
    )
    print(
        f"the parser alone would take {arguments.captions / plain_rate / arguments.processes:.0f} s on as many cores"
    )
    result = {
        "captions": arguments.captions,
        "processes": arguments.processes,
        "plain_phrases_per_second": round(plain_rate),
        "phraser_per_second": round(quick_rate),
        "ratio": round(quick_rate / plain_rate, 2),
        "whole": {name: round(value, 1) for name, value in done.items()},
        "whole_captions_per_second": round(rate),
        "seconds_of_the_parser_alone": round(arguments.captions / plain_rate / arguments.processes),
        "kept": report["kept"],
        "frequent_phrases": report["frequent_phrases"],
        "frequent_phrases_covered": report["frequent_phrases_covered"],
        "unique_phrases": [report[when]["unique_phrases"] for when in ("before", "after")],
    }
    from results import write_result  # imports torch, whose memory would be measured if it stood above

    write_result("balance", result)


if __name__ == "__main__":
    main()
