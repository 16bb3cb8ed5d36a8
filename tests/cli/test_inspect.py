"""`llavakit inspect`: readable without colour, every problem told, no foreign file replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.training.materials import byte_tokenizer

from llavakit.cli.main import main

GOOD = {
    "id": "g",
    "image": "a.png",
    "conversations": [{"from": "human", "value": "<image>\nq\x1b"}, {"from": "gpt", "value": "ok"}],
}
EMPTY = {"id": "e", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": ""}]}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


def run(capsys: pytest.CaptureFixture[str], data: Path, tokenizer: str, *more: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["inspect", str(data), "--template", "mistral", "--tokenizer", tokenizer, *more])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def rows(tmp_path: Path, *content: Any) -> Path:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(content))
    return path


def test_rows_are_shown_with_marks_reasons_and_counts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tokenizer: str
) -> None:
    code, out, err = run(capsys, rows(tmp_path, GOOD, EMPTY), tokenizer, "--image-tokens", "9")
    assert (code, err) == (0, "")
    assert "a.png, 9 positions]" in out and "« ·o·k· ·</s>»" in out
    assert "row 1" in out and "✗ cannot be used: conversation 'e': the answer in turn 2 is empty" in out
    assert "in all: rows 2, with a problem 1, positions " in out and "for pictures 9" in out
    assert "\x1b" not in out and "\\x1b" in out


def test_one_row_can_be_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path, tokenizer: str) -> None:
    path = rows(tmp_path, EMPTY, GOOD, EMPTY)
    code, out, _ = run(capsys, path, tokenizer, "--row", "1")
    assert code == 0 and "row 1 (id g)" in out and "row 0" not in out and "row 2" not in out


@pytest.mark.parametrize(
    ("content", "more", "reason"),
    [
        (None, [], "is not there"),
        ('[{"id": 1, "conver', [], "is not whole JSON"),
        ("[]", [], "the file holds no row"),
        (json.dumps([GOOD]), ["--row", "4"], "the file holds no row 4"),
        (json.dumps([EMPTY]), [], "none of the 1 rows looked at can be tokenised"),
        (json.dumps([GOOD]), ["--template", "vicuna"], "there is no template 'vicuna'"),
        (json.dumps([GOOD]), ["--tokenizer", "./nowhere"], "no such file or folder"),
    ],
)
def test_when_there_is_nothing_to_show_it_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tokenizer: str,
    content: str | None,
    more: list[str],
    reason: str,
) -> None:
    path = tmp_path / "data.json"
    if content is not None:
        path.write_text(content)
    code, _, err = run(capsys, path, tokenizer, *more)
    assert code == 2 and err.startswith("error: ") and reason in err and err.count("\n") == 1


def test_the_page_replaces_a_page_of_its_own_and_nothing_else(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tokenizer: str
) -> None:
    path, page = rows(tmp_path, GOOD), tmp_path / "page.html"
    for _ in range(2):
        assert run(capsys, path, tokenizer, "--html", str(page))[0] == 0
    before = path.read_bytes()
    code, _, err = run(capsys, path, tokenizer, "--html", str(path))
    assert code == 2 and "say --force" in err and path.read_bytes() == before
    page.write_text("my notes")
    assert run(capsys, path, tokenizer, "--html", str(page))[0] == 2
    assert run(capsys, path, tokenizer, "--html", str(page), "--force")[0] == 0
    assert "<title>Tokens of data.json" in page.read_text()
    code, _, err = run(capsys, path, tokenizer, "--html", str(tmp_path / "no" / "page.html"))
    assert code == 2 and "there is no folder" in err
