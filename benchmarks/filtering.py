"""Whether filtered data is worth it: one small model tuned on sound, on faulty and on filtered data, and examined.

    python benchmarks/filtering.py [--pictures 1500] [--seeds 2] [--questions 240] [--gates-only]

The quickstart's rule-based teacher writes instruction data, and faults are planted into 40 % of the candidates
(`faults.py` says which). The gates judge them twice: with the usual settings, and with limits of length for a teacher
that writes briefly. Stage 1 is trained once, stage 2 from there on every set, with as many steps of as many tokens.
Each seed plants faults, orders data and asks questions of its own. Told are precision and recall of the gates by kind
of fault, right answers with intervals, and McNemar's exact test on the same questions, faulty against filtered. Writes
benchmarks/results/DATE-filtering.json, or with --gates-only, which trains nothing, DATE-filtering-gates.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults import KINDS_OF_FAULT, Planted, plant
from llavakit import training
from llavakit.data.readers.llava import write_llava
from llavakit.evaluation.benchmark import Question
from llavakit.evaluation.comparing import mcnemar
from llavakit.evaluation.intervals import wilson
from llavakit.quickstart.demo import examine, recipe_for
from llavakit.quickstart.materials import Amounts, make_materials, write_exam
from llavakit.quickstart.teacher import RuleTeacher, rule_kinds
from llavakit.recipe import DataSource, Recipe, Stage
from llavakit.synthesis.annotations import read_annotations
from llavakit.synthesis.candidate import Candidate, Verdict
from llavakit.synthesis.quality import Settings, check, identity
from llavakit.synthesis.tasks import conversation, make_tasks, read_reply
from llavakit.training.events import StepDone
from results import write_result

SHARE = 0.4
GATES = {
    "usual": Settings(),
    "brief": Settings.of({"words": {"detail": [3, 500], "reasoning": [1, 400]}}),
}
SETS = ("sound", "faulty", "filtered, usual", "filtered, brief")


@dataclass(frozen=True, slots=True)
class Trained:
    """A model after stage 2: what it was trained on and which questions of the exam it answered rightly."""

    samples: int
    steps: int
    tokens: int
    supervised: int
    marks: tuple[bool, ...]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--questions", type=int, default=240, help="a task and seed")
    parser.add_argument("--steps", type=int, help="of stage 2; an epoch of the sound set when not given")
    parser.add_argument(
        "--gates-only", action="store_true", help="judge the planted faults and train nothing"
    )
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sound = ask_teacher(folder / "materials", arguments.pictures)
        if arguments.gates_only:
            result = judged(sound, arguments.seeds)
        else:
            result = trial(folder, sound, arguments.seeds, arguments.questions, arguments.steps)
    result |= {"pictures": arguments.pictures, "seconds": round(time.monotonic() - began)}
    write_result("filtering-gates" if arguments.gates_only else "filtering", result)


def judged(sound: Sequence[Candidate], seeds: int) -> dict[str, Any]:
    """What the gates reject of the faults of all seeds."""
    plants = [plant(sound, SHARE, seed) for seed in range(seeds)]
    found = {
        name: summed([found_of(one, check(one.candidates, settings)) for one in plants])
        for name, settings in GATES.items()
    }
    show_gates(found)
    return {
        "candidates": len(sound),
        "faulty_share": SHARE,
        "gates": found,
        "versions": identity(Settings())["gates"],
    }


def trial(
    folder: Path, sound: Sequence[Candidate], seeds: int, questions: int, steps: int | None
) -> dict[str, Any]:
    materials = folder / "materials"
    recipe = recipe_for(materials, 0, ())
    aligned = training.run(only(recipe, recipe.stages[0]), folder / "align").checkpoint
    print(f"{len(sound)} candidates; stage 1 is trained", flush=True)
    exams: list[Question] = []
    runs: dict[str, list[Trained]] = {name: [] for name in SETS}
    gates: dict[str, list[dict[str, Any]]] = {name: [] for name in GATES}
    for seed in range(seeds):
        planted = plant(sound, SHARE, seed)
        sets: dict[str, Sequence[Candidate]] = {"sound": sound, "faulty": planted.candidates}
        for name, settings in GATES.items():
            verdicts = check(planted.candidates, settings)
            gates[name].append(found_of(planted, verdicts))
            sets[f"filtered, {name}"] = [
                one
                for one, row in zip(planted.candidates, verdicts, strict=True)
                if not any(verdict.action == "reject" for verdict in row)
            ]
        exam = write_exam(folder / f"seed{seed}", questions, seed)
        exams += exam
        for name, candidates in sets.items():
            trained = tune(
                recipe,
                aligned,
                candidates,
                folder / f"seed{seed}",
                folder / f"{name}-{seed}",
                materials,
                seed,
                steps,
            )
            steps = trained.steps
            runs[name].append(trained)
            line = f"{sum(trained.marks)} of {len(exam)} right"
            print(f"seed {seed}, {name}: {trained.samples} samples, {steps} steps, {line}", flush=True)
    found = {name: summed(rows) for name, rows in gates.items()}
    result = {
        "candidates": len(sound),
        "faulty_share": SHARE,
        "gates": found,
        "versions": identity(Settings())["gates"],
        "trained": {name: [told_of(one) for one in rows] for name, rows in runs.items()},
        "right": {name: fractions(exams, joined(rows)) for name, rows in runs.items()},
        "right_by_seed": {
            name: [round(sum(one.marks) / len(one.marks), 4) for one in rows] for name, rows in runs.items()
        },
        "against_faulty": {
            name: by_task(exams, joined(runs["faulty"]), joined(runs[name]))
            for name in SETS
            if name != "faulty"
        },
    }
    show(result)
    return result


def ask_teacher(materials: Path, pictures: int) -> list[Candidate]:
    """Draws the training's pictures; the rule-based teacher's replies about them, read, of which all are sound."""
    amounts = Amounts(training=pictures, validation=1, questions=8)  # of its exam nothing is asked
    make_materials(materials, amounts, seed=0)
    files = [materials / f"{name}_training.json" for name in ("captions", "instances")]
    teacher = RuleTeacher()

    async def ask() -> list[Candidate]:
        tasks = make_tasks(read_annotations(files).pictures, rule_kinds(), seed=0, skipped=Counter())
        return [read_reply(task, await teacher.reply(task.request)) for task in tasks]

    return [one for one in asyncio.run(ask()) if one.exchanges]


def only(recipe: Recipe, stage: Stage) -> Recipe:
    """The recipe with this stage alone, which trains without a look at held-out data."""
    return recipe.model_copy(update={"stages": [stage.model_copy(update={"validation": None})]})


def tune(
    recipe: Recipe,
    aligned: Path,
    candidates: Sequence[Candidate],
    exam: Path,
    folder: Path,
    materials: Path,
    seed: int,
    steps: int | None,
) -> Trained:
    """Stage 2 on the candidates from the aligned model, then the exam. Steps beyond an epoch begin the set again."""
    folder.mkdir()
    write_llava(map(conversation, candidates), folder / "instruct.json")
    source = DataSource(path=str(folder / "instruct.json"), images=str(materials))
    whole = recipe.stages[1].schedule
    schedule = whole if steps is None else whole.model_copy(update={"max_steps": steps, "epochs": 20.0})
    stage = recipe.stages[1].model_copy(update={"data": [source], "schedule": schedule})
    model = recipe.model.model_copy(update={"checkpoint": str(aligned)})
    course = only(recipe, stage).model_copy(update={"model": model, "seed": seed})
    done: list[StepDone] = []

    def listen(event: object) -> None:
        if isinstance(event, StepDone):
            done.append(event)

    checkpoint = training.run(course, folder / "run", listen).checkpoint
    marks = tuple(one.credit == 1 for one in examine(checkpoint, exam, folder / "examined").marked.verdicts)
    tokens, supervised = sum(one.tokens for one in done), sum(one.supervised for one in done)
    return Trained(len(candidates), len(done), tokens, supervised, marks)


def found_of(planted: Planted, verdicts: Sequence[Sequence[Verdict]]) -> dict[str, Any]:
    """How many candidates of each kind of fault there are and how many were rejected; "" is those without one."""
    there: Counter[str] = Counter(planted.faults)
    rejected: Counter[str] = Counter()
    by_gate: Counter[str] = Counter()
    for fault, row in zip(planted.faults, verdicts, strict=True):
        gates = {verdict.gate.partition("/")[0] for verdict in row if verdict.action == "reject"}
        rejected[fault] += bool(gates)
        if not fault:
            by_gate.update(gates)
    return {"there": there, "rejected": rejected, "sound_rejected_by": by_gate}


def summed(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over all seeds: recall by kind of fault, and how many of the rejected had a fault."""
    there, rejected, by_gate = (
        sum((row[key] for row in rows), Counter()) for key in ("there", "rejected", "sound_rejected_by")
    )
    faulty = sum(rejected[kind] for kind in KINDS_OF_FAULT)
    return {
        "precision": round(faulty / max(1, rejected.total()), 4),
        "recall": round(faulty / max(1, sum(there[kind] for kind in KINDS_OF_FAULT)), 4),
        "recall_by_fault": {
            kind: {"planted": there[kind], "rejected": rejected[kind]} for kind in KINDS_OF_FAULT
        },
        "sound": {"there": there[""], "rejected": rejected[""], "by_gate": dict(by_gate)},
        "faulty_share_left": round(
            1 - (there[""] - rejected[""]) / max(1, there.total() - rejected.total()), 4
        ),
    }


