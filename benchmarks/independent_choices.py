"""Rules that read an option's letter, beside lmms-eval's own functions. Run by `independent_scorers.py`.

Answers are made of letters in all sorts of marks, of the phrases that the rules look for, and of the options' texts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from independent import compared, opened, phrase
from llavakit.evaluation.benchmark import Question
from llavakit.evaluation.benchmarks import ai2d, mmstar, realworldqa
from llavakit.evaluation.scoring import choices, choices_lmms

_TEXTS = ("a red cat", "dogs", "The blue car", "B", "two", "a red", "Stop sign", "it's late", "on A street")
_MARKS = (("", ""), ("", "."), ("(", ")"), ("", ":"))
_RARE = (
    ("", ","),
    ("", ")"),
    ("", ")."),
    ("(", ")."),
    *((":", after) for after in ("", ",", ".", ")", ").")),
)
_WORDS = (
    *(f"{before}{letter}{after}" for letter in "ABCDE" for before, after in _MARKS),
    *(f"{before}{letter}{after}" for letter in "ABE" for before, after in _RARE),
    *(
        "a",
        "b.",
        "(c)",
        "Answer:",
        "Option",
        "NASA",
        "Because",
        "Apple",
        "Z",
        "2",
        "two",
        "Two.",
        "x_y",
        "é",
        "选B",
    ),
    *("zero\0", "\0", "_", "...", "?!", "'", '"', "*", "("),
    *(
        "the answer is",
        "The Answer is",
        "I choose",
        "best option is",
        "option",
        "答案是",
        "the correct choice is A.",
    ),
    *(form for text in _TEXTS for form in (text, text.upper(), f"{text}.")),
)


def letters(lmms: Path, older: Path, number: int, seed: int) -> list[dict[str, Any]]:
    """Every rule of `choices_lmms`, what AI2D, RealWorldQA and MMStar make of them, and MMStar's own."""
    draw = random.Random(seed)
    looked_for = opened(lmms, "lmms_eval/tasks/_task_utils/mcq_extract.py")._ANSWER_PHRASES
    words = (*_WORDS, *looked_for, *(text.capitalize() for text in looked_for))
    answers = [phrase(draw, words) for _ in range(number)]
    with_options = [(text, _options(draw)) for text in answers]
    return [
        *_bare(lmms, answers),
        *_with_options(lmms, with_options),
        _ai2d(lmms, [(text, draw.choice("ABCD")) for text in answers]),
        *_realworldqa(lmms, draw, answers),
        *_mmstar(lmms, older, draw, answers),
    ]


def _options(draw: random.Random) -> dict[str, str]:
    return choices.lettered(draw.sample(_TEXTS, draw.choice((2, 3, 4))))


def _bare(lmms: Path, answers: Sequence[str]) -> list[dict[str, Any]]:
    """Rules that look at the answer alone, each of four letters tried for the truth."""
    sqa, seed = (
        opened(lmms, "lmms_eval/tasks/scienceqa/utils.py"),
        opened(lmms, "lmms_eval/tasks/seedbench/utils.py"),
    )
    pick = opened(lmms, "lmms_eval/tasks/_task_utils/mcq_extract.py").extract_mcq_answer

    def scienceqa_right(text: str) -> list[bool]:
        doc = {"choices": ["w", "x", "y", "z"]}
        return [bool(sqa.sqa_process_results({**doc, "answer": n}, [text])["exact_match"]) for n in range(4)]

    def seed_right(text: str) -> list[bool]:
        docs = [{"answer": letter, "data_type": "image", "question_id": "1"} for letter in "ABCD"]
        rows = [seed.seed_process_result(doc, [text])["seed_all"] for doc in docs]
        return [bool(seed.seed_aggregation_result([row])) for row in rows]

    return [
        compared(
            "ScienceQA's letter by lmms-eval's rule", answers, scienceqa_right,
            lambda text: [choices_lmms.whole_or_prefix(text) == letter for letter in "ABCD"],
        ),
        compared(
            "SEED-Bench's first character by lmms-eval's rule", answers, seed_right,
            lambda text: [choices_lmms.first_character(text) == letter for letter in "ABCD"],
        ),
        compared(
            "the letter of the surest form by lmms-eval's rule", answers,
            lambda text: [pick(text, choices=list(some)) or None for some in ("ABCD", "AB", "ABCDE")],
            lambda text: [choices_lmms.extracted(text, tuple(some)) for some in ("ABCD", "AB", "ABCDE")],
        ),
    ]  # fmt: skip


def _with_options(lmms: Path, cases: Sequence[tuple[str, dict[str, str]]]) -> list[dict[str, Any]]:
    """Rules that know the options' texts: MMBench's without a judge, and MMMU's, its draw taken for nothing."""
    judge = opened(lmms, "lmms_eval/tasks/mmbench/mmbench_evals.py").MMBench_Evaluator()
    pick = opened(lmms, "lmms_eval/tasks/_task_utils/mcq_extract.py").extract_mcq_answer
    mmmu = opened(lmms, "lmms_eval/tasks/_task_utils/mmmu_mcq_utils.py")
    mmmu.random = SimpleNamespace(choice=lambda _: None)

    def static(case: tuple[str, dict[str, str]]) -> str | None:
        text, options = case
        # the texts are lowered in the dictionary that is given
        found = judge.can_infer(text, dict(options)) or pick(text, choices=sorted(options))
        return found or None

    return [
        compared("MMBench's static letter by lmms-eval's rule", cases, static, lambda case: choices_lmms.static(*case)),
        compared(
            "MMMU's letter by lmms-eval's rule", cases,
            lambda case: mmmu.parse_mmmu_multi_choice_response(case[0], list(case[1]), case[1]),
            lambda case: choices_lmms.mmmu(*case),
        ),
    ]  # fmt: skip


