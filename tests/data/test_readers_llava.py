"""LLaVA's format: what each row means, what is a problem of one row, what is a fault of the file, and that what is
written is read again."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavakit.conversation.record import Conversation, ConversationError, Part, Picture, Text, Turn
from llavakit.data.readers import json_rows
from llavakit.data.readers.llava import Row, read_llava, write_llava
from llavakit.errors import LlavakitError


def said(*values: str, first: str = "human") -> list[dict[str, str]]:
    """Turns by turns."""
    speakers = ("human", "gpt") if first == "human" else ("gpt", "human")
    return [{"from": speakers[number % 2], "value": value} for number, value in enumerate(values)]


def read(tmp_path: Path, row: dict[str, Any]) -> Row:
    """What one row is read as; JSON and JSONL read it alike."""
    (tmp_path / "rows.json").write_text(json.dumps([row]), encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (listed,) = read_llava(tmp_path / "rows.json")
    (lined,) = read_llava(tmp_path / "rows.jsonl")
    assert listed == lined
    return listed


def good(tmp_path: Path, row: dict[str, Any]) -> Conversation:
    """The conversation of a row without a problem."""
    found = read(tmp_path, row)
    assert found.problem is None and found.conversation is not None
    return found.conversation


def test_the_place_of_a_picture_is_a_part_of_the_turn(tmp_path: Path) -> None:
    row = {"id": "a", "image": "x/a.png", "conversations": said("<image>\nWhat?", "A cat"), "source": "coco"}
    assert good(tmp_path, row) == Conversation(
        "a",
        "",
        (str(tmp_path / "x" / "a.png"),),
        (Turn("user", (Picture(0), Text("\nWhat?"))), Turn("assistant", (Text("A cat"),))),
        {"image": "x/a.png", "source": "coco"},
    )


@pytest.mark.parametrize("image", ["a.png", ["a.png"]])
def test_a_name_and_a_list_of_one_name_are_the_same(tmp_path: Path, image: Any) -> None:
    found = good(tmp_path, {"id": 1, "image": image, "conversations": said("What?\n<image>", "A cat")})
    assert found.images == (str(tmp_path / "a.png"),)
    assert found.turns[0].parts == (Text("What?\n"), Picture(0))


@pytest.mark.parametrize("extra", [{}, {"image": None}, {"image": ""}, {"image": []}])
def test_a_row_without_pictures_is_text(tmp_path: Path, extra: dict[str, Any]) -> None:
    found = good(tmp_path, {"id": 1, **extra, "conversations": said("hi", "a word: <image>")})
    assert found.images == () and list(found.placed()) == []
    assert found.turns[1].text == "a word: <image>"


def test_where_no_picture_is_named_the_sign_is_a_word(tmp_path: Path) -> None:
    found = good(tmp_path, {"id": 1, "conversations": said("what does <image> mean?", "A place")})
    assert found.turns[0].parts == (Text("what does <image> mean?"),)


def test_pictures_stand_where_each_is_placed_in_any_turn(tmp_path: Path) -> None:
    row = {
        "id": 1,
        "image": ["a.png", "b.png", "c.png"],
        "conversations": said("<image><image>\nWhich?", "First", "And <image>?", "No <image>"),
    }
    found = good(tmp_path, row)
    assert found.turns[0].parts == (Picture(0), Picture(1), Text("\nWhich?"))
    assert found.turns[2].parts == (Text("And "), Picture(2), Text("?"))
    assert found.turns[3].parts == (Text("No <image>"),)


def test_pictures_without_a_place_stand_before_the_first_words(tmp_path: Path) -> None:
    row = {"id": 1, "image": ["a.png", "b.png"], "conversations": said("Which?", "First")}
    assert good(tmp_path, row).turns[0].parts == (
        Picture(0),
        Text("\n"),
        Picture(1),
        Text("\n"),
        Text("Which?"),
    )
    later = {"id": 1, "image": "a.png", "conversations": said("hi", "yes", "This: <image>", "A cat")}
    assert list(good(tmp_path, later).placed()) == [0]
    assert good(tmp_path, later).turns[0].parts == (Text("hi"),)


@pytest.mark.parametrize("name", [7, "7", "000000033471", 0])
def test_an_id_keeps_its_kind(tmp_path: Path, name: str | int) -> None:
    found = good(tmp_path, {"id": name, "conversations": said("hi", "yes")}).id
    assert found == name and type(found) is type(name)


def test_a_row_without_an_id_is_called_by_its_position(tmp_path: Path) -> None:
    assert good(tmp_path, {"id": None, "conversations": said("hi", "yes")}).id == 0
    assert good(tmp_path, {"conversations": said("hi", "yes")}).id == 0


def test_an_answer_to_nothing_is_left_out_and_told(tmp_path: Path) -> None:
    found = read(tmp_path, {"id": 1, "conversations": said("Hello!", "hi", "yes", first="gpt")})
    assert found.conversation is not None and [one.text for one in found.conversation.turns] == ["hi", "yes"]
    assert found.note == "the first turn was an answer to nothing and is left out, as LLaVA does"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"image": "a.png", "conversations": said("<image><image>", "x")},
            "2 <image> in its text and 1 pictures",
        ),
        ({"image": None, "conversations": said("<image>", "x")}, "1 <image> in its text and 0 pictures"),
        ({"conversations": said("hi", "")}, "the answer in turn 2 is empty"),
        ({"conversations": said("hi", " \n")}, "the answer in turn 2 is empty"),
        (
            {"conversations": [*said("hi"), *said("again", "yes")]},
            "turn 2 is the user's, expected the assistant's",
        ),
        ({"conversations": said("alone", first="gpt")}, "turn 1 is the assistant's, expected the user's"),
        ({"conversations": []}, "`conversations` is missing or empty"),
        ({}, "`conversations` is missing or empty"),
        ({"conversations": [{"from": "bot", "value": "hi"}]}, "expected {from: human or gpt, value: text}"),
        ({"conversations": [{"from": "human", "value": 3}]}, "expected {from: human or gpt, value: text}"),
        ({"image": 3, "conversations": said("hi", "yes")}, "image is 3; expected a file name or a list"),
        ({"image": ["a", 3], "conversations": said("hi", "yes")}, "expected a file name or a list"),
        ({"image": ["a", ""], "conversations": said("hi", "yes")}, "expected a file name or a list"),
        ({"id": 1.5, "conversations": said("hi", "yes")}, "id is 1.5; expected a string or a number"),
        ({"conversations": said("half \ud83d", "yes")}, "half of a character"),
    ],
)
def test_a_row_that_cannot_be_used_has_its_reason(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    found = read(tmp_path, {"id": "r", **row})
    assert found.conversation is None and found.problem is not None and reason in found.problem


def test_rows_keep_their_positions_past_one_that_is_bad(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    whole = json.dumps({"id": "a", "conversations": said("hi", "yes")}).encode()
    lines = [
        whole,
        b"",
        b'{"id": "cut',
        b'{"id": "\xff\xfe"}',
        b"[1]",
        b'{"id": ' + b"9" * 5000 + b"}",
        whole,
    ]
    path.write_bytes(b"\n".join(lines))
    found = list(read_llava(path))
    assert [row.position for row in found] == [0, 1, 2, 3, 4, 5]
    problems = [row.problem or "" for row in found]
    assert problems[0] == problems[5] == ""
    assert problems[1].startswith("line 3 is not whole JSON: ")
    assert problems[2].startswith("line 4 is not whole JSON: ")
    assert problems[3] == "a row is an object with `conversations`; found a JSON list"
    assert problems[4].startswith("line 6 is not whole JSON: ")


def test_a_list_cut_in_half_is_told_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "half.json"
    rows = [{"id": number, "conversations": said("hi", "yes")} for number in range(20)]
    content = json.dumps(rows, indent=0)
    path.write_text(content[: len(content) // 2])
    lines = content[: len(content) // 2].count("\n") + 1
    with pytest.raises(
        LlavakitError, match=rf"half\.json is not whole JSON: .* of {lines} lines; it may have been cut"
    ):
        list(read_llava(path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'[{"id": "\xff"}]', "is not UTF-8 text"),
        (b'{"id": 1}', "holds a JSON dict; expected a list"),
        (b"", "is not whole JSON"),
        (b"   \n", "is not whole JSON"),
        (b"[" + b"9" * 5000 + b"]", "cannot be read as JSON"),
        (b"[" * 200_000 + b"]" * 200_000, "cannot be read as JSON"),
        (b"[" * 200_000, "is not whole JSON: it ends at byte 200000 without"),
        (b'[{"id": 1} {"id": 2}]', "Expecting ',' delimiter at line 1, column 12 of 1 lines"),
        (b'[{"id": 1},\n]', "Expecting value at line 2, column 1 of 2 lines"),
        (b'[{"id": 1}\n] []', "Extra data at line 2, column 3 of 2 lines"),
        (b'[\n{"id": 1},\n{"id": }, []]', "Expecting value at line 3, column 8 of 3 lines"),
        (b"hello", "is not whole JSON: Expecting value"),
    ],
)
def test_a_file_that_is_no_list_of_rows_is_one_sentence(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(LlavakitError, match=reason) as told:
        list(read_llava(path))
    assert "bad.json" in str(told.value)


def test_a_list_is_taken_apart_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is cut into pieces for reading, the rows and the mistakes are the same."""
    rows = [
        {"id": 12345, "conversations": said("hi 🙂", 'a "quoted" \\ word [1, {"x": true}]')},
        {"id": "b", "conversations": said("é\n", "yes"), "extra": [None, 1e-3, "\\ud83d\\ude42"]},
    ]
    path = tmp_path / "rows.json"
    for content in (
        json.dumps(rows),
        json.dumps(rows, indent=4, ensure_ascii=False),
        " [ ] ",
        "[1, 23, null]",
    ):
        path.write_text(content, encoding="utf-8")
        whole = json.loads(content)
        for chunk in (*range(1, 40), 1 << 20):
            monkeypatch.setattr(json_rows, "CHUNK", chunk)
            assert list(json_rows.read_rows(path)) == whole
    path.write_text('[{"a": 1},\n {"b": tru}]')
    for chunk in range(1, 30):
        monkeypatch.setattr(json_rows, "CHUNK", chunk)
        with pytest.raises(LlavakitError, match="Expecting value at line 2, column 8 of 2 lines"):
            list(json_rows.read_rows(path))


