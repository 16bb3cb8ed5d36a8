"""Whether llama.cpp makes of an exported Llava what llavakit does.

    python benchmarks/interop/llama_cpp.py [--venv FOLDER]

Trains a small Llava with a SigLIP tower for some steps, exports it as GGUF in three number types, asks the same
questions about the same pictures here and in llama.cpp, and compares: the ids of the prompt, the picture's embeddings,
the scores behind the prompt, and greedy answers, with the place where two part. Then, without training, a linear
projector, a CLIP tower that is forced, and pictures that llama.cpp has to scale or pad.

llama-cpp-python is built from source into a virtual environment of its own, outside the repository (--venv; below the
system's temporary folder when not given): some ten to twenty minutes on one core, once. `llama_cpp_reader.py` runs in
it. The results are written to benchmarks/results/ under today's date.

On a CPU llama.cpp rounds pixels and the weights of the patches to 16 bits and takes GELU from a table of such numbers,
whatever the file holds; that moves embeddings by some 5e-4 of their size. They are compared twice: with llavakit's,
and with llavakit's under the same rounding. A table jumps, and two numbers that differ in the last bit may fall on two
sides of a jump; one more case has SiLU in the tower, which has no table. Leaves with 1 when its embeddings
under that rounding differ by more than LIMIT, when the ids of a prompt differ, or when greedy answers in 32 bits do.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from llavakit import training
from llavakit.conversation.record import Conversation, Picture, Text, Turn
from llavakit.conversation.templates import Written, get_template
from llavakit.conversation.tokenize import IMAGE_TOKEN_ID, encode
from llavakit.images.pixels import to_tiles
from llavakit.model.gguf_export import export_gguf
from llavakit.model.llava import Llava
from llavakit.model.stops import stop_ids
from llavakit.quickstart.demo import recipe_for
from llavakit.quickstart.materials import Amounts, make_materials
from llavakit.quickstart.scenes import paint, scenes

HERE = Path(__file__).parent
WEIGHTS = "package:llavakit/quickstart/weights"
PACKAGE = "llama-cpp-python==0.3.36"
MARKER = "<__media__>"
LIMIT = 1e-4
ROUNDED = "embeddings: largest difference under llama.cpp's rounding"
ANSWER = 24  # tokens of an answer at most
PICTURES = 8
QUESTIONS = ("How many things are there?", "What do you see?", "Describe the picture in detail.")
AMOUNTS = Amounts(training=240, validation=8, questions=16)


@dataclass(frozen=True)
class Asked:
    """One question about one picture, and what llavakit makes of it."""

    prompt: str
    picture: Image.Image
    texts: list[list[int]]
    embeddings_PD: Tensor
    rounded_PD: Tensor  # the embeddings with llama.cpp's rounding
    scores_K: Tensor
    answer: list[int]
    margins: list[float]  # by how much the best score led the second, a token


def reader_python(folder: Path) -> Path:
    """The Python of an environment with llama-cpp-python, which is made where it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    found = subprocess.run([python, "-P", "-c", "import llama_cpp"], capture_output=True)
    if found.returncode != 0:
        print(f"building {PACKAGE} into {folder}, which takes some ten to twenty minutes")
        slowly = {**os.environ, "MAKEFLAGS": "-j1", "CMAKE_BUILD_PARALLEL_LEVEL": "1"}
        nice = ["nice", "-n", "19", str(python), "-m", "pip", "install", "--quiet", PACKAGE, "numpy"]
        subprocess.run(nice, env=slowly, check=True)
    return python


