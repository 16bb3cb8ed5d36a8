"""Do scorers written by others give what ours give? `python benchmarks/independent_scorers.py`

Ten thousand random answers (words, numbers, contractions, marks in odd places) go through lmms-eval's own scoring
functions and through llavakit's. Each line says how many differ, and how many of those for the reason that is known; a
difference without a known reason fails the run. The package is had with pip into a temporary folder, and single files
of it are opened by their path, without what it needs; where it cannot be had, the result says so.
"""

from __future__ import annotations

import copy
import importlib.util
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from llavakit.evaluation.benchmark import Question
from llavakit.evaluation.benchmarks import mme, pope
from llavakit.evaluation.scoring import choices_lmms, vqa_accuracy
from results import write_result

NUMBER, SEED = 10_000, 0
PACKAGE = "lmms-eval==0.7.3"
_PIECES = (
    "yes no Yes No yes. no. y n not two ten none a an the dog dog's cats man's dont cant someonell im ive shes "
    "hadnt've 'ow'sat y'alld've A B C D A. B. C. A) (B) E red blue light-blue 3. 3.5 19.sep $2.50 1,000 1,,2 50% "
    "7 x,y what? well, t-shirt black/white unanswerable ... it's"
)
WORDS = _PIECES.split()


def answer(draw: random.Random) -> str:
    """One to five words with or without spaces, now and then a line's end, a tab or nothing at all."""
    joints = (" ", " ", " ", "", "\n", "\t", ", ", "; ")
    words = draw.choices(WORDS, k=draw.choice((0, 1, 1, 1, 2, 2, 3, 5)))
    return "".join(word + draw.choice(joints) for word in words[:-1]) + "".join(words[-1:])


def package() -> Path:
    """The package's folder, unpacked and not installed."""
    folder = Path(tempfile.gettempdir()) / "llavakit-independent-scorers"
    if not (folder / "lmms_eval").is_dir():
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), PACKAGE]
        subprocess.run(command, check=True, timeout=120)
        with zipfile.ZipFile(next(folder.glob("lmms_eval-*.whl"))) as wheel:
            wheel.extractall(folder)
    return folder


