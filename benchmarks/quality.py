"""What the quality gates find and what they leave alone, on planted faults, honest look-alikes and GPT-4's answers.

    python benchmarks/quality.py

Each gate is run on the cases of `quality_cases/tuned.yaml`, with which it was written, and of `held_out.yaml`, which
was written by the same hand, not for writing gates, and from which a case that led to a change has moved away: recall
over its planted faults, precision and false alarms over those, its look-alikes and the honest candidates. Where
`shared/golden` is there, the 90 answers of GPT-4 in LLaVA-Bench (COCO) are judged too; of honest answers nearly none
should be rejected. Throughput is of all gates over candidates made of those answers, against the requirement of 2,000
a second of one core, duplicates apart. Writes benchmarks/results/DATE-quality.json.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.context import Annotated, Box
from llavakit.synthesis.quality import Settings, check, identity, tally
from results import write_result

HERE = Path(__file__).parent
CASES = HERE / "quality_cases"
GOLDEN = (
    Path(os.environ.get("LLAVAKIT_GOLDEN", HERE.parent.parent / "shared" / "golden")) / "llava-bench-coco"
)
GATES = ("form", "refusal", "leak", "length", "hallucination", "counts", "places", "relevance", "duplicates")
KINDS = {"conv": "conversation", "detail": "detail", "complex": "reasoning"}
MANY, RUNS, REQUIRED = 100_000, 5, 2_000


def candidate(case: Mapping[str, Any], pictures: Mapping[str, Annotated], name: str) -> Candidate:
    asked, kind = case.get("q", "What is going on here?"), case.get("kind", "conversation")
    picture = pictures[case.get("picture", next(iter(pictures)))]
    exchanges = ((asked, case["a"]),) if "a" in case else ()
    further = {key: case[key] for key in ("finish", "unreadable", "instructions") if key in case}
    return Candidate(name, kind, picture, exchanges, case.get("a", ""), **further)


def pictures_of(content: Mapping[str, Any]) -> dict[str, Annotated]:
    return {
        name: Annotated(
            name,
            f"{name}.jpg",
            tuple(one["captions"]),
            tuple(Box(category, tuple(at)) for category, *at in one["boxes"]),
        )
        for name, one in content.items()
    }


def alarms(candidates: list[Candidate], gate: str) -> list[bool]:
    """Whether this gate says something, of each."""
    only = Settings.of({name: "off" for name in GATES if name != gate})
    return [bool(row) for row in check(candidates, only)]


def pair(case: list[Any], number: int) -> list[Candidate]:
    """The candidates of a case of duplicates; the last is the one that should be found."""
    *texts, further = case if isinstance(case[-1], dict) else [*case, {}]
    texts *= further.get("times", 1)
    same = "0" if further.get("same_picture") else ""
    return [
        Candidate(
            f"{number}-{place:05d}",
            "conversation",
            Annotated(place, f"{same or place}.jpg", (), ()),
            (
                (
                    f"What is in part {place * 7919} of {place * 104729}, row {place * 31}?"
                    if len(texts) > 2
                    else "Tell.",
                    text,
                ),
            ),
            text,
        )
        for place, text in enumerate(texts)
    ]


def measure(path: Path) -> dict[str, Any]:
    """Precision, recall and the cases missed or wrongly found, by gate."""
    content = yaml.safe_load(path.read_text("utf-8"))
    pictures = pictures_of(content["pictures"])
    honest = content["honest"]
    found: dict[str, Any] = {}
    for gate in GATES:
        cases = content[gate]
        if gate == "duplicates":
            found_of = lambda case: alarms(pair(case, 0), "duplicates")[-1]  # noqa: E731
            hits = [found_of(case) for case in cases["find"]]
            plain = [candidate(case, pictures, f"honest-{n}") for n, case in enumerate(honest)]
            false = [found_of(case) for case in cases["pass"]] + alarms(plain, gate)
        else:
            rows = [*cases["find"], *cases["pass"], *honest]
            said = alarms([candidate(case, pictures, f"{gate}-{n}") for n, case in enumerate(rows)], gate)
            hits, false = said[: len(cases["find"])], said[len(cases["find"]) :]
        others = [*cases["pass"], *honest]
        found[gate] = {
            "positives": len(hits),
            "negatives": len(false),
            "recall": round(sum(hits) / len(hits), 3),
            "precision": round(sum(hits) / max(1, sum(hits) + sum(false)), 3),
            "missed": [case for case, hit in zip(cases["find"], hits, strict=True) if not hit],
            "false alarms": [case for case, wrong in zip(others, false, strict=True) if wrong],
        }
    return found


def gpt4_answers() -> list[Candidate]:
    """GPT-4's answers of LLaVA-Bench (COCO) as candidates; none where the files are not there."""
    if not GOLDEN.is_dir():
        return []
    rows = {
        name: [json.loads(line) for line in (GOLDEN / name).read_text("utf-8").splitlines()]
        for name in ("caps_boxes_coco2014_val_80.jsonl", "qa90_questions.jsonl", "qa90_gpt4_answer.jsonl")
    }
    told, asked, answered = rows.values()
    pictures = {
        row["image"]: Annotated(
            row["id"],
            row["image"],
            tuple(row["captions"]),
            tuple(Box(box["category"], tuple(box["bbox"])) for box in row["instances"]),
        )
        for row in told
    }
    return [
        Candidate(
            f"gpt4-{question['question_id']}",
            KINDS[question["category"]],
            pictures[question["image"]],
            ((question["text"], answer["text"]),),
            answer["text"],
        )
        for question, answer in zip(asked, answered, strict=True)
    ]


