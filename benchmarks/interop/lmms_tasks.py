"""Whether lmms-eval's own tasks, unchanged, get from a checkpoint the answers and scores that `llavakit eval` gets.

    python benchmarks/interop/lmms_tasks.py [--venv FOLDER] [--model FOLDER]

An environment of its own has lmms-eval and llavakit, which is found by its entry point. lmms-eval's command line runs
nine tasks as they are published; the hub's data sets they name stand in the folder it is started in, small ones made
here in the form of the Hugging Face copies, with pictures and questions of the quickstart. The same files are read by
`llavakit eval`'s own readers and the same questions asked. Compared are the texts of all answers and every score with
the figure that llavakit gives under lmms-eval's name. Leaves with 1 when one differs. Writes
benchmarks/results/DATE-lmms-eval.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import server
from PIL import Image

from llavakit import training
from llavakit.evaluation.asked import Asking, Journal
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.marking import mark_answers
from llavakit.evaluation.reading import read_questions
from llavakit.evaluation.running import ask
from llavakit.evaluation.wording import SHORT
from llavakit.model.llava import Llava
from llavakit.quickstart.demo import recipe_for
from llavakit.quickstart.materials import TASKS, Amounts, make_materials
from llavakit.quickstart.scenes import paint, scenes

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the folder of all benchmarks, for the next line
from results import write_result

EVAL = "lmms-eval==0.7.3"
# what its command line imports, beside torch and llavakit's own
NEEDED = (
    *("torch==2.13.0", "transformers", "datasets", "evaluate", "accelerate", "loguru", "jinja2", "requests", "tqdm"),
    *("sacrebleu", "portalocker", "tabulate", "colorama", "lxml", "pytz", "tenacity", "scikit-learn", "pytablewriter"),
)  # fmt: skip
ROWS = 24
LIMIT = 900.0  # seconds
LETTERS = "ABCD"
_PLACE = "import importlib.util; print(importlib.util.find_spec('llavakit').origin)"
CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")


@dataclass(frozen=True)
class Case:
    """A task of lmms-eval and the benchmark that asks the same.

    score: lmms-eval's metric. figure: llavakit's name of it, among `others` or its own. percent: what
    lmms-eval's number is multiplied with.
    """

    task: str
    benchmark: str
    variant: str
    score: str
    figure: str
    percent: float
    tokens: int


CASES = (
    Case("pope", "pope", "v1.5", "pope_f1_score", "lmms-eval: pooled F1", 100, 128),
    Case("mme", "mme", "v1.5", "mme_perception_score", "lmms-eval: perception", 1, 16),
    Case("scienceqa_img", "scienceqa_img", "v1.5", "exact_match", "lmms-eval: exact_match", 100, 16),
    Case("chartqa", "chartqa", "lmms-eval", "relaxed_overall", "overall", 100, 16),
    Case("ai2d", "ai2d", "v1.6", "exact_match", "accuracy", 100, 16),
    Case("realworldqa", "realworldqa", "v1.6", "exact_match", "accuracy", 100, 16),
    Case("docvqa_val", "docvqa", "v1.6", "anls", "ANLS", 100, 32),
    Case("gqa", "gqa", "v1.5", "exact_match", "lmms-eval: exact_match", 100, 16),
    Case("seedbench_ppl", "seed_bench", "ranked", "acc", "all", 100, 16),
)


def drawn() -> list[tuple[bytes, str, str]]:
    """Pictures as PNG with a question of the quickstart's examination and its answer."""
    found = []
    for number, (scene, rng) in enumerate(scenes("benchmark/lmms-eval", ROWS)):
        tasks = list(TASKS.values())
        asked = next(
            one for turn in range(4) if (one := tasks[(number + turn) % 4](scene.things, rng)) is not None
        )
        file = io.BytesIO()
        Image.fromarray(paint(scene)).save(file, "PNG")
        found.append((file.getvalue(), *asked))
    return found


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A Parquet file that `datasets` reads with its pictures as such."""
    path.parent.mkdir(parents=True, exist_ok=True)
    features = {name: {"_type": "Image"} for name in ("image", "decoded_image") if name in rows[0]}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns: dict[str, pa.Array] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name in features:
            several = isinstance(values[0], list)
            columns[name] = pa.array(values, pa.list_(image) if several else image)
            if several:
                features[name] = {"_type": "List", "feature": features[name]}
        else:
            columns[name] = pa.array(values)
    table = pa.table(columns)
    kinds = {name: features.get(name) or _feature(table.schema.field(name).type) for name in columns}
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": kinds}})}), path
    )


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """A column's kind in the words of `datasets`."""
    if pa.types.is_list(kind):
        return {"_type": "List", "feature": _feature(kind.value_type)}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"_type": "Value", "dtype": str(kind).replace("double", "float64")}


