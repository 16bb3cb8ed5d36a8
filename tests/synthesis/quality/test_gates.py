"""What the settings say is what the gates do, and what they found is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.synthesis.quality.planted import reasons, said

from llavakit.errors import LlavakitError
from llavakit.synthesis.quality import Settings, check, identity, tally

LEAKING = said("The caption says that two dogs play.")
HONEST = said("Two dogs play on the lawn.")


def test_a_gate_rejects_notes_or_is_off() -> None:
    for action, expected in (("reject", ["reject"]), ("note", ["note"]), ("off", [])):
        (verdicts,) = check([LEAKING], Settings.of({"leak": action}))
        assert [one.action for one in verdicts] == expected


def test_verdicts_stand_in_the_candidates_order() -> None:
    found = check([HONEST, LEAKING, said("A frisbee flies.")])
    assert [len(one) for one in found] == [0, 1, 0]
    assert tally(found) == {"leak/1: names its source (reject)": 1}


def test_settings_are_read_from_yaml_and_written_into_the_card(tmp_path: Path) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text("leak: off\nform: note\nwords: {detail: [10, 90]}\necho_words: 9\n")
    settings = Settings.load(path)
    assert (settings.leak, settings.form, settings.echo_words) == ("off", "note", 9)
    assert settings.words_of("detail") == (10, 90)
    assert settings.words_of("brief") == Settings().words_of("brief")
    told = json.loads(json.dumps(identity(settings)))
    assert Settings.of(told["settings"]) == settings
    assert reasons(LEAKING, "leak", **told["settings"]) == []


@pytest.mark.parametrize(
    "text",
    [
        "leek: note",
        "leak: maybe",
        "words: {detail: 3}",
        "words: {detail: [9, 1]}",
        "echo_words: many",
        "- 1",
        "{",
    ],
)
def test_settings_that_do_not_fit_are_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text(text)
    with pytest.raises(LlavakitError, match=r"gates\.yaml"):
        Settings.load(path)
