"""The program as a whole: its verbs explain themselves, and a mistake is one sentence and exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from llavakit import __version__
from llavakit.cli import main as program
from llavakit.cli.main import app, main
from llavakit.errors import LlavakitError
from llavakit.recipe import load_recipe, packaged_recipes


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the program."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from verbs(inner, (*path, name))
    else:
        yield path


VERBS = sorted(verbs(typer.main.get_command(app)))


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"llavakit {__version__}\n", "")


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help_with_an_example(
    verb: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run(capsys, *verb, "--help")
    assert code == 0
    assert f"llavakit {' '.join(verb)}" in out.split("Usage:")[1].split("\n", 1)[1], "no example line"


def test_a_mistake_is_one_sentence_on_stderr_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "recipe", "show", "smollm-135m")
    assert (code, out) == (2, "")
    assert err.startswith("error: no packaged recipe is called 'smollm-135m'; did you mean")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments", [["--debug", "recipe", "show", "x"], ["recipe", "show", "x", "--debug"]]
)
def test_debug_keeps_the_traceback_wherever_it_stands(arguments: list[str]) -> None:
    with pytest.raises(LlavakitError):
        main(arguments)


def test_a_verb_that_does_not_exist_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "trian")
    assert code == 2
    assert "trian" in err and "Traceback" not in err


def test_ctrl_c_leaves_with_130_and_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    other = typer.Typer()
    other.command()(interrupted)
    monkeypatch.setattr(program, "app", other)
    code, _, err = run(capsys)
    assert code == 130
    assert "Traceback" not in err


def test_the_packaged_recipes_are_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run(capsys, "recipe", "list")
    assert code == 0
    assert all(name in out for name in packaged_recipes())


@pytest.mark.parametrize("name", packaged_recipes())
def test_every_packaged_recipe_is_shown_as_itself(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = run(capsys, "recipe", "show", name)
    (tmp_path / "shown.yaml").write_text(out)
    assert code == 0 and load_recipe(str(tmp_path / "shown.yaml")) == load_recipe(name)


def test_a_shown_recipe_is_a_recipe_with_its_overrides(
    capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    code, out, _ = run(capsys, "recipe", "show", "llava-v1.5-7b", "stages.1.learning_rate.projector=1e-3")
    assert code == 0
    (tmp_path / "mine.yaml").write_text(out)
    assert load_recipe(str(tmp_path / "mine.yaml")).stages[1].learning_rate.projector == 1e-3
