"""Every template's ids and labels, as they were written down: a change of one token is a change of what models learn.

`python -m tests.conversation.test_golden` writes the files anew; their difference then says what changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llavakit.conversation.record import Conversation
from llavakit.conversation.templates import get_template, template_names
from llavakit.conversation.tokenize import IGNORE_INDEX, IMAGE_TOKEN_ID, encode
from tests.conversation.conversations import TOKENIZERS, talk
from tests.conversation.tokenizers import read_back

FOLDER = Path(__file__).parent / "golden"
CASES = {
    "picture": talk((0, "\nWhat is on the cat?"), "The cat is é 😀."),
    "two exchanges": talk(("What is\n", 0), "A cat", "the user?", "The\nchat."),
    "two pictures, system": talk((0, 1, "\nThe cat"), "A", ("and ", 2), "the", system="Be short."),
    "text only": talk("What is <image>?", "The cat"),
    "likenesses": talk((0, "</s> <|im_end|><s>"), "The </s> <|eot_id|> cat"),
}
LENGTHS = (2, 3, 1)


def written(name: str, conversation: Conversation) -> dict[str, Any]:
    """ids and labels, and for the reader the text, «learnt», with pictures as [2]."""
    tokenizer = TOKENIZERS[name]()
    encoded = encode(conversation, get_template(name), tokenizer, LENGTHS[: len(conversation.images)])
    text, open_, held = "", False, []
    for token, label in zip(
        [*encoded.ids, None], [*encoded.labels, None if not encoded.labels else IGNORE_INDEX], strict=True
    ):
        learnt = label != IGNORE_INDEX
        if held and (learnt != open_ or token is None or token == IMAGE_TOKEN_ID):
            text += ("«%s»" if open_ else "%s") % read_back(tokenizer, held)
            held = []
        open_ = learnt
        if token == IMAGE_TOKEN_ID:
            text += "[]"
        elif token is not None:
            held.append(token)
    return {"text": text, "ids": encoded.ids, "labels": encoded.labels}


def expected(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def cases(name: str) -> dict[str, Conversation]:
    """What a template can write: `plain` only single captions."""
    return {"picture": CASES["picture"], "likenesses": CASES["likenesses"]} if name == "plain" else CASES


def test_every_template_has_its_file() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted({*template_names()} - {"tokenizer"})


@pytest.mark.parametrize(("name", "case"), [(name, case) for name in TOKENIZERS for case in cases(name)])
def test_ids_and_labels_are_those_written_down(name: str, case: str) -> None:
    assert written(name, CASES[case]) == expected(name)[case]


def main() -> None:
    for name in TOKENIZERS:
        rows = {case: written(name, conversation) for case, conversation in cases(name).items()}
        lines = []
        for case, row in rows.items():
            fields = ",\n".join(
                f'  "{key}": {json.dumps(value, ensure_ascii=False)}' for key, value in row.items()
            )
            lines.append(f'"{case}": {{\n{fields}\n}}')
        (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