def throughput(samples: list[Candidate]) -> dict[str, Any]:
    """Candidates a second of one core: all gates but duplicates, the best of RUNS (others may share the machine) over a
    twentieth of MANY each, and duplicates alone over MANY."""
    many = [
        replace(
            one,
            id=f"{number:06d}",
            picture=replace(one.picture, image=f"{number}.jpg"),
            exchanges=tuple(
                (q, f"{a} Number {number} of {number * 7919} in row {number * 31}.") for q, a in one.exchanges
            ),
        )
        for number, one in ((number, samples[number % len(samples)]) for number in range(MANY))
    ]
    alone = Settings.of({"duplicates": "off"})
    others = []
    for start in range(0, RUNS * MANY // 20, MANY // 20):
        some = many[start : start + MANY // 20]
        began = time.process_time()
        check(some, alone)
        others.append(round(len(some) / (time.process_time() - began)))
    began = time.process_time()
    alarms(many, "duplicates")
    duplicates = len(many) / (time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "candidates_a_cpu_second": max(others),
        "each_run": others,
        "ratio_to_required": round(max(others) / REQUIRED, 2),
        "duplicates_a_cpu_second": round(duplicates),
        "peak_memory_mb": round(peak),
    }


if __name__ == "__main__":
    measured = {path.stem: measure(path) for path in (CASES / "tuned.yaml", CASES / "held_out.yaml")}
    for name, gates in measured.items():
        for gate, one in gates.items():
            print(f"{name:9} {gate:14} recall {one['recall']:.2f} of {one['positives']}", end="  ")
            print(
                f"precision {one['precision']:.2f}, false alarms {len(one['false alarms'])} of {one['negatives']}"
            )
            for key in ("missed", "false alarms"):
                for case in one[key]:
                    print(f"    {key}: {json.dumps(case, ensure_ascii=False)[:150]}")
    answers = gpt4_answers()
    judged = check(answers)
    rejected = sum(any(verdict.action == "reject" for verdict in row) for row in judged)
    print(f"GPT-4's answers rejected: {rejected} of {len(answers)}", tally(judged))
    speed = throughput(answers) if answers else {}
    print(json.dumps(speed))
    told = {"rejected": rejected, "of": len(answers), "reasons": tally(judged)}
    write_result("quality", {**measured, "gpt4": told, "throughput": speed, **identity(Settings())})
