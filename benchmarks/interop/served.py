"""What servers are asked, what llavakit answers, and whether the two say the same.

Two small models are trained on the quickstart's recipe and exported: one under `pad`, in the layout of
LlavaForConditionalGeneration, one under `anyres`, in that of LlavaNextForConditionalGeneration. A server that opens
the exports is asked about pictures of several sizes, once with an earlier exchange, and once without a picture. Texts
of greedy answers and the number of positions in every prompt are compared.

Knows llavakit and, by `server`, how to ask. Which server it is does not matter here.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from server import Server, picture_part

from llavakit import training
from llavakit.conversation.record import Conversation, Picture, Text, Turn
from llavakit.conversation.templates import get_template
from llavakit.conversation.tokenize import encode
from llavakit.model.exporting import Wishes, form
from llavakit.model.generation import Request, generate
from llavakit.model.llava import Llava
from llavakit.quickstart.demo import recipe_for
from llavakit.quickstart.materials import Amounts, make_materials
from llavakit.quickstart.scenes import paint, scenes

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the folder of all benchmarks, for the next line
from results import write_result

AMOUNTS = Amounts(training=240, validation=8, questions=16)
GRIDS = "[[1, 2], [2, 1], [2, 2]]"
CHANGES = {
    "pad": [f"stages.{stage}.image_policy=pad" for stage in (0, 1)],
    "anyres": [
        *(f"stages.{stage}.image_policy=anyres" for stage in (0, 1)),
        *(f"stages.{stage}.anyres.grids={GRIDS}" for stage in (0, 1)),
        "stages.1.learning_rate.newline=1e-3",
    ],
}
SIZES = ((96, 96), (192, 192), (192, 96), (110, 150), (64, 48), (300, 100))  # width, height
QUESTIONS = ("How many things are there?", "What do you see?", "Describe the picture in detail.")
EARLIER = ("Is there a cat?", "No")
MAX_TOKENS = 24
ANSWER_LIMIT = 120.0  # seconds

Start = Callable[[Path], AbstractContextManager[Server]]


@dataclass(frozen=True)
class Chat:
    """One question, perhaps about a picture, perhaps after an earlier exchange; the picture stands before the first."""

    question: str
    picture: Image.Image | None = None
    earlier: tuple[str, str] | None = None

    def _said(self) -> list[str]:
        return [*(self.earlier or ()), self.question]

    def conversation(self) -> Conversation:
        turns = []
        for number, text in enumerate(self._said()):
            shown = (Picture(0), Text("\n")) if number == 0 and self.picture is not None else ()
            turns.append(Turn(("user", "assistant")[number % 2], (*shown, Text(text))))
        images = () if self.picture is None else ("picture",)
        return Conversation("asked", "", images, tuple(turns), {})

    def messages(self) -> list[dict[str, Any]]:
        """The same in the OpenAI form."""
        written: list[dict[str, Any]] = []
        for number, text in enumerate(self._said()):
            content: Any = text
            if number == 0 and self.picture is not None:
                file = io.BytesIO()
                self.picture.save(file, "PNG")
                content = [picture_part(file.getvalue()), {"type": "text", "text": text}]
            written.append({"role": ("user", "assistant")[number % 2], "content": content})
        return written


def chats() -> Iterator[Chat]:
    """Three questions and one after another about a picture of every size, and one question without a picture."""
    for size, (scene, _) in zip(SIZES, scenes("benchmark/served", len(SIZES)), strict=True):
        picture = Image.fromarray(paint(scene, 2)).resize(size, Image.Resampling.BICUBIC)
        yield from (Chat(question, picture) for question in QUESTIONS)
        yield Chat(QUESTIONS[0], picture, EARLIER)
    yield Chat(QUESTIONS[1])


def exported(folder: Path, policy: str) -> Path:
    """The model trained under an image policy, exported below `folder`, where it may lie already."""
    target = folder / policy
    if not target.exists():
        print(f"training and exporting under {policy}", flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            make_materials(Path(temporary) / "materials", AMOUNTS, 0)
            recipe = recipe_for(Path(temporary) / "materials", 0, CHANGES[policy])
            result = training.run(recipe, Path(temporary) / "run")
            form("hf").write(Llava.from_pretrained(result.checkpoint), target, Wishes())
    return target


def own_answers(model: Llava, asked: Sequence[Chat]) -> tuple[list[str], list[int]]:
    """llavakit's greedy answers, and the positions of every prompt."""
    template = get_template(model.settings.template, model.tokenizer)
    requests = []
    for chat in asked:
        pictures = [] if chat.picture is None else [chat.picture]
        lengths = [model.image_length(*picture.size, len(pictures)) for picture in pictures]
        prompt = encode(chat.conversation(), template, model.tokenizer, lengths, prompt=True)
        requests.append(Request(prompt, pictures))
    answers = generate(model, requests, max_new_tokens=MAX_TOKENS)
    return answers, [len(request.prompt.ids) for request in requests]


def case(model_folder: Path, start: Start) -> dict[str, Any]:
    """What one model says here and in the server; space around an answer does not count."""
    asked = list(chats())
    answers, lengths = own_answers(Llava.from_pretrained(model_folder, torch.float32).eval(), asked)
    with start(model_folder) as server:
        found = [server.ask(chat.messages(), MAX_TOKENS, ANSWER_LIMIT) for chat in asked]
        seconds_to_start = server.seconds
    partings = [
        {
            "question": chat.question,
            "size": chat.picture and chat.picture.size,
            "llavakit": mine,
            "server": its,
        }
        for chat, mine, its in zip(asked, answers, [one.text.strip() for one in found], strict=True)
        if mine != its
    ]
    counted = [one.prompt_tokens for one in found]
    return {
        "architecture": json.loads((model_folder / "config.json").read_text())["architectures"][0],
        "questions": len(asked),
        "equal answers": len(asked) - len(partings),
        "different answers among them": len(set(answers)),
        "prompts of the same length": sum(mine == its for mine, its in zip(lengths, counted, strict=True)),
        "lengths here and in the server": sorted(set(zip(lengths, counted, strict=True))),
        "seconds to start": round(seconds_to_start, 1),
        "seconds of the first answer": round(found[0].seconds, 2),
        "seconds of an answer, median": round(statistics.median(one.seconds for one in found), 2),
        "partings": partings,
    }


def check(name: str, start: Start, versions: dict[str, str | None], models: Path | None) -> int:
    """Asks both models, writes benchmarks/results/DATE-NAME.json, and gives 0 when all was equal.

    models: where the exports lie, or are put; a folder of their own when None.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = models or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        cases = {}
        for policy in CHANGES:
            cases[policy] = case(exported(folder, policy), start)
            print(policy, json.dumps(cases[policy], ensure_ascii=False), flush=True)
    write_result(name, {"server": versions, "cases": cases})
    return int(any(
        one[what] != one["questions"]
        for one in cases.values()
        for what in ("equal answers", "prompts of the same length")
    ))  # fmt: skip
