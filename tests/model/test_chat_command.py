"""`llavakit chat` from outside: what is printed where, and how a mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from llavakit.cli.chat import chat_command
from llavakit.errors import LlavakitError
from llavakit.model.llava import Llava

app = typer.Typer()
app.command()(chat_command)


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("chat")
    Llava.compose(vision_tower=parts["clip"], language_model=parts["qwen"]).save_pretrained(root / "model")
    Image.radial_gradient("L").save(root / "grey.png")
    return root


def run(*arguments: object, typed: str | None = None):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=typed)


def answers(folder: Path, question: str) -> str:
    model = Llava.from_pretrained(folder / "model")
    return model.chat(question, [folder / "grey.png"], max_new_tokens=5)


def test_a_question_prints_the_answer_alone(folder):
    result = run(
        folder / "model", "--image", folder / "grey.png", "-q", "What is this?", "--max-new-tokens", 5
    )
    assert (result.exit_code, result.stdout) == (0, answers(folder, "What is this?") + "\n")


def test_a_conversation_understands_its_commands(folder):
    typed = [
        f"/image {folder}/grey.png", "What is this?", "", "/clear", "/image nowhere.png", "/image", "/jump",
        f"/image {folder}/grey.png", "What is this?", "And now?",
    ]  # fmt: skip
    result = run(folder / "model", "--max-new-tokens", 5, typed="\n".join(typed) + "\n")
    assert result.exit_code == 0, result.output
    shown = result.output.replace("\n", "")
    assert shown.count(answers(folder, "What is this?").replace("\n", "")) >= 2
    for words in ("256x256", "begins anew", "nowhere.png: no such file", "/image needs a file", "no /jump"):
        assert words in shown


def test_leaving_reads_no_further(folder):
    result = run(folder / "model", "--max-new-tokens", 5, typed="/exit\n/image nowhere.png\n")
    assert result.exit_code == 0 and "nowhere" not in result.output


def test_mistakes_are_sentences(folder, tmp_path):
    for arguments, words in [
        ((tmp_path / "nowhere",), "nowhere: no such checkpoint folder"),
        ((folder / "model", "-i", "nowhere.png"), "nowhere.png: no such file"),
        ((folder / "grey.png",), "this is a file"),
        ((folder / "model", "-q", "x", "--top-p", 0), "top_p is 0.0"),
    ]:
        error = run(*arguments).exception
        assert isinstance(error, LlavakitError) and words in str(error)


def test_a_video_is_shown_by_some_of_its_frames_and_says_of_how_many(folder):
    frames = [Image.new("RGB", (30, 20), (20 * n, 9, 9)) for n in range(12)]
    frames[0].save(folder / "clip.gif", save_all=True, append_images=frames[1:])
    model = Llava.from_pretrained(folder / "model")
    expected = model.chat("What moves?", videos=[folder / "clip.gif"], max_new_tokens=5)
    result = run(folder / "model", "--video", folder / "clip.gif", "-q", "What moves?", "--max-new-tokens", 5)
    assert (result.exit_code, result.stdout) == (0, expected + "\n")
    assert "8 of 12 frames" in result.stderr.replace("\n", "")
    typed = f"/video\n/video {folder}/clip.gif\nWhat moves?\n"
    shown = run(folder / "model", "--max-new-tokens", 5, typed=typed).output.replace("\n", "")
    assert (
        "8 of 12 frames" in shown and expected.replace("\n", "") in shown and "/video needs a file" in shown
    )


def test_int8_says_what_it_rounded_and_answers(folder):
    result = run(folder / "model", "--int8", "-q", "What is this?", "--max-new-tokens", 5)
    model = Llava.from_pretrained(folder / "model")
    model.quantize_int8()
    assert (result.exit_code, result.stdout) == (0, model.chat("What is this?", max_new_tokens=5) + "\n")
    assert "int8: 15 layers" in result.stderr
