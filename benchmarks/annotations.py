"""How fast annotations are read and tasks are made, beside the least that has to be done for each.

    python benchmarks/annotations.py [--pictures 20000]

A COCO-like pair of files is written (five captions a picture, seven boxes with outlines of forty points). Reading them
stands beside `json.load` of the same files alone, in time and in the most memory taken; making the tasks of three kinds
and their keys stands beside hashing the same bytes alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from results import write_result

MEASURE = """
import json, re, sys, time
from pathlib import Path
from llavakit.synthesis.annotations import read_annotations

def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

paths = [Path(name) for name in sys.argv[2:]]
before, start = most(), time.perf_counter()
kept = [json.loads(path.read_text()) for path in paths] if sys.argv[1] == "json" else read_annotations(paths)
print(json.dumps([time.perf_counter() - start, most() - before]))
"""


def write_coco(folder: Path, pictures: int) -> list[Path]:
    """A captions file and an instances file about so many pictures."""
    rng = random.Random(0)
    images = [
        {"id": n, "file_name": f"COCO_train2014_{n:012d}.jpg", "width": 640, "height": 480}
        for n in range(pictures)
    ]
    words = "man woman dog street table red small two food large".split()  # noqa: SIM905
    told = [
        {"id": n, "image_id": n // 5, "caption": " ".join(rng.choices(words, k=10)) + "."}
        for n in range(5 * pictures)
    ]
    boxed = [
        {
            "id": n, "image_id": n // 7, "category_id": rng.randrange(1, 81), "iscrowd": 0, "area": 100.5,
            "bbox": [round(rng.uniform(0, 400), 2), round(rng.uniform(0, 300), 2), 120.25, 90.5],
            "segmentation": [[round(rng.uniform(0, 400), 2) for _ in range(80)]],
        }
        for n in range(7 * pictures)
    ]  # fmt: skip
    categories = [{"id": n, "name": f"thing {n}"} for n in range(1, 81)]
    paths = [folder / "captions.json", folder / "instances.json"]
    paths[0].write_text(json.dumps({"images": images, "annotations": told}))
    paths[1].write_text(json.dumps({"images": images, "annotations": boxed, "categories": categories}))
    return paths


def measured(what: str, paths: list[Path]) -> tuple[float, float]:
    """Seconds and mebibytes, in a process of its own."""
    command = [sys.executable, "-c", MEASURE, what, *map(str, paths)]
    seconds, mebibytes = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )
    return seconds, mebibytes


def main() -> None:
    from llavakit.synthesis.annotations import read_annotations
    from llavakit.synthesis.kinds import open_kinds
    from llavakit.synthesis.tasks import make_tasks

    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=20000)
    pictures = parser.parse_args().pictures
    with tempfile.TemporaryDirectory() as folder:
        paths = write_coco(Path(folder), pictures)
        megabytes = sum(path.stat().st_size for path in paths) / 1e6
        plain_s, plain_mib = measured("json", paths)
        read_s, read_mib = measured("read", paths)
        read = read_annotations(paths)
    some = read.pictures[: min(pictures, 5000)]
    start = time.perf_counter()
    tasks = [
        (task, task.key)
        for task in make_tasks(some, open_kinds(["conversation", "detail", "reasoning"]), skipped=Counter())
    ]
    tasks_s = time.perf_counter() - start
    bodies = [json.dumps(task.request.identity(), sort_keys=True).encode() for task, _ in tasks]
    start = time.perf_counter()
    for body in bodies:
        hashlib.sha256(body).hexdigest()
    hash_s = time.perf_counter() - start
    result = {
        "pictures": pictures,
        "megabytes": round(megabytes, 1),
        "read_s": round(read_s, 2),
        "json_load_s": round(plain_s, 2),
        "time_over_json_load": round(read_s / plain_s, 2),
        "read_mib": round(read_mib),
        "json_load_mib": round(plain_mib),
        "memory_over_json_load": round(read_mib / plain_mib, 2),
        "left_out": dict(read.left_out),
        "tasks_and_keys_a_second": round(len(tasks) / tasks_s),
        "hashes_a_second": round(len(tasks) / hash_s),
        "time_over_hashing": round(tasks_s / hash_s, 2),
    }
    print(json.dumps(result, indent=1))
    write_result("annotations", result)


if __name__ == "__main__":
    main()