def opened(folder: Path, path: str) -> Any:
    """One file of lmms_eval/tasks as a module, by its path."""
    name = "lmms_eval.tasks." + path.removesuffix(".py").replace("/", ".")
    spec = importlib.util.spec_from_file_location(name, folder / "lmms_eval" / "tasks" / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def stand_in(name: str, **content: Any) -> None:
    """An empty module in the place of one that the files import and scoring does not use."""
    module = ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module


def compared(
    name: str,
    cases: Sequence[Any],
    theirs: Callable[[Any], Any],
    ours: Callable[[Any], Any],
    known: Callable[[Any], bool] = lambda _: False,
    reason: str = "",
) -> dict[str, Any]:
    """Counts the cases that differ. known: whether a case is one of those that should be able to."""
    differ = [case for case in cases if theirs(case) != ours(case)]
    unexplained = [case for case in differ if not known(case)]
    told = f", all {len(differ):,} where {reason}" if differ and not unexplained else ""
    print(f"{name}: {len(differ):,} of {len(cases):,} differ{told}")
    if unexplained:
        print(f"  {len(unexplained):,} without a known reason, such as {unexplained[0]!r}")
    return {
        "rule": name,
        "cases": len(cases),
        "differ": len(differ),
        "reason": reason,
        "unexplained": len(unexplained),
    }


def vqa(folder: Path, draw: random.Random, answers: Sequence[str]) -> list[dict[str, Any]]:
    """The m4c normaliser, TextVQA's and VQAv2's accuracy."""
    processor = opened(folder, "_task_utils/vqa_eval_metric.py").EvalAIAnswerProcessor()
    textvqa, vqav2 = opened(folder, "textvqa/utils.py"), opened(folder, "vqav2/utils.py")
    cases = []
    for said in answers:
        same = draw.choice((0, 1, 2, 3, 4, 9, 10))
        people = [said] * same + [answer(draw) for _ in range(10 - same)]
        cases.append((said.upper() if draw.random() < 0.2 else said, people))

    def plain(case: tuple[str, list[str]]) -> float:
        doc = {"answers": list(case[1]), "question_id": 1}
        return round(textvqa.textvqa_process_results(doc, [case[0]])["exact_match"], 9)

    def with_ids(case: tuple[str, list[str]]) -> float:
        doc = {
            "answers": [{"answer": one, "answer_id": n} for n, one in enumerate(case[1])],
            "question_id": 1,
        }
        return round(vqav2.vqav2_process_results(copy.deepcopy(doc), [case[0]])["exact_match"], 9)

    def agreement(case: tuple[str, list[str]]) -> float:
        said, people = case
        normal = vqa_accuracy.official
        return round(vqa_accuracy.soft_accuracy(normal(said), [normal(one) for one in people]), 9)

    def all_agree(case: tuple[str, list[str]]) -> bool:
        return len({vqa_accuracy.bare(one) for one in case[1]}) == 1

    return [
        compared("m4c normaliser against lmms-eval's", answers, processor, vqa_accuracy.m4c),
        compared(
            "official normaliser against lmms-eval's m4c", answers, processor, vqa_accuracy.official,
            lambda said: any(mark in said for mark in ("'s", ",", "?")), "there is 's, a comma or a question mark",
        ),
        compared(
            "TextVQA accuracy against lmms-eval's", cases, plain,
            lambda case: round(vqa_accuracy.m4c_accuracy(*case), 9),
        ),
        compared("VQAv2 always normalised against lmms-eval's", cases, with_ids, agreement),
        compared(
            "official VQAv2 accuracy against lmms-eval's", cases, with_ids,
            lambda case: round(vqa_accuracy.official_accuracy(*case), 9), all_agree, "all ten people agree",
        ),
    ]  # fmt: skip


def yes_or_no(folder: Path, draw: random.Random, answers: Sequence[str]) -> list[dict[str, Any]]:
    """MME's reading and POPE's figures."""
    their_mme, their_pope = opened(folder, "mme/utils.py"), opened(folder, "pope/utils.py")
    questions = [Question(str(n), (), "", draw.choice(("yes", "no"))) for n in range(len(answers))]
    said = {question.id: text for question, text in zip(questions, answers, strict=True)}
    rows = [
        their_pope.pope_process_results({"answer": q.truth, "question_id": q.id}, [said[q.id]])[
            "pope_f1_score"
        ]
        for q in questions
    ]
    their_f1, their_accuracy = (
        round(100 * rule(rows), 9)
        for rule in (their_pope.pope_aggregate_f1_score, their_pope.pope_aggregate_accuracy)
    )
    figures = pope.others(questions, said)
    our_f1, our_accuracy = (round(figures[f"lmms-eval: {name}"], 9) for name in ("pooled F1", "accuracy"))
    return [
        compared(
            "MME by the official rule against lmms-eval's", answers, their_mme.parse_pred_ans,
            lambda text: mme.says(text.strip()) or "other",
            lambda text: "." in text or text.strip().lower() in ("y", "n"), "there is a full stop, or a bare y or n",
        ),
        compared(
            "MME by lmms-eval's rule", answers, their_mme.parse_pred_ans,
            lambda text: mme._lmms_says(text) or "other",
        ),
        compared("POPE pooled F1 by lmms-eval's rule", [their_f1], lambda value: value, lambda _: our_f1),
        compared("POPE accuracy by lmms-eval's rule", [their_accuracy], lambda value: value, lambda _: our_accuracy),
    ]  # fmt: skip


def letters(folder: Path, answers: Sequence[str]) -> list[dict[str, Any]]:
    """ScienceQA's whole answer or prefix, against every letter in turn."""
    theirs = opened(folder, "scienceqa/utils.py")
    doc = {"choices": ["w", "x", "y", "z"]}

    def right(text: str) -> list[bool]:
        return [
            bool(theirs.sqa_process_results({**doc, "answer": place}, [text])["exact_match"])
            for place in range(4)
        ]

    def ours(text: str) -> list[bool]:
        return [choices_lmms.whole_or_prefix(text) == letter for letter in "ABCD"]

    return [compared("ScienceQA's letter by lmms-eval's rule", answers, right, ours)]


def main() -> int:
    try:
        folder = package()
    except (OSError, subprocess.SubprocessError, StopIteration) as error:
        print(f"{PACKAGE} cannot be had: {error}")
        write_result("independent-scorers", {"package": PACKAGE, "had": False, "error": str(error)})
        return 1
    stand_in("loguru", logger=SimpleNamespace(info=print, warning=print, error=print, debug=print))
    for name in ("lmms_eval", "lmms_eval.tasks", "lmms_eval.tasks._task_utils"):
        stand_in(name)
    stand_in("lmms_eval.tasks._task_utils.file_utils", generate_submission_file=None)
    draw = random.Random(SEED)
    answers = [answer(draw) for _ in range(NUMBER)]
    rules = [*vqa(folder, draw, answers), *yes_or_no(folder, draw, answers), *letters(folder, answers)]
    write_result("independent-scorers", {"package": PACKAGE, "had": True, "seed": SEED, "rules": rules})
    return int(any(rule["unexplained"] for rule in rules))


if __name__ == "__main__":
    sys.exit(main())