def test_a_list_takes_the_memory_of_a_piece_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "CHUNK", 1 << 13)
    path = tmp_path / "rows.json"
    row = json.dumps({"id": 1, "conversations": said("hi", "yes")})
    path.write_text("[" + ",".join([row] * 5_000) + "]")
    sum(1 for _ in read_llava(path))
    tracemalloc.start()
    count = sum(row.problem is None for row in read_llava(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 5_000
    assert peak < 1e5 < path.stat().st_size / 4


def test_lines_are_known_by_their_form_where_the_name_says_otherwise(tmp_path: Path) -> None:
    row = json.dumps({"id": 1, "conversations": said("hi", "yes")})
    for name in ("rows.json", "rows.txt"):
        (tmp_path / name).write_text(f"{row}\n{row}\n{{\n")
        problems = [one.problem for one in read_llava(tmp_path / name)]
        assert problems[:2] == [None, None]
        assert problems[2] is not None and problems[2].startswith("line 3 is not whole JSON")


def test_a_file_that_is_missing_or_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(LlavakitError, match=r"gone\.json is not there"):
        list(read_llava(tmp_path / "gone.json"))
    with pytest.raises(LlavakitError, match="cannot be read: Is a directory"):
        list(read_llava(tmp_path))


def test_a_mark_at_the_start_of_the_file_is_no_letter(tmp_path: Path) -> None:
    row = json.dumps({"id": "a", "conversations": said("hi", "yes")})
    for name, content in (("a.json", f"[{row}]"), ("a.jsonl", row)):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert [one.problem for one in read_llava(tmp_path / name)] == [None]


words = st.text(max_size=12).filter(lambda text: "<image>" not in text)
answers = st.one_of(st.text(min_size=1, max_size=12), st.just("an <image>")).filter(
    lambda text: bool(text.strip())
)
names = st.text("abc/.é ", min_size=1, max_size=6).map(lambda name: "p" + name)


@st.composite
def written(draw: st.DrawFn) -> Conversation:
    """A conversation as a reader makes it: neighbouring texts are one, relative names stay in meta."""
    turns, shown = [], 0
    if draw(st.booleans()):
        turns.append(Turn("system", (Text(draw(answers)),)))
    for _ in range(draw(st.integers(1, 3))):
        parts: list[Part] = []
        for text in draw(st.lists(words, min_size=1, max_size=3)):
            if parts or draw(st.booleans()):
                parts.append(Picture(shown))
                shown += 1
            if text:
                parts.append(Text(text))
        turns += [Turn("user", tuple(parts)), Turn("assistant", (Text(draw(answers)),))]
    files = draw(st.lists(names, min_size=shown, max_size=shown))
    meta = draw(st.dictionaries(st.sampled_from(["source", "é"]), st.integers() | st.text(max_size=4)))
    if files:
        meta = {"image": files[0] if len(files) == 1 and draw(st.booleans()) else files, **meta}
    name = draw(st.integers() | st.text(max_size=4))
    return Conversation(name, "", tuple(str(Path("/root") / file) for file in files), tuple(turns), meta)


@settings(max_examples=80, deadline=None)
@given(conversations=st.lists(written(), max_size=3), lines=st.booleans())
def test_what_is_written_is_read_again(conversations: list[Conversation], lines: bool) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / ("rows.jsonl" if lines else "rows.json")
        write_llava(conversations, path)
        found = list(read_llava(path, Path("/root")))
        assert [row.problem for row in found] == [None] * len(conversations)
        assert [row.conversation for row in found] == conversations
        content = path.read_bytes()
        write_llava((row.conversation for row in found if row.conversation), path)
        assert path.read_bytes() == content


def test_names_of_pictures_stay_relative(tmp_path: Path) -> None:
    row = {"id": 1, "image": "x/a.png", "conversations": said("<image>", "A cat")}
    write_llava([good(tmp_path, row)], tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == [row]


def test_pictures_that_were_exchanged_are_named_anew(tmp_path: Path) -> None:
    row = {"id": 1, "image": "x/a.png", "conversations": said("<image>", "A cat")}
    moved = replace(good(tmp_path, row), images=("/elsewhere/b.png",))
    write_llava([moved], tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())[0]["image"] == "/elsewhere/b.png"


def test_pictures_that_were_never_in_a_file_are_named_by_their_paths(tmp_path: Path) -> None:
    turns = (Turn("user", (Picture(0), Picture(1))), Turn("assistant", (Text("x"),)))
    write_llava([Conversation(1, "", ("/a.png", "/b.png"), turns)], tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["image"] == ["/a.png", "/b.png"]


def test_half_a_character_elsewhere_in_a_row_is_kept(tmp_path: Path) -> None:
    row = {"id": 1, "conversations": said("hi", "yes é"), "note": "half \ud83d"}
    write_llava([good(tmp_path, row)], tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == [row]


@pytest.mark.parametrize("name", ["old.json", "old.jsonl"])
def test_a_conversation_that_cannot_be_written_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("old")
    fine = Conversation(1, "", (), (Turn("user", (Text("hi"),)), Turn("assistant", (Text("yes"),))))
    likeness = Conversation(
        2, "", ("/a.png",), (Turn("user", (Picture(0), Text("<image>"))), Turn("assistant", (Text("x"),)))
    )
    crossed = Conversation(
        3, "", ("/a.png", "/b.png"), (Turn("user", (Picture(1), Picture(0))), Turn("assistant", (Text("x"),)))
    )

    def interrupted() -> Iterator[Conversation]:
        yield fine
        raise KeyboardInterrupt

    with pytest.raises(ConversationError, match="would read as a picture"):
        write_llava([fine, likeness], path)
    with pytest.raises(ConversationError, match=r"in the order \[1, 0\]"):
        write_llava([fine, crossed], path)
    with pytest.raises(KeyboardInterrupt):
        write_llava(interrupted(), path)
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_videos_stand_where_they_are_placed_and_come_after_the_pictures(tmp_path: Path) -> None:
    row = {
        "id": 1,
        "image": "a.png",
        "video": ["b.gif", "frames/c"],
        "conversations": said("<video>\nand <image>?", "Yes", "<video>", "No <video>"),
    }
    found = good(tmp_path, row)
    assert found.images == (
        str(tmp_path / "a.png"),
        f"{tmp_path}/b.gif#video",
        f"{tmp_path}/frames/c#video",
    )
    assert found.turns[0].parts == (Picture(1), Text("\nand "), Picture(0), Text("?"))
    assert found.turns[2].parts == (Picture(2),) and found.turns[3].parts == (Text("No <video>"),)
    write_llava([found], tmp_path / "again.json")
    assert next(read_llava(tmp_path / "again.json")).conversation == found


@pytest.mark.parametrize("place", ["<video>\n", "<image>\n", ""])
def test_a_video_alone_is_placed_by_either_sign_or_stands_first(tmp_path: Path, place: str) -> None:
    found = good(tmp_path, {"id": 1, "video": "b.gif", "conversations": said(f"{place}What?", "A cat")})
    assert found.images == (f"{tmp_path}/b.gif#video",)
    assert (found.turns[0].parts[0], found.turns[0].text) == (Picture(0), "\nWhat?")


def test_where_no_video_is_named_its_sign_is_a_word(tmp_path: Path) -> None:
    found = good(tmp_path, {"id": 1, "image": "a.png", "conversations": said("<image> is a <video>", "Yes")})
    assert found.turns[0].parts == (Picture(0), Text(" is a <video>"))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"video": 3}, "video is 3; expected a file name or a list of them"),
        ({"video": "b.gif", "text": "<video> <video>"}, "2 <video> in its text and 1 videos"),
        (
            {"video": "b.gif", "image": "a.png", "text": "<image> <image>"},
            "2 <image> in its text and 1 pictures",
        ),
    ],
)
def test_a_row_whose_videos_do_not_fit_is_a_problem(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    text = row.pop("text", "What?")
    found = read(tmp_path, {"id": 1, **row, "conversations": said(text, "A cat")})
    assert found.conversation is None and words in str(found.problem)
