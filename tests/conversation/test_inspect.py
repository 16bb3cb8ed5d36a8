"""What is shown is what is trained on, in texts that are safe to show."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from llavakit.conversation.inspect import (
    PlacedPicture,
    Token,
    counts,
    inspect_conversation,
    row_counts,
    to_html,
    visible,
)
from llavakit.conversation.record import Conversation
from llavakit.conversation.templates import get_template
from llavakit.conversation.tokenize import encode
from tests.conversation.conversations import talk
from tests.conversation.tokenizers import byte_level, llama

WRITTEN = talk((0, "\nWhat is é"), "The cat 😀", ("and ", 1), "é<b>&</b>")


@pytest.mark.parametrize(("name", "tokenizer"), [("vicuna_v1", llama()), ("qwen", byte_level())])
def test_the_cells_are_the_ids_labels_and_pictures(name: str, tokenizer: object) -> None:
    template = get_template(name)
    row = inspect_conversation(WRITTEN, template, tokenizer, [4, 6], position=3)
    encoded = encode(WRITTEN, template, tokenizer, [4, 6])
    tokens = [cell for cell in row.cells if isinstance(cell, Token)]
    assert [cell.id for cell in tokens] == [token for token in encoded.ids if token >= 0]
    assert row.pictures == tuple(
        PlacedPicture(span.index, WRITTEN.images[span.index], span.start, span.length)
        for span in encoded.images
    )
    assert (row.positions, row.picture_positions) == (len(encoded.ids), 10)
    assert row.supervised == sum(label >= 0 for label in encoded.labels)
    assert row_counts(row) == f"{row.positions} positions, {row.supervised} supervised, 10 for 2 pictures"
    texts = [cell.text for cell in tokens]
    assert " cat" in texts
    assert {"\\xc3", "\\xa9"} <= set(texts)


def test_a_row_that_cannot_be_encoded_is_its_problem() -> None:
    row = inspect_conversation(talk("hi", ""), get_template("qwen"), byte_level(), [], position=7)
    assert (row.position, row.cells) == (7, ()) and row.problem is not None and "empty" in row.problem
    assert counts([row])["with a problem"] == 1


def test_what_is_cut_is_counted() -> None:
    row = inspect_conversation(talk("a", "b", "c", "d"), get_template("mistral"), llama(), [], max_length=20)
    assert row.exchanges_cut == 1 and row_counts(row).endswith("; 1 exchange cut from the end")


def test_nothing_shown_can_move_a_cursor_or_turn_the_reading() -> None:
    assert visible("a\x1b[31m\r\n\u202e\ud83d é😀") == "a\\x1b[31m\\r⏎\\u202e\\ud83d é😀"


def test_the_page_escapes_marks_and_holds_its_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    files = (str(tmp_path / "a.png"), str(tmp_path / "gone.png"))
    shown = Conversation("<i>", "", files, WRITTEN.turns)
    row = inspect_conversation(shown, get_template("qwen"), byte_level(), [4, 6])
    wrong = inspect_conversation(talk("hi", ""), get_template("qwen"), byte_level(), [])
    html = to_html([row, wrong], "Tokens of <x>")
    assert "<i>" not in html and "&lt;i&gt;" in html and "Tokens of &lt;x&gt;" in html
    assert html.count("«<b>") == 2 + 1  # two answers, and the legend
    assert "data:image/png;base64," in html and "gone.png" in html
    assert "the answer in turn 2 is empty" in html
    assert "[picture 1: " in html and "4 positions" in html
    assert "http" not in html
