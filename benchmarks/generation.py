"""Whether asking a teacher holds to its promises, against a scripted endpoint of known capacity in another process.

    python benchmarks/generation.py [--part capacity overhead kills memory budget]

    capacity  share of 32 slots of half a second that 4,000 requests use (at least 95 %) where the endpoint lets what is
              too much wait, and that 2,000 use where it answers 429
    overhead  CPU and wall time a record, over HTTP with an endpoint that answers at once and with a teacher in the same
              process (less than 2 ms)
    kills     6,000 requests, the asking process killed 100 times at random moments: no reply lost, none doubled, calls
              paid again at most kills x calls at once, by the endpoint's own books
    memory    peak of 100,000 records beside that of 10,000 (at most a tenth more)
    budget    the most money at 64 calls at once, with replies lost on their way, by the endpoint's own books

A part that is run alone takes its place in the day's result. Each tells how many processes the machine ran or had
waiting meanwhile, since time on the wall grows with them. Leaves with 1 where one does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.synthesis.asking import Account, Budget, Journal, Limits, Price, Prices, ask_all, run
from llavakit.synthesis.endpoint.endpoint import Endpoint
from llavakit.synthesis.teacher import Message, TeacherReply, TeacherRequest, Usage

SLOTS, LATENCY = 32, 0.5
SYSTEM = Message("system", "Task: describe the picture for somebody who cannot see it. " * 40)
PRICE = Price(input=1.0, output=4.0, cached=0.5)


def requests(number: int, max_tokens: int = 256) -> Iterator[TeacherRequest]:
    """Requests of the size of real ones: 2 kB of instructions that all share, and a context of their own."""
    for n in range(number):
        context = (
            f"A dog runs over field {n}.\nA brown dog in grass.\n\ndog: [0.1, 0.2, 0.5, 0.{n % 89 + 10}]"
        )
        yield TeacherRequest((SYSTEM, Message("user", context)), "fake-teacher", max_tokens=max_tokens)


@contextmanager
def endpoint(*options: object) -> Iterator[str]:
    """The scripted endpoint as a process; its URL."""
    command = [sys.executable, "-m", "llavakit.cli.main", "fake-endpoint", *map(str, options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(20)


def books(url: str) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url.removesuffix('/v1')}/stats?keys=0") as response:
        return dict(json.load(response))


def asked(url: str, journal: Path, number: int, limits: Limits, prices: Prices | None = None) -> Account:
    with Journal(journal) as opened:
        return ask_all(requests(number), Endpoint(url, timeout_s=5), opened, limits=limits, prices=prices)


def capacity(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for overload, number in (("queue", 4000), ("reject", 2000)):
        with endpoint(
            "--slots", SLOTS, "--latency", LATENCY, "--overload", overload, "--retry-after", 0
        ) as url:
            began = time.monotonic()
            account = asked(url, folder / f"{overload}.sqlite", number, Limits())
            seconds = time.monotonic() - began
            told = books(url)
        found[overload] = {
            "answered": account.answered,
            "seconds": round(seconds, 2),
            "share_of_capacity": round(number * LATENCY / SLOTS / seconds, 4),
            "rejected": told["rejected"],
            "most_at_once": told["most_at_once"],
        }
    found["holds"] = found["queue"]["share_of_capacity"] >= 0.95
    return found


class Instant:
    """A teacher that answers at once."""

    name = "instant"

    async def reply(self, request: TeacherRequest) -> TeacherReply:
        text = "There is a dog in the grass. " * 20
        return TeacherReply(text, "instant", usage=Usage(600, 120), raw=json.dumps({"text": text}))


def overhead(folder: Path) -> dict[str, Any]:
    """The least of three turns each, since whatever else the machine does makes a turn longer and never shorter."""
    found: dict[str, Any] = {}
    with endpoint() as url:
        for name, number in (("http", 1500), ("in_process", 4000)):
            turns = []
            for turn in range(3):
                path = folder / f"{name}-{turn}.sqlite"
                cpu, wall = time.process_time(), time.monotonic()
                if name == "http":
                    asked(url, path, number, Limits(concurrency=64))
                else:
                    with Journal(path) as journal:
                        asyncio.run(run(requests(number), Instant(), journal))
                turns.append((time.process_time() - cpu, time.monotonic() - wall))
            cpu, wall = (1000 * min(times) / number for times in zip(*turns, strict=True))
            found[name] = {"records": number, "turns": 3, "cpu_ms": round(cpu, 3), "wall_ms": round(wall, 3)}
    found["holds"] = all(
        found[name][what] < 2 for name in ("http", "in_process") for what in ("cpu_ms", "wall_ms")
    )
    return found


def kills(folder: Path, times: int = 100, number: int = 6000, at_once: int = 16) -> dict[str, Any]:
    draw, path, done, starts = random.Random(0), folder / "kills.sqlite", 0, 0
    with endpoint("--slots", at_once, "--latency", 0.04, "--jitter", 0.5) as url:
        asking = [sys.executable, __file__, "--ask", url, str(path), str(number), str(at_once)]
        while done < times:
            starts += 1
            process = subprocess.Popen(asking, stdout=subprocess.DEVNULL)
            before = kept(path)
            while process.poll() is None and kept(path) == before:
                time.sleep(0.01)  # it has begun to ask
            try:
                process.wait(draw.uniform(0.0, 0.2))
                break  # all was answered before the last kill
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
        subprocess.run(asking, check=True, stdout=subprocess.DEVNULL)
        told = books(url)
    with Journal(path, read_only=True) as journal:
        missing = sum(journal.stored(one.key) is None for one in requests(number))
    with closing(sqlite3.connect(path)) as database:
        statement = "SELECT count(*) - count(DISTINCT key) FROM calls WHERE outcome != 'sent'"
        doubled = database.execute(statement).fetchone()[0]
    return {
        "kills": done,
        "starts": starts + 1,
        "records": number,
        "lost": missing,
        "doubled": doubled,
        "paid_again": told["paid_again"],
        "most_paid_again": done * at_once,
        "holds": done == times and missing == 0 and doubled == 0 and told["paid_again"] <= done * at_once,
    }


def kept(path: Path) -> int:
    if not path.is_file():
        return 0
    try:
        with Journal(path, read_only=True) as journal:
            return journal.count()
    except (LlavakitError, sqlite3.Error):  # it is being made
        return 0


def memory(folder: Path) -> dict[str, Any]:
    peaks = {}
    for number in (10_000, 100_000):
        command = [sys.executable, __file__, "--fill", str(folder / f"{number}.sqlite"), str(number)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peaks[number] = float(said.split()[-1])
    return {
        "peak_mib": {str(number): round(peak, 1) for number, peak in peaks.items()},
        "holds": peaks[100_000] <= 1.1 * peaks[10_000],
    }


def peak_mib() -> float:
    """The most memory that this very process had; what `getrusage` tells may be its parent's."""
    return int(Path("/proc/self/status").read_text("utf-8").partition("VmHWM:")[2].split()[0]) / 1024


