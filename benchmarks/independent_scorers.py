"""Do scorers written by others give what ours give? `python benchmarks/independent_scorers.py`

Ten thousand random answers (words, numbers, contractions, marks in odd places) go through the scoring functions of
lmms-eval and of the package `anls`, and through llavakit's. Each line says how many differ, and how many of those for
the reason that is known; a difference without a known reason fails the run. Where a package cannot be had, the result
says so. Letters of options are in `independent_choices.py`.
"""

from __future__ import annotations

import copy
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from independent import compared, opened, package, phrase, stand_in_for_lmms_eval
from independent_choices import letters
from llavakit.evaluation.benchmark import Question
from llavakit.evaluation.benchmarks import chartqa, mme, pope
from llavakit.evaluation.scoring import vqa_accuracy
from llavakit.evaluation.scoring.anls import anls
from llavakit.evaluation.scoring.relaxed import relaxed
from results import write_result

NUMBER, SEED = 10_000, 0
PACKAGES = ("lmms-eval==0.7.3", "lmms-eval==0.2.4", "anls==0.0.2")
_PIECES = (
    "yes no Yes No yes. no. y n not two ten none a an the dog dog's cats man's dont cant someonell im ive shes "
    "hadnt've 'ow'sat y'alld've A B C D A. B. C. A) (B) E red blue light-blue 3. 3.5 19.sep $2.50 1,000 1,,2 50% "
    "7 x,y what? well, t-shirt black/white unanswerable ... it's"
)
WORDS = _PIECES.split()


def vqa(folder: Path, draw: random.Random, answers: Sequence[str]) -> list[dict[str, Any]]:
    """The m4c normaliser, TextVQA's and VQAv2's accuracy."""
    processor = opened(folder, "lmms_eval/tasks/_task_utils/vqa_eval_metric.py").EvalAIAnswerProcessor()
    textvqa, vqav2 = (
        opened(folder, "lmms_eval/tasks/textvqa/utils.py"),
        opened(folder, "lmms_eval/tasks/vqav2/utils.py"),
    )
    cases = []
    for said in answers:
        same = draw.choice((0, 1, 2, 3, 4, 9, 10))
        people = [said] * same + [phrase(draw, WORDS) for _ in range(10 - same)]
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
    their_mme, their_pope = (
        opened(folder, "lmms_eval/tasks/mme/utils.py"),
        opened(folder, "lmms_eval/tasks/pope/utils.py"),
    )
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


def charts(folder: Path, draw: random.Random) -> list[dict[str, Any]]:
    """Relaxed accuracy, whose two arguments stand in another order in every tool, and what ChartQA makes of it."""
    theirs = opened(folder, "lmms_eval/tasks/chartqa/utils.py").relaxed_correctness
    cases = [(_figure(draw), _figure(draw)) for _ in range(NUMBER // 2)]
    cases += [(_near(draw, target), target) for target in (_figure(draw) for _ in range(NUMBER // 2))]
    return [
        compared(
            "relaxed accuracy against lmms-eval's", cases,
            lambda case: theirs(prediction=case[0], target=case[1]), lambda case: relaxed(*case),
        ),
        compared(
            "ChartQA as a task of lmms-eval, which takes blanks off the answer", cases,
            lambda case: float(theirs(case[0].strip(), case[1])),
            lambda case: chartqa.mark(Question("1", (), "", case[1]), case[0]).credit,
        ),
    ]  # fmt: skip


def _figure(draw: random.Random) -> str:
    number = draw.choice((0, 1, 5, 20, 100, 1999, 2001, 0.5, 12.5, 1e6, -3))
    if draw.random() < 0.3:
        return draw.choice(("Yes", "blue", "BLUE", "", "nan", "inf", "-inf", "%", "1e3", "1_000", "٣"))
    before, after = (
        draw.choice(("", "", "", " ", "$", "+")),
        draw.choice(("", "", "", "%", "%%", " ", "\n", ".", " m")),
    )
    return f"{before}{draw.choice((f'{number}', f'{number:,}', f'{number:.2f}'))}{after}"


def _near(draw: random.Random, target: str) -> str:
    """The target off by up to a tenth, or in capitals, or with a blank."""
    try:
        return f"{float(target) * draw.choice((0.9, 0.949, 0.95, 0.951, 1, 1.049, 1.05, 1.051)):.6g}"
    except ValueError:
        return draw.choice((target, target.upper(), f"{target} ", target.rstrip("%")))


def documents(lmms: Path, alone: Path, draw: random.Random) -> list[dict[str, Any]]:
    """ANLS by lmms-eval's function, and by the package of that name, which counts lengths and the half otherwise."""
    theirs = opened(lmms, "lmms_eval/api/metrics.py").anls
    opened(alone, "anls/metrics/dist.py")
    package_score = opened(alone, "anls/metrics/score.py").anls_score
    cases = []
    for _ in range(NUMBER):
        truths = [phrase(draw, WORDS) for _ in range(draw.choice((1, 1, 2, 3)))]
        cases.append((_misread(draw, draw.choice(truths)), truths))

    def otherwise(case: tuple[str, list[str]]) -> bool:
        return anls(*case) == 0.5 or any(text != " ".join(text.split()) for text in (case[0], *case[1]))

    return [
        compared(
            "ANLS against lmms-eval's", cases, lambda case: round(theirs(case[1], [case[0]])["anls"], 9),
            lambda case: round(anls(*case), 9),
        ),
        compared(
            "ANLS against the package anls", cases, lambda case: round(package_score(*case), 9),
            lambda case: round(anls(*case), 9), otherwise,
            "blanks beyond single ones count as length in the common rule alone, or the similarity is exactly a half",
        ),
    ]  # fmt: skip


def _misread(draw: random.Random, text: str) -> str:
    """The text with some of its characters dropped, doubled, changed or in another case."""
    share = draw.choice((0, 0.1, 0.3, 0.5, 0.7))
    said = "".join(
        draw.choice(("", letter * 2, "x", letter.swapcase(), f" {letter}"))
        if draw.random() < share
        else letter
        for letter in text
    )
    return draw.choice((said, said, said.upper(), f" {said}\n"))


def main() -> int:
    try:
        lmms, older, alone = map(package, PACKAGES)
    except (OSError, subprocess.SubprocessError, StopIteration) as error:
        print(f"one of {', '.join(PACKAGES)} cannot be had: {error}")
        write_result("independent-scorers", {"packages": PACKAGES, "had": False, "error": str(error)})
        return 1
    stand_in_for_lmms_eval()
    draw = random.Random(SEED)
    answers = [phrase(draw, WORDS) for _ in range(NUMBER)]
    rules = [
        *vqa(lmms, draw, answers),
        *yes_or_no(lmms, draw, answers),
        *letters(lmms, older, NUMBER, SEED),
        *charts(lmms, draw),
        *documents(lmms, alone, draw),
    ]
    write_result("independent-scorers", {"packages": PACKAGES, "had": True, "seed": SEED, "rules": rules})
    return int(any(rule["unexplained"] for rule in rules))


if __name__ == "__main__":
    sys.exit(main())
