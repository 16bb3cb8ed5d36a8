"""AnyRes against `pad` at the same base resolution, on scenes whose things are small.

    python benchmarks/anyres.py

Scenes of 192 x 192 pixels hold things of 24 to 40 pixels. The quickstart's tower reads tiles of 96: under `pad` it sees
the picture at half its size, under `anyres` that and four tiles at full size. Both train the quickstart's two stages on
the same data and answer the same questions about scenes that no training saw. Prints exact answers, positions a
picture, and seconds; writes benchmarks/results/DATE-anyres.json.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from pathlib import Path

from PIL import Image

from llavakit import training
from llavakit.conversation.record import Conversation, Picture, Text, Turn
from llavakit.data.readers.llava import write_llava
from llavakit.model.llava import Llava
from llavakit.quickstart import questions
from llavakit.quickstart.demo import examine, shares
from llavakit.quickstart.scenes import draw_scene_plan, paint
from llavakit.recipe import load_recipe
from results import write_result

SCALE, EXTENTS = 2, ((12, 14), (17, 20))
PICTURES, QUESTIONS = 1500, 160
TASKS = {"presence": questions.presence, "colour": questions.colour, "counting": questions.counting}
POLICIES = {
    "pad": [],
    "anyres": [
        *(f"stages.{stage}.image_policy=anyres" for stage in (0, 1)),
        *(f"stages.{stage}.anyres.grids=[[2, 2]]" for stage in (0, 1)),
        "stages.1.learning_rate.newline=1e-3",
    ],
}


def talk(name: str, image: str, asked: list[tuple[str, str]]) -> Conversation:
    turns: list[Turn] = []
    for number, (question, answer) in enumerate(asked):
        ahead = (Picture(0), Text("\n")) if number == 0 else ()
        turns += [Turn("user", (*ahead, Text(question))), Turn("assistant", (Text(answer),))]
    return Conversation(name, "", (image,), tuple(turns))


def make_data(folder: Path) -> None:
    """Training data of both stages and the examination, below `folder`."""
    rng, align, instruct = random.Random("anyres/training"), [], []
    for number in range(PICTURES):
        scene = draw_scene_plan(rng, extents=EXTENTS)
        name = f"{number:05d}.png"
        Image.fromarray(paint(scene, SCALE)).save(folder / name)
        align.append(talk(f"align-{number}", name, [questions.detail(scene.things, rng)]))
        asked = questions.dialogue(scene.things, rng, 8)
        instruct.append(talk(f"instruct-{number}", name, [*asked, questions.detail(scene.things, rng)]))
    write_llava(align, folder / "align.json")
    write_llava(instruct, folder / "instruct.json")
    rows: list[str] = []
    for task, write in TASKS.items():
        rng = random.Random(f"anyres/exam/{task}")
        wanted = len(rows) + QUESTIONS
        while len(rows) < wanted:
            scene = draw_scene_plan(rng, extents=EXTENTS)
            asked_one = write(scene.things, rng)
            if asked_one is not None:
                name = f"exam-{task}-{len(rows)}.png"
                Image.fromarray(paint(scene, SCALE)).save(folder / name)
                question, answer = asked_one
                rows.append(json.dumps({"image": name, "question": question, "answer": answer, "task": task}))
    (folder / "questions.jsonl").write_text("\n".join(rows), "utf-8")


if __name__ == "__main__":
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_data(folder)
        for name, changes in POLICIES.items():
            usual = [
                *(f"stages.{stage}.validation=null" for stage in (0, 1)),
                *(f"stages.{stage}.data.0.images={folder}" for stage in (0, 1)),
                f"stages.0.data.0.path={folder / 'align.json'}",
                f"stages.1.data.0.path={folder / 'instruct.json'}",
                *(f"stages.{stage}.image_policy=pad" for stage in (0, 1)),
            ]
            recipe = load_recipe("quickstart", [*usual, *changes])
            began = time.monotonic()
            checkpoint = training.run(recipe, folder / name).checkpoint
            seconds = time.monotonic() - began
            examined = examine(checkpoint, folder, folder / f"{name}-examined")
            side = SCALE * 96
            found[name] = {
                **shares(examined.marked.verdicts),
                "positions": Llava.from_pretrained(checkpoint).image_length(side, side),
                "seconds": round(seconds, 1),
            }
            print(name, json.dumps(found[name]), flush=True)
    write_result("anyres", {"pictures": PICTURES, "questions_a_task": QUESTIONS, "found": found})
