"""What holds for a file of captions that is balanced, in each of its forms."""

from __future__ import annotations

import json
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from llavakit.cli.main import app
from llavakit.errors import LlavakitError
from llavakit.synthesis.balance import extraction
from llavakit.synthesis.balance.balancing import Balance, balance
from llavakit.synthesis.balance.captions import open_captions
from llavakit.synthesis.balance.choice import Rule
from llavakit.synthesis.balance.extraction import Finder, extract

CAPTIONS = [f"a dog runs past {n}" for n in range(12)] + [
    "a rare okapi",
    "two boats",
    "two boats ",
    "two boats",
]
HOW = Balance(Rule(cap=4))


def rows() -> list[dict[str, Any]]:
    return [{"id": n, "image": f"{n}.jpg", "caption": one} for n, one in enumerate(CAPTIONS)]


def write(folder: Path, form: str) -> Path:
    path = folder / f"in.{'json' if form in ('coco', 'list', 'llava') else form}"
    if form == "tsv":
        path.write_text("".join(f"{row['caption']}\thttp://x/{row['id']}\n" for row in rows()))
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    elif form == "list":
        path.write_text(json.dumps(rows()))
    elif form == "llava":
        turns = [
            [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": one}] for one in CAPTIONS
        ]
        path.write_text(
            json.dumps([{"id": n, "image": f"{n}.jpg", "conversations": one} for n, one in enumerate(turns)])
        )
    elif form == "coco":
        images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(len(CAPTIONS))]
        told = [{"id": n, "image_id": n, "caption": one} for n, one in enumerate(CAPTIONS)]
        path.write_text(json.dumps({"info": {"year": 2014}, "images": images, "annotations": told}))
    else:
        table = pa.Table.from_pylist(
            [row | {"image": {"bytes": b"x", "path": row["image"]}} for row in rows()]
        )
        parquet.write_table(table, path)
    return path


FORMS = ["tsv", "jsonl", "list", "llava", "coco", "parquet"]


@pytest.mark.parametrize("form", FORMS)
def test_what_stays_is_written_in_the_form_of_the_source(tmp_path: Path, form: str) -> None:
    source = write(tmp_path, form)
    target = tmp_path / f"out{source.suffix}"
    report = balance(source, target, HOW)
    before = [one.text for one in open_captions(source).captions()]
    after = [one.text for one in open_captions(target).captions()]
    assert len(after) == report["kept"] == 7 and report["rows"] == 16
    assert sum(one.startswith("two boats") for one in after) == 3 and "a rare okapi" not in after
    assert after == [one for one in before if one in after]
    assert open_captions(target).form == open_captions(source).form
    assert report["frequent_phrases"] == report["frequent_phrases_covered"] == 2  # dog, two boats
    assert json.loads((tmp_path / f"{target.name}.report.json").read_text()) == report
    if form == "tsv":
        assert set(target.read_text().splitlines()) <= set(source.read_text().splitlines())
    if form == "coco":
        content = json.loads(target.read_text())
        assert len(content["images"]) == 7 and content["info"] == {"year": 2014}


def test_several_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "CHUNK", 5)
    source = open_captions(write(tmp_path, "jsonl"))
    one, two = extract(source, Finder()), extract(source, Finder(), processes=2)
    assert one.phrases == two.phrases
    for name in ("starts", "ids", "captions", "phrases"):
        np.testing.assert_array_equal(getattr(one.told, name), getattr(two.told, name))


def test_what_ends_a_process_is_told_as_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "CHUNK", 5)
    source = open_captions(write(tmp_path, "jsonl"))
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(LlavakitError, match="not installed"):
        extract(source, Finder("spacy:en"), processes=2)
    monkeypatch.setattr(extraction, "_shared", lambda *_: _break())
    with pytest.raises(LlavakitError, match="fewer --processes"):
        extract(source, Finder(), processes=2)


def _break() -> extraction.Found:
    raise BrokenProcessPool("one ended")


def test_phrases_are_kept_for_another_call_and_not_for_another_file(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl")
    path.write_text(path.read_text() + '{"id": 99}\nnot json\n')
    cache = tmp_path / "cache"
    first = extract(open_captions(path), Finder(), cache=cache)
    again = extract(open_captions(path), Finder(), cache=cache)
    assert (first.cached, again.cached) == (False, True)
    assert first.phrases == again.phrases and first.problems == again.problems
    assert again.problems == {"a row without a caption": 1, "a line that is not whole JSON": 1}
    for name in ("starts", "ids", "captions", "phrases"):
        np.testing.assert_array_equal(getattr(first.told, name), getattr(again.told, name))
    assert not extract(open_captions(path), Finder(normalise="lower"), cache=cache).cached
    path.write_text(path.read_text() + json.dumps({"caption": "a cat"}) + "\n")
    assert not extract(open_captions(path), Finder(), cache=cache).cached
    next(cache.iterdir()).write_bytes(b"damaged")
    for stored in cache.iterdir():
        stored.write_bytes(b"damaged")
    with pytest.raises(LlavakitError, match="delete it"):
        extract(open_captions(path), Finder(), cache=cache)


def test_rows_without_captions_are_counted_and_never_kept(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl")
    path.write_text(path.read_text() + '{"id": 99}\n{"caption": " "}\n[1]\nnot json\n')
    report = balance(path, tmp_path / "out.jsonl", HOW)
    assert sum(report["without_caption"].values()) == 4 and report["kept"] == 7


def test_nothing_is_replaced_unasked_and_mistakes_are_told(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl")
    target = tmp_path / "out.jsonl"
    balance(path, target, HOW)
    with pytest.raises(LlavakitError, match="--force"):
        balance(path, target, HOW)
    balance(path, target, HOW, force=True)
    with pytest.raises(LlavakitError, match=r"\.jsonl"):
        balance(path, tmp_path / "out.tsv", HOW)
    with pytest.raises(LlavakitError, match="same file"):
        balance(path, path, HOW, force=True)
    with pytest.raises(LlavakitError, match="--minimum"):
        balance(path, tmp_path / "none.jsonl", Balance(Rule(minimum=500)))
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")
    with pytest.raises(LlavakitError, match="Parquet"):
        list(open_captions(tmp_path / "damaged.parquet").captions())
    with pytest.raises(LlavakitError, match="ending"):
        open_captions(Path(__file__))
    with pytest.raises(LlavakitError, match="spacy:MODEL"):
        Finder("nltk")
    assert not (tmp_path / "none.jsonl").exists() and not list(tmp_path.glob(".partial-*"))


def test_the_command_tells_what_stays(tmp_path: Path) -> None:
    path = write(tmp_path, "tsv")
    arguments = [
        "data",
        "balance",
        str(path),
        "--out",
        str(tmp_path / "out.tsv"),
        "--cap",
        "4",
        "--processes",
        "1",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "7 of 16 captions" in done.output and "2, of which 2 are still told of" in done.output
