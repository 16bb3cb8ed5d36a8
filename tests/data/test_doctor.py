"""The doctor finds every row that training would skip or drop, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavakit.data.doctor import check
from llavakit.errors import LlavakitError
from tests.training.materials import make_data, row, write_rows


def test_a_sound_data_set_has_no_findings(tmp_path: Path, tokenizer: Any) -> None:
    data = make_data(tmp_path, 15)
    found = check(data, template="vicuna_v1", tokenizer=tokenizer)
    assert not found.findings
    assert (found.rows, found.conversations, found.text_only, found.pictures) == (15, 15, 3, 12)
    assert len(found.lengths) == 15 and sum(found.picture_sizes.values()) == 12


def test_every_bad_row_is_found_also_behind_a_sound_header(tmp_path: Path) -> None:
    Image.effect_noise((200, 200), 90).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:3000])
    rows = [
        row(0, "whole.jpg", "What?", "Noise."),
        row(1, "cut.jpg", "What?", "Noise."),
        row(2, "gone.jpg", "What?", "Noise."),
        row(3, None, "What?", ""),
        row(4, "whole.jpg", "<image> What?", "Noise."),
        row(4, "cut.jpg", "And?", "Noise."),
    ]
    seen: list[int] = []
    found = check(write_rows(tmp_path / "rows.json", rows), progress=seen.append)
    assert [(one.position, one.kind) for one in found.findings] == [
        (1, "picture"),
        (2, "picture"),
        (3, "row"),
        (4, "row"),
        (5, "picture"),
    ]
    assert found.conversations == 1 and seen == [1, 2, 3, 4, 5, 6]


def test_pictures_may_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    make_data(tmp_path / "pictures", 4)
    data = tmp_path / "data.json"
    (tmp_path / "pictures" / "data-0.json").rename(data)
    assert len(check(data).findings) == 4
    assert not check(data, tmp_path / "pictures").findings


def test_no_rows_and_no_file_are_errors(tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(LlavakitError, match="holds no rows"):
        check(tmp_path / "none.json")
    with pytest.raises(LlavakitError, match=r"gone\.json"):
        check(tmp_path / "gone.json")
