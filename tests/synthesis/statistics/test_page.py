"""What holds for the page: it stands alone, nothing in a sample can become markup, and pictures are found or told."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from llavakit.cli.main import app
from llavakit.errors import LlavakitError
from llavakit.synthesis.statistics.charts import bars, histogram
from llavakit.synthesis.statistics.counting import survey
from llavakit.synthesis.statistics.page import write_page
from llavakit.synthesis.statistics.rows import Row
from llavakit.synthesis.statistics.sunburst import petals, sunburst

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def rows() -> list[Row]:
    boxes = (("cat & dog", 0.1, 0.1, 0.5, 0.5),)
    return [
        Row("one", "sub dir/a#1.png", "detail", (("Describe it.", "A cat."),), boxes=boxes),
        Row(
            "two",
            "gone.png",
            EVIL,
            ((EVIL, EVIL),),
            notes=(f"gate: {EVIL}",),
            evidence={f"gate: {EVIL}": EVIL},
        ),
        Row("three", "", "detail", kept=False, reasons=(EVIL,), reply=EVIL),
    ]


def write(tmp_path: Path, **how: bool) -> tuple[str, list[dict[str, object]], int]:
    (tmp_path / "pictures" / "sub dir").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (900, 600), "red").save(tmp_path / "pictures" / "sub dir" / "a#1.png")
    written = write_page(survey(rows()), tmp_path / "out", EVIL, tmp_path / "pictures", **how)
    page = written.page.read_text()
    (content,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return page, json.loads(content), written.missing


def test_words_of_a_sample_never_become_markup(tmp_path: Path) -> None:
    page, samples, _ = write(tmp_path)
    tags = Tags()
    tags.feed(page)
    assert tags.seen["script"] == 2 and tags.seen["img"] == 0
    assert samples[1]["said"] == [[EVIL, EVIL]] and samples[2]["reply"] == EVIL


def test_nothing_is_fetched_from_elsewhere(tmp_path: Path) -> None:
    page, _, _ = write(tmp_path)
    tags = Tags()
    tags.feed(page)
    assert all(link.startswith("#") for link in tags.links)
    assert "http://" not in page and "https://" not in page and "@import" not in page and "url(" not in page


def test_pictures_are_linked_from_where_the_page_stands_or_put_into_it(tmp_path: Path) -> None:
    page, samples, missing = write(tmp_path)
    assert samples[0]["src"] == "../pictures/sub%20dir/a%231.png" and samples[1]["src"] == "" and missing == 1
    assert "The picture of 1 of them is not there" in page
    _, embedded, _ = write(tmp_path, embed=True, force=True)
    assert str(embedded[0]["src"]).startswith("data:image/jpeg;base64,")
    assert samples[0]["boxes"] == [["cat & dog", 0.1, 0.1, 0.5, 0.5]]


def test_a_page_is_not_replaced_unasked_and_nothing_makes_no_page(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(LlavakitError, match="--force"):
        write(tmp_path)
    with pytest.raises(LlavakitError, match="1 no object"):
        write_page(survey([Row("x", problem="no object")]), tmp_path / "none", "none", tmp_path)
    assert not (tmp_path / "none").exists()


def test_the_page_says_which_samples_it_shows(tmp_path: Path) -> None:
    many = [Row(str(number), exchanges=(("Why?", "So."),)) for number in range(50)]
    written = write_page(survey(many, most=5), tmp_path, "many", tmp_path)
    assert "5 of 50 kept and 0 of 0 rejected samples are here" in written.page.read_text()
    assert written.shown == 5


def test_the_sunburst_gives_each_verb_and_noun_its_share() -> None:
    pairs = {("be", "color"): 30, ("be", "dog"): 10, ("hold", "hat"): 20, ("see", "sea"): 1}
    first, second = petals(pairs, verbs=2, nouns=1)
    assert (first.verb.label, first.verb.count) == ("be", 40) and first.verb.end == pytest.approx(40 / 60)
    assert [one.label for one in first.nouns] == ["color"] and first.nouns[0].end == pytest.approx(0.5)
    assert second.verb.begin == first.verb.end and second.verb.end == pytest.approx(1)
    drawn = sunburst(pairs)
    assert drawn.count("<path") == 3 + 4 and "<title>be color: 30</title>" in drawn
    assert sunburst({}) == "" and "NaN" not in sunburst({("be", "it"): 1})


def test_bars_and_histograms_tell_what_they_leave_out() -> None:
    drawn = bars("Things", {f"thing {number:02}": 100 - number for number in range(20)}, most=3)
    assert drawn.count("<tr>") == 3 and "and 17 others" in drawn and bars("None", {}) == ""
    lengths = Counter(dict.fromkeys(range(1, 100), 10) | {4000: 1})
    drawn = histogram("Length", lengths, "words")
    assert (
        "longest 4,000" in drawn
        and drawn.count("<rect") <= 25
        and histogram("None", Counter(), "words") == ""
    )


def test_the_command_writes_page_and_numbers(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Describe it."}, {"from": "gpt", "value": "A cat."}]
    path = tmp_path / "my.jsonl"
    path.write_text(json.dumps({"id": "a", "image": "a.jpg", "conversations": turns}) + "\nnot json\n")
    told = tmp_path / "boxes.jsonl"
    box = {"category": "cat", "bbox": [0.1, 0.1, 0.5, 0.5]}
    told.write_text(
        json.dumps({"id": "a", "image": "a.jpg", "captions": ["A cat."], "instances": [box]}) + "\n"
    )
    done = CliRunner().invoke(
        app, ["data", "stats", str(path), "--out", str(tmp_path / "s"), "--annotations", str(told)]
    )
    assert done.exit_code == 0, done.output
    assert (
        "1 kept, 0 rejected, 1 questions" in done.output
        and "1 rows were not read: not whole JSON" in done.output
    )
    found = json.loads((tmp_path / "s" / "stats.json").read_text())
    assert found["boxes"] == {"cat": 1} and found["rows_not_read"] == {"not whole JSON": 1}