def _ai2d(lmms: Path, cases: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The filter, the blanks that a task takes off, and the comparison."""
    exact = opened(lmms, "lmms_eval/api/metrics.py").exact_match_hf_evaluate
    opened(lmms, "lmms_eval/filters/extraction.py")
    reader = opened(lmms, "lmms_eval/tasks/ai2d/utils.py").MultiChoiceRegexFilter()

    def theirs(case: tuple[str, str]) -> float:
        said = reader.apply([[case[0]]], [{}])[0].strip()
        same = exact([said], [case[1]], ignore_case=True, ignore_punctuation=True)
        return float(same["exact_match"])

    options = choices.lettered(["w", "x", "y", "z"])

    def ours(case: tuple[str, str]) -> float:
        return ai2d.mark(Question("0", (), "", case[1], meta={"options": options}), case[0]).credit

    return compared("AI2D", cases, theirs, ours)


def _realworldqa(lmms: Path, draw: random.Random, answers: Sequence[str]) -> list[dict[str, Any]]:
    """The rule of today, and that of 2024 with its two filters."""
    exact = opened(lmms, "lmms_eval/api/metrics.py").exact_match_hf_evaluate
    opened(lmms, "lmms_eval/filters/extraction.py")
    opened(lmms, "lmms_eval/filters/transformation.py")
    theirs = opened(lmms, "lmms_eval/tasks/realworldqa/utils.py")
    numbers, texts = theirs.NumberWordsToDigitsFilter(), theirs.MultiChoiceRegexFilter()
    cases = []
    for said in answers:
        question = (
            f"Which?\n{choices.option_lines(draw.sample(_TEXTS, 3))}" if draw.random() < 0.7 else "Which?"
        )
        truth = draw.choice(("A", "b", "C", "2", "Stop sign", "two", phrase(draw, _WORDS).strip() or "0"))
        letter = truth.upper() in ("A", "B", "C", "D")
        meta = {"question": question, "answer": truth}
        kept = truth.upper() if letter else truth
        cases.append((said, Question("0", (), "", kept, category="letter" if letter else "word", meta=meta)))

    def of_2024(case: tuple[str, Question]) -> float:
        said = texts.apply(numbers.apply([[case[0]]], [{}]), [case[1].meta])[0].strip()
        same = exact([said], [case[1].meta["answer"]], ignore_case=True, ignore_punctuation=True)
        return 100 * float(same["exact_match"])

    return [
        compared(
            "RealWorldQA", cases,
            lambda case: theirs.realworldqa_process_results(case[1].meta, [case[0].strip()])["exact_match"],
            lambda case: realworldqa.mark(case[1], case[0]).credit,
        ),
        compared(
            "RealWorldQA by the rule of lmms-eval's releases of 2024", cases, of_2024,
            lambda case: realworldqa.others([case[1]], {"0": case[0]})["lmms-eval 0.2: exact_match"],
        ),
    ]  # fmt: skip


def _mmstar(lmms: Path, older: Path, draw: random.Random, answers: Sequence[str]) -> list[dict[str, Any]]:
    """MMStar's own rule as an older release has it, and today's average over sub-categories."""
    own = opened(older, "lmms_eval/tasks/mmstar/utils.py").exact_match
    theirs = opened(lmms, "lmms_eval/tasks/mmstar/utils.py")
    parts = [(category, part) for category, those in theirs.eval_type_dict.items() for part in those]
    rows = []
    for number, said in enumerate(answers):
        category, part = draw.choices(parts, weights=range(1, 19))[0]
        question = Question(
            str(number), (), "", draw.choice("ABCD"), category=category, meta={"l2_category": part}
        )
        rows.append((said, question))
    docs = [{"index": q.id, "answer": q.truth, "category": q.category, **q.meta} for _, q in rows]
    scores = [
        theirs.mmstar_process_results(doc, [said.strip()]) for doc, (said, _) in zip(docs, rows, strict=True)
    ]
    figures = mmstar.others([q for _, q in rows], {q.id: said for said, q in rows})

    def average(name: str) -> float:
        return round(
            100 * float(theirs.mmstar_aggregate_results([row[name] for row in scores if name in row])), 9
        )

    return [
        compared(
            "MMStar by its own rule, as lmms-eval 0.2.4 has it", rows, lambda row: own(row[0], row[1].truth),
            lambda row: mmstar.mark(row[1], row[0]).credit,
        ),
        compared(
            "MMStar's averages by lmms-eval's rule", ["average", *theirs.eval_type_dict], average,
            lambda name: round(figures[f"lmms-eval: {name}"], 9),
        ),
    ]  # fmt: skip