def name_files(folder: Path, configs: Mapping[str, Mapping[str, str]]) -> None:
    """The card by which `datasets` finds the files of every configuration and split."""
    lines = ["---", "configs:"]
    for name, splits in configs.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, pattern in splits.items():
            lines += [f"  - split: {split}", f'    path: "{pattern}"']
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def make_data(root: Path) -> dict[str, Path]:
    """Every data set below `root`, by the benchmark that reads it."""
    shown = drawn()
    pictures: list[dict[str, Any]] = [
        {"bytes": png, "path": f"{n}.png"} for n, (png, _, _) in enumerate(shown)
    ]
    rng = random.Random(0)
    yes_no = [(n, f"Is there a {word} in the picture?") for n, word in enumerate(_names(shown))]
    told = [rng.choice(("yes", "no")) for _ in yes_no]
    options = [["red", "blue", "green", "yellow"] for _ in shown]
    letters = [rng.choice(LETTERS) for _ in shown]
    home = root / "lmms-lab-encoder"
    part = "00000-of-00001.parquet"

    pope = [
        {"id": str(n), "question_id": str(n), "question": text, "answer": told[n], "image_source": str(n),
         "image": pictures[n], "category": ("adversarial", "popular", "random")[n % 3]}
        for n, text in yes_no
    ]  # fmt: skip
    write(home / "POPE" / "data" / f"test-{part}", pope)
    for split in ("adversarial", "popular", "random"):
        write(home / "POPE" / "Full" / f"{split}-{part}", [row for row in pope if row["category"] == split])
    name_files(home / "POPE", {"default": {"test": "data/test-*"}})

    from llavakit.evaluation.benchmarks.mme import COGNITION, PERCEPTION

    mme = []
    for n, task in enumerate([*PERCEPTION, *COGNITION]):
        for place in range(2):
            text = f"{yes_no[(n + place) % ROWS][1]} Please answer yes or no."
            mme.append({"question_id": f"{task}/{n}.png", "image": pictures[n % ROWS], "question": text,
                        "answer": ("Yes", "No")[place], "category": task})  # fmt: skip
    write(home / "MME" / "data" / f"test-{part}", mme)
    name_files(home / "MME", {"default": {"test": "data/test-*"}})

    science = [
        {"image": pictures[n], "question": text, "choices": options[n], "answer": LETTERS.index(letters[n]),
         "hint": "" if n % 2 else "It is drawn.", "task": "closed choice", "grade": "grade3",
         "subject": "natural science", "topic": "t", "category": "c", "skill": "s", "lecture": "", "solution": ""}
        for n, (_, text, _) in enumerate(shown)
    ]  # fmt: skip
    for config in ("ScienceQA-IMG", "ScienceQA-FULL"):
        write(home / "ScienceQA" / config / f"test-{part}", science)
    name_files(home / "ScienceQA", {"ScienceQA-IMG": {"test": "ScienceQA-IMG/test-*"}})

    chart = [
        {"type": ("human_test", "augmented_test")[n % 2], "question": text, "answer": truth, "image": pictures[n]}
        for n, (_, text, truth) in enumerate(shown)
    ]  # fmt: skip
    write(home / "ChartQA" / "data" / f"test-{part}", chart)
    name_files(home / "ChartQA", {"default": {"test": "data/test-*"}})

    ai2d = [
        {"question": text, "options": options[n], "answer": str(LETTERS.index(letters[n])), "image": pictures[n]}
        for n, (_, text, _) in enumerate(shown)
    ]  # fmt: skip
    write(home / "ai2d" / "data" / f"test-{part}", ai2d)
    name_files(home / "ai2d", {"default": {"test": "data/test-*"}})

    real = [
        {"image": pictures[n], "image_path": f"{n}.png", "question": text, "answer": truth}
        for n, (_, text, truth) in enumerate(shown)
    ]  # fmt: skip
    write(home / "RealWorldQA" / "data" / f"test-{part}", real)
    name_files(home / "RealWorldQA", {"default": {"test": "data/test-*"}})

    documents = [
        {"questionId": str(n), "question": text, "question_types": ["layout"], "image": pictures[n], "docId": n,
         "ucsf_document_id": "x", "ucsf_document_page_no": "1", "answers": [truth, truth.upper()],
         "data_split": "val"}
        for n, (_, text, truth) in enumerate(shown)
    ]  # fmt: skip
    write(home / "DocVQA" / "DocVQA" / f"validation-{part}", documents)
    name_files(home / "DocVQA", {"DocVQA": {"validation": "DocVQA/validation-*"}})

    gqa = [
        {"id": str(n), "imageId": f"n{n}", "question": text, "answer": truth.lower(), "fullAnswer": truth,
         "isBalanced": True, "types": {"structural": "query", "semantic": "obj", "detailed": "x"}}
        for n, (_, text, truth) in enumerate(shown)
    ]  # fmt: skip
    write(home / "GQA" / "testdev_balanced_instructions" / f"testdev-{part}", gqa)
    write(
        home / "GQA" / "testdev_balanced_images" / f"testdev-{part}",
        [{"id": f"n{n}", "image": picture} for n, picture in enumerate(pictures)],
    )
    name_files(
        home / "GQA",
        {
            name: {"testdev": f"{name}/testdev-*"}
            for name in ("testdev_balanced_instructions", "testdev_balanced_images")
        },
    )

    seed = [
        {"answer": letters[n], **dict(zip(CHOICES, options[n], strict=True)), "data_id": str(n),
         "data_type": "image", "question": text, "question_id": str(n), "question_type_id": 1 + n % 9,
         "image": [pictures[n]], "segment": []}
        for n, (_, text, _) in enumerate(shown)
    ]  # fmt: skip
    write(home / "SEED-Bench" / "data" / f"test-{part}", seed)
    name_files(home / "SEED-Bench", {"default": {"test": "data/test-*"}})
    return {
        "pope": home / "POPE", "mme": home / "MME", "scienceqa_img": home / "ScienceQA",
        "chartqa": home / "ChartQA", "ai2d": home / "ai2d", "realworldqa": home / "RealWorldQA",
        "docvqa": home / "DocVQA", "gqa": home / "GQA", "seed_bench": home / "SEED-Bench",
    }  # fmt: skip