def siglip_tower(folder: Path, act: str = "gelu_pytorch_tanh") -> str:
    """A SigLIP tower of random weights and this activation, with the shape of the quickstart's stand-in."""
    torch.manual_seed(0)
    shape = {
        "hidden_size": 160,
        "intermediate_size": 640,
        "num_hidden_layers": 5,
        "num_attention_heads": 5,
        "hidden_act": act,
    }
    SiglipVisionModel(
        SiglipVisionConfig(**shape, image_size=96, patch_size=16, vision_use_head=False)
    ).save_pretrained(folder)
    processor = {
        "image_processor_type": "SiglipImageProcessor", "size": {"height": 96, "width": 96}, "resample": 3,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


def trained(folder: Path, tower: str) -> Llava:
    """The quickstart's recipe on few pictures, the tower learning too."""
    make_materials(folder / "materials", AMOUNTS, 0)
    changes = [f"model.vision_tower={tower}", "stages.1.learning_rate.vision_tower=0.0005"]
    result = training.run(recipe_for(folder / "materials", 0, changes), folder / "run")
    return Llava.from_pretrained(result.checkpoint).eval()


def untrained(tower: str, projector: str) -> Llava:
    return Llava.compose(
        vision_tower=tower,
        language_model=f"{WEIGHTS}/language_model",
        projector=projector,
        template="tokenizer",
    ).eval()


class TableGelu(nn.Module):
    """GELU as llama.cpp's table on a CPU has it: in its tanh form, of an argument of 16 bits, in 16 bits."""

    def forward(self, x: Tensor) -> Tensor:
        found = nn.functional.gelu(x.half().float(), approximate="tanh").half().float()
        return torch.where(x <= -10, 0.0, torch.where(x >= 10, x, found))


def rounded(model: Llava) -> Llava:
    """A copy of the model that rounds where llama.cpp does; a CLIP tower's activation stays its own."""
    twin = copy.deepcopy(model)
    for module in (*twin.vision_tower.modules(), *twin.projector.modules()):
        for name, child in module.named_children():
            if "GELU" in type(child).__name__ and "Quick" not in type(child).__name__:
                setattr(module, name, TableGelu())
    for name, parameter in twin.vision_tower.named_parameters():
        if name.endswith("patch_embedding.weight"):
            parameter.data = parameter.data.half().float()
    return twin


@torch.no_grad()
def ask(model: Llava, twin: Llava, question: str, picture: Image.Image) -> Asked:
    """llavakit's side, token by token."""
    template = get_template(model.settings.template, model.tokenizer)
    asked = Conversation("asked", "", ("picture",), (Turn("user", (Picture(0), Text("\n" + question))),), {})
    pieces = template.write(asked, prompt=True)
    prompt = "".join(piece.text if isinstance(piece, Written) else MARKER for piece in pieces)
    length = model.image_length(*picture.size)
    ids = encode(asked, template, model.tokenizer, [length], prompt=True).ids
    first = ids.index(IMAGE_TOKEN_ID)
    texts = [part for part in (ids[:first], ids[first + length :]) if part]
    tiles = to_tiles(picture, model.settings.image_policy, model.pixels)
    embeddings, under = model.encode_images(tiles)[0], twin.encode_images(tiles.half().float())[0]
    ends, answer, margins, begun = stop_ids(model), [], [], None
    while len(answer) < ANSWER:
        whole = torch.tensor([*ids, *answer])
        rows = model.place(whole, embeddings)[None]
        output = model.language_model.base_model(
            inputs_embeds=rows,
            position_ids=torch.arange(len(whole))[None],
            cu_seqlens=[0, len(whole)],
            use_cache=False,
        )
        scores = model.head(output.last_hidden_state[0, -1:])[0]
        begun = scores if begun is None else begun
        best = scores.topk(2)
        answer.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
        if answer[-1] in ends:
            break
    assert begun is not None
    return Asked(prompt, picture, texts, embeddings, under, begun, answer, margins)


def read(
    python: Path, folder: Path, model: Llava, asked: Sequence[Asked], outtype: str, force: bool = False
) -> dict[str, Any]:
    """llama.cpp's side of the same questions."""
    export = export_gguf(model, folder / "gguf", "model", outtype, force)
    questions = []
    for number, one in enumerate(asked):
        rgb = folder / f"{number}.rgb"
        rgb.write_bytes(one.picture.tobytes())
        questions.append({"prompt": one.prompt, "size": one.picture.size, "rgb": str(rgb)})
    job = {
        "text": str(export.text),
        "mmproj": str(export.mmproj),
        "context": 512,
        "count": ANSWER,
        "questions": questions,
    }
    (folder / "job.json").write_text(json.dumps(job))
    reader = [
        str(python),
        "-P",
        str(HERE / "llama_cpp_reader.py"),
        str(folder / "job.json"),
        str(folder / "out.json"),
    ]
    done = subprocess.run(reader, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"llama.cpp failed ({done.returncode}): {done.stderr[-2000:]}")
    return json.loads((folder / "out.json").read_text())


def compare(model: Llava, asked: Sequence[Asked], found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How far the two are apart over all questions, and where answers part."""
    ours = torch.stack([one.embeddings_PD for one in asked])
    theirs = torch.tensor([one["embeddings"] for one in found])
    gap = (ours - theirs).abs()
    left = (torch.stack([one.rounded_PD for one in asked]) - theirs).abs()
    scores = torch.stack([one.scores_K for one in asked]) - torch.tensor([one["scores"] for one in found])
    partings = []
    for one, other in zip(asked, found, strict=True):
        place = next(
            (
                n
                for n, pair in enumerate(zip(one.answer, other["answer"], strict=False))
                if len(set(pair)) > 1
            ),
            None,
        )
        if place is None and len(one.answer) != len(other["answer"]):
            place = min(len(one.answer), len(other["answer"]))
        if place is not None:
            partings.append({
                "token": place,
                "margin": round(one.margins[min(place, len(one.margins) - 1)], 5),
                "llavakit": model.tokenizer.decode(one.answer),
                "llama.cpp": model.tokenizer.decode(other["answer"]),
            })  # fmt: skip
    return {
        "questions": len(asked),
        "prompts with the same ids": sum(
            one.texts == other["texts"] for one, other in zip(asked, found, strict=True)
        ),
        "embeddings: largest difference": float(gap.max()),
        ROUNDED: float(left.max()),
        "embeddings: largest value": float(ours.abs().max()),
        "embeddings: lowest cosine": float(torch.cosine_similarity(ours, theirs, dim=-1).min()),
        "scores: largest difference": float(scores.abs().max()),
        "answers that are the same": len(asked) - len(partings),
        "tokens answered": sum(len(one.answer) for one in asked),
        "partings": partings,
    }


def case(
    python: Path, model: Llava, pictures: Sequence[Image.Image], outtype: str, force: bool = False
) -> dict[str, Any]:
    twin = rounded(model)
    asked = [ask(model, twin, question, picture) for picture in pictures for question in QUESTIONS]
    with tempfile.TemporaryDirectory() as folder:
        return compare(model, asked, read(python, Path(folder), model, asked, outtype, force)["answers"])


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = Path(tempfile.gettempdir()) / "llavakit-llama-cpp"
    arguments.add_argument("--venv", type=Path, default=default, help="where llama-cpp-python is, or is put")
    python = reader_python(arguments.parse_args().venv)
    drawn = [Image.fromarray(paint(scene)) for scene, _ in scenes("benchmark/llama_cpp", PICTURES)]
    with tempfile.TemporaryDirectory() as temporary:
        tower = siglip_tower(Path(temporary) / "tower")
        model = trained(Path(temporary), tower)
        cases = {
            f"trained, SigLIP, {outtype}": case(python, model, drawn, outtype)
            for outtype in ("f32", "f16", "q8_0")
        }
        cases["trained, SigLIP, f32, pictures twice as large"] = case(
            python, model, [one.resize((192, 192), Image.Resampling.BICUBIC) for one in drawn], "f32"
        )
        cases["trained, SigLIP, f32, pictures of 96 by 64"] = case(
            python, model, [one.crop((0, 16, 96, 80)) for one in drawn], "f32"
        )
        cases["untrained, SigLIP, linear projector, f32"] = case(
            python, untrained(tower, "linear"), drawn, "f32"
        )
        plain = untrained(siglip_tower(Path(temporary) / "plain", "silu"), "mlp2x_gelu")
        cases["untrained, SigLIP with SiLU, f32"] = case(python, plain, drawn, "f32")
        clip = untrained(f"{WEIGHTS}/vision_tower", "mlp2x_gelu")
        cases["untrained, CLIP (forced), f32"] = case(python, clip, drawn, "f32", force=True)
    write_results(cases)
    trained_f32 = cases["trained, SigLIP, f32"]
    alike = all(
        trained_f32[what] == trained_f32["questions"]
        for what in ("prompts with the same ids", "answers that are the same")
    )
    return 0 if alike and cases["untrained, SigLIP with SiLU, f32"][ROUNDED] <= LIMIT else 1


def write_results(cases: dict[str, dict[str, Any]]) -> None:
    """A dated JSON file with everything and a Markdown page with the table; the page is printed too."""
    results = HERE.parent / "results"
    results.mkdir(exist_ok=True)
    about = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "reader": PACKAGE,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "limit of the embeddings' difference under llama.cpp's rounding": LIMIT,
    }
    name = f"{about['date']}-llama-cpp"
    (results / f"{name}.json").write_text(
        json.dumps({"about": about, "cases": cases}, indent=1, ensure_ascii=False) + "\n"
    )
    lines = [
        f"# llavakit and llama.cpp, {about['date']}",
        "",
        "; ".join(f"{k}: {v}" for k, v in about.items()),
        "",
    ]
    lines += [
        "| case | same prompts | embeddings: difference | under llama.cpp's rounding | largest value | lowest cosine "
        "| scores: difference | same answers |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for title, found in cases.items():
        asked = found["questions"]
        lines.append(
            f"| {title} | {found['prompts with the same ids']} of {asked} "
            f"| {found['embeddings: largest difference']:.2g} "
            f"| {found[ROUNDED]:.2g} "
            f"| {found['embeddings: largest value']:.2g} "
            f"| {found['embeddings: lowest cosine']:.7f} | {found['scores: largest difference']:.2g} "
            f"| {found['answers that are the same']} of {asked} |"
        )
    page = "\n".join(lines) + "\n"
    (results / f"{name}.md").write_text(page)
    print(page)


if __name__ == "__main__":
    sys.exit(main())
