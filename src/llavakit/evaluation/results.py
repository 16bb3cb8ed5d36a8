"""A run's results as files: `results.json`, and of every benchmark its marked answers, a line of JSON each.

`results.json` says what was asked, by which rules and data, of which model or file of answers, and what came out, each
score with its interval. What is not a number is null. The lines of `<benchmark>.jsonl` can be scored again with
`--answers`, and are what `compare` and the report read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Benchmark, Question, Variant, Verdict
from llavakit.evaluation.marking import Marked, categories
from llavakit.evaluation.provenance import machine, questions_hash, rules_hash, versions
from llavakit.evaluation.saved import OWN_ID
from llavakit.evaluation.spreadsheet import CELL
from llavakit.evaluation.writing import write_whole

FORM = "llavakit evaluation 1"
RESULTS = "results.json"


@dataclass(frozen=True, slots=True)
class Scored:
    """One benchmark of a run, scored.

    counts: what was noticed of the answers. asking: how they were made (decoding, condition, batch), empty for answers
    of another tool. judge: which, with the hash of its prompt; None without one. judge_replies: its words on a
    question, a run after the other. judge_calls: made in this process.
    """

    benchmark: Benchmark
    variant: Variant
    questions: Sequence[Question]
    answers: Mapping[str, str]
    marked: Marked
    counts: Mapping[str, int]
    data: Mapping[str, str]
    total: int
    asking: Mapping[str, Any] = field(default_factory=dict)
    judge: Mapping[str, Any] | None = None
    judge_replies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    judge_calls: int = 0

    def result(self) -> dict[str, Any]:
        """What `results.json` holds of it."""
        marked, benchmark = self.marked, self.benchmark
        return {
            "title": benchmark.title,
            "variant": self.variant.name,
            "protocol": self.variant.protocol,
            "headline": benchmark.headline,
            "score": marked.score,
            "interval": asdict(marked.interval),
            "figures": marked.figures,
            "others": marked.others,
            "categories": {
                name: {"mean_credit": mean, "questions": number}
                for name, (mean, number) in categories(marked.verdicts).items()
            },
            "questions": {"scored": len(self.questions), "all": self.total},
            "counts": dict(self.counts),
            "notes": marked.notes,
            "asking": dict(self.asking),
            "judge": self.judge,
            "hashes": {
                "questions": questions_hash(self.questions),
                "rules": rules_hash(benchmark),
                "data": dict(self.data),
            },
            "published": [asdict(one) for one in benchmark.published],
        }

    def rows(self) -> list[dict[str, Any]]:
        """The lines of its marked answers."""
        return [
            {
                OWN_ID: verdict.question.id,
                "prompt": verdict.question.prompt,
                "text": self.answers[verdict.question.id],
                "parsed": verdict.parsed,
                "truth": verdict.question.truth,
                "credit": verdict.credit,
                "note": verdict.note,
                "category": verdict.question.category,
                "unit": verdict.question.unit,
                "meta": dict(verdict.question.meta),
                "facts": dict(verdict.facts),
                **self._judged(verdict.question.id),
            }
            for verdict in self.marked.verdicts
        ]

    def _judged(self, name: str) -> dict[str, Any]:
        return {"judged": list(self.judge_replies[name])} if name in self.judge_replies else {}


def write_results(folder: Path, answered_by: Mapping[str, Any], scored: Sequence[Scored]) -> Path:
    """Writes all files of a run; `results.json` last, so that where it stands everything does.

    answered_by: the model with its hash, or the file of answers with its own. Raises LlavakitError when the folder
    holds another run's results.
    """
    check_free(folder)
    for one in scored:
        lines = "".join(json.dumps(finite(row), default=str) + "\n" for row in one.rows())
        write_whole(folder / f"{one.benchmark.name}.jsonl", lines.encode())
    document = {
        "form": FORM,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "answered_by": dict(answered_by),
        "versions": versions(),
        "machine": machine(),
        "benchmarks": {one.benchmark.name: one.result() for one in scored},
    }
    path = folder / RESULTS
    write_whole(path, (json.dumps(finite(document), indent=1, default=str, allow_nan=False) + "\n").encode())
    return path


def write_submission(folder: Path, one: Scored) -> tuple[Path, int] | None:
    """Writes the file that a benchmark's server takes; None where there is no server or only a part was answered.

    Its name ends as its content is: a spreadsheet, one JSON value, or lines of JSON. Beside it stands how many answers
    were longer than a spreadsheet's cell can be and are cut in it.
    """
    if one.benchmark.submission is None or len(one.questions) < one.total:
        return None
    path = folder / f"{one.benchmark.name}-submission"
    one.benchmark.submission(one.questions, one.answers, path)
    ending = _ending(path.read_bytes())
    cut = sum(len(answer) > CELL for answer in one.answers.values()) if ending == ".xlsx" else 0
    return path.rename(path.with_name(path.name + ending)), cut


def _ending(content: bytes) -> str:
    if content.startswith(b"PK"):
        return ".xlsx"
    try:
        json.loads(content)
    except ValueError:
        return ".jsonl"
    return ".json"


def check_free(folder: Path) -> None:
    """Raises LlavakitError when the folder has results, which are never overwritten."""
    if (folder / RESULTS).exists():
        raise LlavakitError(f"{folder} holds results already; choose another folder with --out, or remove it")


def read_results(folder: Path) -> dict[str, Any]:
    """A run's `results.json`; folder may also be the file itself."""
    path = folder / RESULTS if folder.is_dir() else folder
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise LlavakitError(
            f"{path} cannot be read: {error.strerror}; expected a folder of `llavakit eval`"
        ) from error
    except ValueError as error:
        raise LlavakitError(f"{path} is not whole JSON: {error}") from error
    if not isinstance(document, dict) or document.get("form") != FORM:
        raise LlavakitError(f"{path} holds no results of `llavakit eval` (expected the form {FORM!r})")
    return document


def read_marked(folder: Path, name: str) -> list[dict[str, Any]]:
    """The marked answers of one benchmark of a run."""
    path = (folder if folder.is_dir() else folder.parent) / f"{name}.jsonl"
    try:
        return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    except OSError as error:
        raise LlavakitError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise LlavakitError(f"{path} is not whole: {error}") from error


def verdicts_of(rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Marked answers as the verdicts that they were written from, but for pictures and options to rank."""
    return [
        Verdict(
            Question(
                str(row[OWN_ID]),
                (),
                str(row["prompt"]),
                row["truth"],
                category=str(row["category"]),
                unit=str(row["unit"]),
                meta=row.get("meta", {}),
            ),
            row["parsed"],
            math.nan if row["credit"] is None else float(row["credit"]),
            str(row["note"]),
            row.get("facts", {}),
        )
        for row in rows
    ]


def finite(value: Any) -> Any:
    """The value with null for every number that is none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value
