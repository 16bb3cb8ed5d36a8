"""How well CHAIR by llavakit's words tells descriptions of a picture from descriptions of another one.

    OMP_NUM_THREADS=1 python benchmarks/chair.py FOLDER

FOLDER holds LLaVA-Bench (COCO) as LLaVA publishes it: `caps_boxes_coco2014_val_80.jsonl`, `qa90_questions.jsonl` and
`qa90_gpt4_answer.jsonl`. Scored are GPT-4's 30 detailed descriptions, which were written from the very annotations that
are the truth here, and each of the 80 pictures' five captions against the boxes and the other four; the peer of each is
the same texts against the next picture.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llavakit.evaluation.benchmark import Figures, Question
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.benchmarks.chair import SMALL, answer_id
from llavakit.evaluation.scoring.chair import objects_there
from results import write_result

CHAIR = load("chair_80")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def scored(pairs: Sequence[tuple[Question, str]]) -> Figures:
    figures = CHAIR.summarise([CHAIR.mark(question, text) for question, text in pairs])
    return {name: round(value, 2) for name, value in figures.items()}


def both(name: str, pairs: Sequence[tuple[Question, str]], step: int) -> dict[str, Any]:
    """The figures of texts about their own picture and about that of the text `step` further on."""
    own = scored(pairs)
    others = [text for _, text in pairs[step:] + pairs[:step]]
    wrong = scored([(question, text) for (question, _), text in zip(pairs, others, strict=True)])
    for whose, figures in (("its own picture", own), ("another picture", wrong)):
        told = ", ".join(f"{figure} {value:.2f}" for figure, value in figures.items())
        print(f"{name}, {whose}: {told}")
    return {"texts": len(pairs), "own": own, "another": wrong}


def left_out(row: dict[str, Any]) -> list[tuple[Question, str]]:
    """Every caption of a picture with what is there by the boxes and the other captions."""
    boxed, captions, pairs = [one["category"] for one in row["instances"]], row["captions"], []
    for place, caption in enumerate(captions):
        there = objects_there(boxed, captions[:place] + captions[place + 1 :])
        truth = {"sure": list(there.sure), "perhaps": list(there.perhaps)}
        pairs.append((Question(f"{row['id']}-{place}", (), "", truth), caption))
    return pairs


def main(folder: Path) -> None:
    questions = {question.id: question for question in CHAIR.read(folder, "long")}
    said = {row["question_id"]: row["text"] for row in lines(folder / "qa90_gpt4_answer.jsonl")}
    asked = [row for row in lines(folder / "qa90_questions.jsonl") if row["category"] == "detail"]
    gpt4 = [(questions[answer_id({"image": row["image"]})], said[row["question_id"]]) for row in asked]
    captions = [pair for row in lines(folder / SMALL.path) for pair in left_out(row)]
    content = {
        "GPT-4's descriptions": both("GPT-4's descriptions", gpt4, 1),
        "captions, one left out": both("captions, one left out", captions, 5),
    }
    told = content["captions, one left out"]
    ratio = told["another"]["CHAIR_i"] / told["own"]["CHAIR_i"]
    print(f"a caption's namings are invented {ratio:.0f} times as often for another picture as for its own")
    text = " ".join(text for _, text in gpt4)
    began, times = time.process_time(), 200
    for number in range(times):
        CHAIR.mark(gpt4[0][0], f"{number} {text}")
    took = (time.process_time() - began) / times
    rate = len(text.split()) / took
    print(f"{rate:,.0f} words/s on one core")
    write_result("chair", {**content, "captions_ratio": round(ratio, 1), "words_per_second": round(rate)})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