def compared(one: Sequence[bool], other: Sequence[bool]) -> dict[str, Any]:
    """How many more of the same questions `other` answers rightly, as a share with its 95 % interval (Wald, paired)."""
    better = sum(b and not a for a, b in zip(one, other, strict=True))
    worse = sum(a and not b for a, b in zip(one, other, strict=True))
    gain = (better - worse) / len(one)
    reach = 1.959964 * math.sqrt(better + worse - (better - worse) ** 2 / len(one)) / len(one)
    return {
        "questions": len(one),
        "only_other_right": better,
        "only_faulty_right": worse,
        "gain": round(gain, 4),
        "interval": [round(gain - reach, 4), round(gain + reach, 4)],
        "p": float(f"{mcnemar(better, worse):.2g}"),
    }


def by_task(exam: Sequence[Question], one: Sequence[bool], other: Sequence[bool]) -> dict[str, Any]:
    """The comparison over all questions and over each task's."""
    found = {"all": compared(one, other)}
    for task in dict.fromkeys(question.category for question in exam):
        places = [place for place, question in enumerate(exam) if question.category == task]
        found[task] = compared([one[place] for place in places], [other[place] for place in places])
    return found


def fractions(exam: Sequence[Question], marks: Sequence[bool]) -> dict[str, Any]:
    """Right answers as a share with Wilson's 95 % interval, over all questions and a task."""
    rows: dict[str, list[bool]] = {"all": list(marks)}
    for question, mark in zip(exam, marks, strict=True):
        rows.setdefault(question.category, []).append(mark)
    return {
        task: {
            "right": round(sum(marks) / len(marks), 4),
            "interval": [round(end, 4) for end in wilson(sum(marks), len(marks))],
        }
        for task, marks in rows.items()
    }


