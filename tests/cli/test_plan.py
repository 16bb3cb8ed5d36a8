"""`llavakit plan` as it is typed."""

from __future__ import annotations

import json

import pytest
from tests.cli.test_main import run


def test_the_plan_of_a_known_model_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    code, out, _ = run(capsys, "plan", "llava-v1.5-7b", "--gpus", "8", "--memory", "80GB")
    assert code == 0
    for words in (
        "6,738,415,616",
        "AdamW moments",
        "divided among 8",
        "activation checkpointing",
        "558,000 rows",
    ):
        assert words in out


def test_machines_read_it_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "plan", "llava-v1.5-7b", "--samples", "tune=1000x800", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["stages"][1]["data"]["rows"] == 1000
    assert told["stages"][1]["memory"]["peak"]["rows"]["gradients"] == 4 * (6738415616 + 20979712)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--memory", "much"], "--memory is 'much', expected a number and a unit"),
        (["--samples", "tune"], "--samples is 'tune', expected STAGE=ROWS"),
        (["model.language_model=nobody/nothing-1b"], "name a local folder that holds its config.json"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, out, err = run(capsys, "plan", "llava-v1.5-7b", *arguments)
    assert (code, out) == (2, "")
    assert words in err and "Traceback" not in err
