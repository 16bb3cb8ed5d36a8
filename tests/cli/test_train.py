"""`llavakit train` and `llavakit data` as a user meets them: words and exit codes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.training.materials import make_data, make_parts, make_recipe, row, write_rows

from llavakit.cli.main import main

ROOT = Path(__file__).parent.parent.parent


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of the program."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return (left.value.code or 0), said.out, said.err  # type: ignore[return-value]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe file of a tiny run."""
    folder = tmp_path_factory.mktemp("train")
    made = make_recipe(make_parts(folder), make_data(folder, 20), schedule={"max_steps": 3})
    (folder / "tiny.yaml").write_text(made.to_yaml())
    return folder / "tiny.yaml"


def test_train_ends_with_the_model_and_the_command_to_chat(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    code, said, _ = call(capsys, "train", recipe, "stages.1.schedule.max_steps=2", "--out", out)
    assert code == 0
    assert f"llavakit chat {out}/checkpoints/2-tune" in said and "report.html" in said
    assert "tune 2/2" in said and "tokens/s" in said
    code, said, _ = call(capsys, "train", recipe, "stages.1.schedule.max_steps=2", "--out", out, "--resume")
    assert code == 0 and "is finished; there is nothing to resume" in said
    code, _, wrong = call(capsys, "train", recipe, "--out", out)
    assert code == 2 and wrong.startswith("error: run folder") and "--resume" in wrong
    code, _, wrong = call(capsys, "train", recipe, "--out", out, "--resume")
    assert code == 2 and "stages.1.schedule.max_steps" in wrong


@pytest.mark.parametrize("answer", ["", "word " * 300])
def test_a_data_set_of_one_bad_row_is_one_sentence(
    tmp_path: Path, recipe: Path, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_rows(tmp_path / "bad.json", [row(1, None, "What?", answer)])
    change = json.dumps([{"path": str(data)}])
    code, _, wrong = call(capsys, "train", recipe, f"stages.0.data={change}", "--out", tmp_path / "run")
    assert code == 2 and wrong.count("\n") == 1 and "Traceback" not in wrong
    assert "row 0" in wrong and ("empty" in wrong or "limit" in wrong)


@pytest.mark.slow
def test_ctrl_c_leaves_with_130_and_the_exact_command_to_go_on(tmp_path: Path, recipe: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    program = [sys.executable, "-m", "llavakit.cli.main", "train", str(recipe)]
    arguments = [
        "stages.0.schedule.max_steps=null",
        "stages.0.schedule.epochs=200",
        "--out",
        str(tmp_path / "my run"),
    ]
    process = subprocess.Popen(
        [*program, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Stage 1"):
            break
    process.send_signal(signal.SIGINT)
    _, wrong = process.communicate(timeout=120)
    assert process.returncode == 130, wrong
    command = next(line.strip() for line in wrong.splitlines() if line.strip().startswith("llavakit train"))
    words = shlex.split(command)
    assert words[2:] == [str(recipe), *arguments, "--resume"]
    assert "Traceback" not in wrong and list((tmp_path / "my run" / "state").iterdir())


def test_check_names_every_bad_row_and_leaves_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = make_data(tmp_path, 6)
    code, said, _ = call(capsys, "data", "check", good)
    assert code == 0 and "6 rows, 6 usable (1 of them text only)" in said and "Every row can be used" in said
    Image.effect_noise((200, 200), 90).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:3000])
    rows = [row(0, "whole.jpg", "What?", "Noise."), row(1, "cut.jpg", "?", "Noise."), row(2, None, "?", "")]
    code, said, _ = call(capsys, "data", "check", write_rows(tmp_path / "bad.json", rows))
    assert code == 1 and "row 1 (id s1): " in said and "cut.jpg" in said and "row 2" in said
    assert "2 rows cannot be used: 1 picture, 1 row" in said
    code, _, wrong = call(capsys, "data", "check", tmp_path / "none.json")
    assert code == 2 and wrong.startswith("error: ")


def test_convert_goes_both_ways_and_overwrites_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(tmp_path, 7)
    lines, back = tmp_path / "data.jsonl", tmp_path / "back.json"
    assert call(capsys, "data", "convert", data, lines)[0] == 0
    assert len(lines.read_text().splitlines()) == 7
    assert call(capsys, "data", "convert", lines, back)[0] == 0
    assert json.loads(back.read_text()) == json.loads(data.read_text())
    before = back.read_bytes()
    code, _, wrong = call(capsys, "data", "convert", lines, back)
    assert code == 2 and "exists already" in wrong and "--force" in wrong and back.read_bytes() == before
    assert call(capsys, "data", "convert", lines, back, "--force")[0] == 0
    code, _, wrong = call(capsys, "data", "convert", back, back, "--force")
    assert code == 2 and "same file" in wrong
    code, _, wrong = call(capsys, "data", "convert", data, tmp_path / "data.csv")
    assert code == 2 and ".jsonl" in wrong


def test_convert_names_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_rows(tmp_path / "rows.json", [row(0, None, "What?", "Red."), row(1, None, "What?", "")])
    code, said, _ = call(capsys, "data", "convert", data, tmp_path / "rows.jsonl")
    assert code == 1 and "left out row 1" in said and "1 conversations" in said