def joined(rows: Sequence[Trained]) -> list[bool]:
    return [mark for one in rows for mark in one.marks]


def told_of(one: Trained) -> dict[str, int]:
    return {
        "samples": one.samples,
        "steps": one.steps,
        "tokens": one.tokens,
        "supervised_tokens": one.supervised,
    }


def show_gates(gates: dict[str, Any]) -> None:
    for name, one in gates.items():
        print(f"gates, {name}: precision {one['precision']:.3f}, recall {one['recall']:.3f}")
        for kind, number in one["recall_by_fault"].items():
            print(f"    {kind:24} {number['rejected']} of {number['planted']}")
        print(f"    sound: {json.dumps(one['sound'])}; faulty share left: {one['faulty_share_left']:.3f}")


def show(result: dict[str, Any]) -> None:
    show_gates(result["gates"])
    for name, tasks in result["right"].items():
        print(f"{name:16}", "  ".join(f"{task} {one['right']:.1%}" for task, one in tasks.items()))
    for name, tasks in result["against_faulty"].items():
        for task, one in tasks.items():
            low, high = one["interval"]
            print(
                f"{name:16} against faulty, {task}: {one['gain']:+.1%} [{low:+.1%}, {high:+.1%}], p = {one['p']}"
            )


if __name__ == "__main__":
    main()
