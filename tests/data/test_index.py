"""The index: every row is either used, with its exact length, or skipped, with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavakit.conversation.tokenize import Encoded
from llavakit.data.index import (
    Index,
    commonest,
    file_hash,
    fingerprint,
    load_index,
    open_index,
    refuse_mostly_bad,
    same_reason,
    save_index,
    source_names,
)
from llavakit.data.shelf import Shelf
from llavakit.data.writing import Writing
from llavakit.errors import LlavakitError
from llavakit.images.pixels import picture_size
from llavakit.recipe import DataSource
from tests.data.conftest import stage, writing_of
from tests.training.materials import make_data, row, write_rows


def index_of(path: Path, tokenizer: Any, folder: Path | None = None, **changes: Any) -> tuple[Index, Shelf]:
    chosen = stage(path, **changes)
    return open_index(chosen.data, writing_of(chosen, tokenizer), folder)


def test_the_length_is_what_the_row_takes_when_it_is_trained_on(tmp_path: Path, tokenizer: Any) -> None:
    data = make_data(tmp_path, 20)
    chosen = stage(data)
    writing = writing_of(chosen, tokenizer)
    index, shelf = open_index(chosen.data, writing)
    assert len(index.rows) == len(shelf) == 20 and not index.skipped
    for number, one in enumerate(index.rows):
        conversation = shelf[number]
        encoded = writing.encode(conversation, [picture_size(image) for image in conversation.images])
        assert one.length == len(encoded.ids) and one.id == str(conversation.id) == f"s{number}"
        assert one.supervised == sum(label >= 0 for label in encoded.labels)
        assert one.pictures == len(conversation.images) == (number % 5 != 4)


def test_a_random_order_is_as_long_as_its_longest(tmp_path: Path, tokenizer: Any) -> None:
    data = make_data(tmp_path, 12)
    chosen = stage(data, picture_order="random", template="vicuna_v1", max_length=256)
    writing = writing_of(chosen, tokenizer)
    index, shelf = open_index(chosen.data, writing)
    for number, one in enumerate(index.rows):
        conversation = shelf[number]
        sizes = [picture_size(image) for image in conversation.images]
        drawn = [writing.encode(conversation, sizes, draw) for draw in range(100, 140)]
        assert one.length == max(len(encoded.ids) for encoded in drawn)
        orders = {tuple(encoded.ids) for encoded in drawn}
        assert len(orders) == (2 if conversation.images else 1)


def test_orders_of_different_length_count_as_the_longer(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [Encoded([5] * n, [-100] * 2 + [5] * (n - 2), [], 0) for n in (7, 4)]
    monkeypatch.setattr(Writing, "encode_orders", lambda *_: both)
    index, _ = index_of(make_data(tmp_path, 1), tokenizer)
    assert (index.rows[0].length, index.rows[0].supervised) == (7, 2)


def test_bad_rows_are_skipped_with_kind_and_reason(tmp_path: Path, tokenizer: Any) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "zero.png").write_bytes(b"")
    two = row(4, "a.png", "<image> What?", "Red.")
    rows = [
        row(0, "a.png", "What?", "Red."),
        row(1, "zero.png", "What?", "Red."),
        row(2, "gone.png", "What?", "Red."),
        row(3, "a.png", "What?", "  "),
        two,
        row(5, None, "What?", "very " * 90),
        row(6, None, "What?", "Fine."),
    ]
    index, shelf = index_of(write_rows(tmp_path / "rows.json", rows), tokenizer)
    assert [one.id for one in index.rows] == ["s0", "s6"] and len(shelf) == 2
    kinds = {one.position: one.kind for one in index.skipped}
    assert kinds == {1: "picture", 2: "picture", 3: "row", 4: "row", 5: "too long"}
    reasons = {one.position: one.reason for one in index.skipped}
    assert "zero.png" in reasons[1] and "gone.png" in reasons[2] and "<image>" in reasons[4]


def test_a_long_conversation_is_cut_at_a_turn_and_counted(tmp_path: Path, tokenizer: Any) -> None:
    long = row(0, None, "First?", "One.")
    for number in range(30):
        long["conversations"] += row(0, None, f"And {number}?", "More.")["conversations"]
    index, _ = index_of(
        write_rows(tmp_path / "rows.json", [long]), tokenizer, template="vicuna_v1", max_length=256
    )
    (one,) = index.cut
    assert one.turns_dropped > 0 and one.length <= 256


def test_an_index_is_kept_and_found_again(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(i, None, "What?", "Red." if i % 3 else "") for i in range(9)]
    data = write_rows(tmp_path / "rows.json", rows)
    index, shelf = index_of(data, tokenizer, tmp_path / "kept")
    monkeypatch.setattr("llavakit.data.index._build", lambda *_: pytest.fail("indexed again"))
    again, again_shelf = index_of(data, tokenizer, tmp_path / "kept")
    assert again == index and index.skipped
    assert [again_shelf[i] for i in range(len(again_shelf))] == [shelf[i] for i in range(len(shelf))]


def test_the_fingerprint_follows_everything_a_length_depends_on(tmp_path: Path, tokenizer: Any) -> None:
    data = make_data(tmp_path, 3)

    def key(**changes: Any) -> str:
        chosen = stage(data, **changes)
        return fingerprint(chosen.data, [file_hash(data)], writing_of(chosen, tokenizer))

    first = key()
    assert first == key() == key(learning_rate={"language_model": 1.0})
    different = [
        key(template="vicuna_v1"),
        key(max_length=100),
        key(picture_order="random"),
        key(image_policy="square"),
        key(data=[{"path": str(data), "limit": 2}]),
    ]
    data.write_text(data.read_text() + " ")
    different.append(key())
    assert len({first, *different}) == 7


def test_an_index_file_that_is_not_whole_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    index, _ = index_of(make_data(tmp_path, 5), tokenizer)
    path = tmp_path / "index.jsonl"
    save_index(index, path)
    assert load_index(path) == index
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    with pytest.raises(LlavakitError, match="delete the file"):
        load_index(path)


def test_a_missing_file_is_named(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(LlavakitError, match=r"nowhere\.json: No such file"):
        index_of(tmp_path / "nowhere.json", tokenizer)


def test_a_file_cut_in_half_is_named(tmp_path: Path, tokenizer: Any) -> None:
    data = make_data(tmp_path, 5)
    data.write_text(data.read_text()[: len(data.read_text()) // 2])
    with pytest.raises(LlavakitError, match=data.name):
        index_of(data, tokenizer)


def test_limit_takes_the_first_rows(tmp_path: Path, tokenizer: Any) -> None:
    data = make_data(tmp_path, 9)
    index, _ = index_of(data, tokenizer, data=[{"path": str(data), "limit": 4}])
    assert [one.id for one in index.rows] == ["s0", "s1", "s2", "s3"] and index.sources[0].rows == 4


def test_sources_of_one_name_are_told_apart() -> None:
    sources = [DataSource(path="a/x.json"), DataSource(path="b/x.json"), DataSource(path="c.json", name="c")]
    assert source_names(sources) == ["x.json [0]", "x.json [1]", "c"]


def test_rows_without_anything_usable_stop_with_the_commonest_reason(tmp_path: Path, tokenizer: Any) -> None:
    rows = [row(0, None, "What?", ""), row(1, "gone-1.png", "?", "a"), row(2, "gone-2.png", "?", "a")]
    index, _ = index_of(write_rows(tmp_path / "rows.json", rows), tokenizer)
    example, count = commonest(index.skipped)
    assert count == 2 and example.position == 1
    with pytest.raises(LlavakitError, match=r"3 of 3 rows.*2 times.*row 1.*gone-1\.png.*llavakit data check"):
        refuse_mostly_bad(index, "align", 1.0)
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(LlavakitError, match="holds no rows"):
        refuse_mostly_bad(index_of(tmp_path / "none.json", tokenizer)[0], "align", 1.0)


def test_reasons_that_differ_in_names_and_numbers_are_one_reason() -> None:
    assert same_reason("picture", "a/b.png: 12 bytes") == same_reason("picture", "c/d.jpg: 7 bytes")
    assert same_reason("picture", "a/b.png: cut short") != same_reason("picture", "a/b.png: missing file")


def test_a_shelf_gives_back_what_it_was_given(tmp_path: Path, tokenizer: Any) -> None:
    odd = row(0, None, 'Ünïcødé \U0001f600 <image_> \\n "q"', "line\nline\ttab")
    odd["id"] = 17
    _, shelf = index_of(write_rows(tmp_path / "rows.json", [odd]), tokenizer)
    conversation = shelf[0]
    assert conversation.id == 17
    said = json.dumps([part.text for turn in conversation.turns for part in turn.parts])  # type: ignore[union-attr]
    assert said == json.dumps([odd["conversations"][0]["value"], odd["conversations"][1]["value"]])