def budget(folder: Path) -> dict[str, Any]:
    most, prices = 1.0, Prices({"fake-teacher": PRICE})
    faults = ("silence=0.02", "cut=0.05", "truncated=0.05", "broken-body=0.05", "500=0.05")
    options = [part for fault in faults for part in ("--fault", fault)]
    with endpoint("--slots", 64, "--latency", 0.1, *options) as url:
        limits = Limits(concurrency=64, budget=Budget(usd=most))
        account = asked(url, folder / "budget.sqlite", 50_000, limits, prices)
        again = asked(url, folder / "budget.sqlite", 50_000, limits, prices)
        told = books(url)
    billed = (told["prompt_tokens"] * PRICE.input + told["completion_tokens"] * PRICE.output) / 1e6
    return {
        "budget": most,
        "billed_by_the_endpoint": round(billed, 4),
        "spent_by_the_journal": round(again.usd, 4),
        "answered": account.answered + again.answered,
        "most_at_once": told["most_at_once"],
        "faults": told["faults"],
        "holds": billed <= again.usd + 1e-9 and again.usd <= most and account.stopped == "budget",
    }


PARTS = {"capacity": capacity, "overhead": overhead, "kills": kills, "memory": memory, "budget": budget}


def main() -> int:
    if sys.argv[1:2] == ["--ask"]:
        url, path, number, at_once = sys.argv[2:]
        asked(url, Path(path), int(number), Limits(concurrency=int(at_once)))
        return 0
    if sys.argv[1:2] == ["--fill"]:
        with Journal(Path(sys.argv[2])) as journal:
            asyncio.run(run(requests(int(sys.argv[3])), Instant(), journal))
        print(peak_mib())
        return 0
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=list(PARTS))
    given = parser.parse_args()
    here = Path(__file__).parent
    path = [str(here.parent / "src"), str(here), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
    content: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in given.part:
            content[part] = {**PARTS[part](Path(folder)), "load": round(os.getloadavg()[0], 1)}
            print(part, json.dumps(content[part], indent=1), flush=True)
    from results import FOLDER, write_result  # brings torch along, whose memory is none of what is measured

    today = FOLDER / f"{date.today().isoformat()}-generation.json"
    earlier = json.loads(today.read_text("utf-8")) if today.is_file() else {}
    write_result("generation", {**{part: earlier[part] for part in PARTS if part in earlier}, **content})
    return 0 if all(found["holds"] for found in content.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