def trained(folder: Path) -> Path:
    """A small model of the quickstart's that has also learnt to answer after the line by which tasks ask for a word."""
    make_materials(folder / "materials", Amounts(training=600, validation=8, questions=16), 0)
    file = folder / "materials" / "instruct_training.json"
    rows = json.loads(file.read_text())
    for row in rows:
        for asked, answered in zip(row["conversations"][::2], row["conversations"][1::2], strict=True):
            if len(answered["value"].split()) <= 2:
                asked["value"] += f"\n{SHORT}"
    file.write_text(json.dumps(rows))
    return training.run(recipe_for(folder / "materials", 0, ()), folder / "run").checkpoint


def _names(shown: Sequence[tuple[bytes, str, str]]) -> list[str]:
    from llavakit.quickstart.scenes import NAMES

    return [NAMES[number % len(NAMES)] for number in range(len(shown))]


def run_theirs(
    python: Path, model: Path, place: Path, cases: Sequence[Case]
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """lmms-eval's results and samples by task, by its command line, started where the data sets lie."""
    out = place / "out"
    command = [
        str(python), "-m", "lmms_eval", "--model", "llavakit",
        "--model_args", f"pretrained={model}",
        "--tasks", ",".join(case.task for case in cases),
        "--batch_size", "8", "--device", "cpu", "--output_path", str(out), "--log_samples",
    ]  # fmt: skip
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_TOKEN": "none", "HF_HOME": str(place / "cache"),
        "HF_DATASETS_CACHE": str(place / "cache"),
    }  # fmt: skip
    done = subprocess.run(
        command, cwd=place, env=settings, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    written = list(out.rglob("*results.json"))
    if done.returncode or len(written) != 1:
        raise SystemExit(f"lmms-eval ended with {done.returncode}:\n{(done.stdout + done.stderr)[-6000:]}")
    samples = {}
    for case in cases:
        (file,) = out.rglob(f"*samples_{case.task}.jsonl")
        rows = [json.loads(line) for line in file.read_text("utf-8").split("\n") if line]
        samples[case.task] = sorted(rows, key=lambda row: row["doc_id"])
    return json.loads(written[0].read_text("utf-8"))["results"], samples


def compared(
    case: Case, model: Llava, data: Path, place: Path, scores: Mapping[str, Any], samples: Sequence[Any]
) -> dict[str, Any]:
    """One task: equal answers of how many, and both scores."""
    benchmark = load(case.benchmark)
    questions = read_questions(benchmark, data, case.variant)
    if case.task == "seedbench_ppl":  # whose wording of the question is not the official tool's
        questions = [
            replace(one, prompt=f"{one.prompt} Answer :", choices=tuple(f" {text}" for text in one.choices))
            for one in questions
        ]
    with Journal(place / "asked" / case.task, {"model": "here"}) as journal:
        answers = dict(ask(model, questions, journal, Asking(batch=8), case.tokens))
    marked = mark_answers(benchmark, questions, answers)
    mine = (marked.figures | marked.others)[case.figure]
    key = next(name for name in scores if name.partition(",")[0] == case.score)
    theirs = case.percent * float(scores[key])
    their_texts = [_text(sample) for sample in samples]
    my_texts = [answers[question.id] for question in _in_their_order(case, questions)]
    equal = [a == b for a, b in zip(my_texts, their_texts, strict=True)]
    return {
        "questions": len(questions),
        "equal_answers": sum(equal),
        "different_answers_among_them": len(set(my_texts)),
        "lmms_eval": round(theirs, 4),
        "llavakit": round(mine, 4),
        "figure": case.figure,
        "equal_score": abs(mine - theirs) < 0.01,
        "partings": [
            {"llavakit": a, "lmms-eval": b} for a, b in zip(my_texts, their_texts, strict=True) if a != b
        ][:5],
    }


def _in_their_order(case: Case, questions: Sequence[Any]) -> list[Any]:
    """Questions in the order of the one file that lmms-eval reads."""
    if case.benchmark == "pope":
        return sorted(questions, key=lambda question: int(question.id.rpartition("-")[2]))
    if case.benchmark == "chartqa":
        halves = {"human": 0, "augmented": 1}
        return sorted(
            questions, key=lambda one: (int(one.id.rpartition("-")[2]), halves[one.id.rpartition("-")[0]])
        )
    return list(questions)


def _text(sample: Mapping[str, Any]) -> str:
    """The answer in a sample of lmms-eval's; of ranked options the letter of the least loss."""
    replies = sample["filtered_resps"]
    if isinstance(replies, list) and len(replies) == 1:
        (replies,) = replies
    if isinstance(replies, str):
        return replies
    losses = [float(loss) for loss, _ in replies]
    return LETTERS[losses.index(min(losses))]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = Path(tempfile.gettempdir()) / "llavakit-lmms-eval"
    arguments.add_argument("--venv", type=Path, default=default, help="where lmms-eval is, or is put")
    arguments.add_argument(
        "--model", type=Path, help="a folder that llavakit opens; one is trained when not given"
    )
    names = [case.task for case in CASES]
    arguments.add_argument("--tasks", nargs="+", choices=names, default=names, help="only these of them")
    given = arguments.parse_args()
    cases = [case for case in CASES if case.task in given.tasks]
    python = environment(given.venv)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = given.model.resolve() if given.model else trained(place / "model")
        folders = make_data(place)
        results, samples = run_theirs(python, model, place, cases)
        opened = Llava.from_pretrained(model)
        found = {
            case.task: compared(
                case, opened, folders[case.benchmark], place, results[case.task], samples[case.task]
            )
            for case in cases
        }
    for task, one in found.items():
        print(
            f"{task:16}{one['equal_answers']} of {one['questions']} answers equal "
            f"({one['different_answers_among_them']} different ones); lmms-eval {one['lmms_eval']:.2f}, "
            f"llavakit {one['llavakit']:.2f} ({one['figure']})"
        )
    versions = {
        name: server.version(python, name) for name in ("lmms-eval", "datasets", "torch", "transformers")
    }
    write_result("lmms-eval", {"versions": versions, "tasks": found})
    whole = all(one["equal_score"] and one["equal_answers"] == one["questions"] for one in found.values())
    return 0 if whole else 1


def environment(folder: Path) -> Path:
    """The Python of an environment with lmms-eval, without what only other models of its need, and with llavakit."""
    limits = str(server.REPOSITORY / "constraints.txt")
    python = server.environment(folder, (EVAL, "--no-deps"))
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", limits]
    if server.version(python, "llavakit") is None:
        subprocess.run([*install, *NEEDED], check=True)
    if _checkout(python) != server.REPOSITORY:  # it may have the code of another checkout
        subprocess.run([*install, "--editable", str(server.REPOSITORY)], check=True)
    return python


def _checkout(python: Path) -> Path | None:
    """The folder of which an environment has llavakit; None where it has none."""
    found = subprocess.run([python, "-I", "-c", _PLACE], capture_output=True, text=True)
    return Path(found.stdout.strip()).parents[2] if found.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
