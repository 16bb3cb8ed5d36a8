"""What evaluation costs: a benchmark's questions asked together against one by one, and marking with intervals.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py

The random LLaVA of benchmarks/answering.py answers 48 questions about 24 pictures in 16 tokens each, through the same
journalled runner as `llavakit eval`, with batches of 1 and of 24, once where all questions are of one length and once
where each has 3 to 40 words; the answers have to be equal. Then 20,000 saved
answers are joined, marked and given an interval, against drawing verdicts one by one for the same interval. Times are
the process's own on one thread. Writes a dated file under benchmarks/results/. About a minute.
"""

from __future__ import annotations

import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from answering import random_llava
from llavakit.evaluation.asked import Asking, Journal
from llavakit.evaluation.benchmark import Question
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.intervals import bootstrap
from llavakit.evaluation.marking import mark_answers
from llavakit.evaluation.pictures import InFile
from llavakit.evaluation.running import ask
from llavakit.evaluation.saved import join
from llavakit.model.llava import Llava
from results import write_result

LENGTHS = {"one length": (5, 5), "all lengths": (3, 40)}
WORDS = [
    "what",
    "colour",
    "is",
    "the",
    "circle",
    "square",
    "large",
    "small",
    "red",
    "blue",
    "left",
    "right",
    "of",
]
PICTURES, BATCH, NEW_TOKENS, SAVED, PLAIN_DRAWS = 24, 24, 16, 20_000, 100


def questions(folder: Path, words: tuple[int, int]) -> list[Question]:
    """Two questions a picture, of so many words at least and at most."""
    rng, found = random.Random(0), []
    for number in range(PICTURES):
        path = folder / f"{number}.png"
        Image.effect_noise((192, 192), 10 + number).convert("RGB").save(path)
        for place in range(2):
            prompt = " ".join(rng.choices(WORDS, k=rng.randint(*words)))
            found.append(Question(f"{number}-{place}", (InFile(path),), prompt, ""))
    return found


def asked(model: Llava, folder: Path, put: list[Question], batch: int) -> tuple[dict[str, str], float]:
    """All answers, and the process's seconds for them."""
    with Journal(folder / str(batch), {}) as journal:
        start = time.process_time()
        answers = dict(ask(model, put, journal, Asking(batch=batch), NEW_TOKENS))
    return answers, time.process_time() - start


def saved() -> tuple[float, float, int]:
    """Seconds to join, mark and bound 20,000 answers, seconds a draw of verdicts, and draws of the fast way."""
    benchmark = load("seed_bench_image")
    put = [
        Question(str(number), (), "?", "ABCD"[number % 4], meta={"data_type": "image"})
        for number in range(SAVED)
    ]
    rows = [{"question_id": str(number), "text": "ABCD"[number % 3]} for number in range(SAVED)]
    start = time.process_time()
    joined = join(benchmark, put, rows)
    marked = mark_answers(benchmark, joined.questions, joined.answers)
    fast = time.process_time() - start
    start = time.process_time()
    bootstrap(replace(benchmark, mean=False), marked.verdicts, draws=PLAIN_DRAWS)
    return fast, (time.process_time() - start) / PLAIN_DRAWS, marked.interval.draws


def main() -> None:
    torch.set_num_threads(1)
    model = random_llava()
    found = {}
    for name, words in LENGTHS.items():
        with tempfile.TemporaryDirectory() as folder:
            put = questions(Path(folder), words)
            asked(model, Path(folder) / "warm", put[:2], 1)
            alone, slow = asked(model, Path(folder), put, 1)
            together, quick = asked(model, Path(folder), put, BATCH)
        count, equal = len(put), alone == together
        print(
            f"{count} questions of {name}, {NEW_TOKENS} tokens each, float32: one by one {count / slow:.2f} "
            f"questions/s, {BATCH} together {count / quick:.2f} questions/s: {slow / quick:.2f}x; equal: {equal}"
        )
        found[name] = {
            "one_by_one": round(count / slow, 2),
            "together": round(count / quick, 2),
            "together_over_one_by_one": round(slow / quick, 2),
            "answers_equal": equal,
        }
    fast, a_draw, draws = saved()
    print(
        f"{SAVED:,} saved answers joined, marked and bounded by {draws:,} draws in {fast:.2f} s; as many draws of "
        f"verdicts, at {1e3 * a_draw:.0f} ms each, would take {a_draw * draws:.0f} s"
    )
    result = {
        "questions": 2 * PICTURES,
        "questions_per_second": found,
        "saved_answers": SAVED,
        "join_mark_interval_seconds": round(fast, 3),
        "interval_draws": draws,
        "ms_a_draw_of_verdicts": round(1e3 * a_draw, 1),
    }
    write_result("evaluation", result)
    if not all(one["answers_equal"] for one in found.values()):
        raise SystemExit("answers depend on the batch")


if __name__ == "__main__":
    main()
