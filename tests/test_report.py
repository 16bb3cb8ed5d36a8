"""Reports: one file that needs nothing else, in which foreign text cannot become markup."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavakit.report import (
    Asked,
    Section,
    Shown,
    details,
    figures,
    line_chart,
    page,
    picture,
    samples_grid,
    table,
)
from llavakit.report_chart import log_ticks, running_mean, thin, ticks

EVIL = "<script>alert('x')</script> & \"quoted\""


class Reader(HTMLParser):
    """Collects the tags and the text of a page, and checks that every tag is closed."""

    void = frozenset({"meta", "img", "line", "rect", "path", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.said = ""
        self.sources: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attributes if name in {"src", "href"}]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def whole_page(tmp_path: Path, evil: str = EVIL) -> str:
    photo = tmp_path / "photo.jpg"
    Image.effect_noise((640, 200), 40).save(photo)
    return page(
        evil,
        [
            Section(evil, figures({evil: evil, "n": 12345}), note=evil),
            Section(
                "b", line_chart({evil: [(0, 1), (1, 2)], "b": [(0, 3)]}, evil, evil, title=evil, log=True)
            ),
            Section("c", table([evil, "x"], [[evil, 1.23456], ["y", None]], caption=evil)),
            Section(
                "d", details(evil, samples_grid([Shown([photo], [Asked(evil, evil, evil, True)], evil)]))
            ),
        ],
        subtitle=evil,
    )


def test_text_from_outside_never_becomes_markup(tmp_path: Path) -> None:
    reader = Reader(whole_page(tmp_path))
    assert "script" not in reader.tags
    assert not reader.open
    assert reader.said.count("alert") >= 12


def test_a_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    html = whole_page(tmp_path, evil="plain")
    assert not re.search(r"https?://", html)
    assert all(source.startswith(("data:image/", "#")) for source in Reader(html).sources)


def test_pictures_are_made_small_and_turned_upright(tmp_path: Path) -> None:
    turned = Image.new("RGB", (800, 400), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert len(picture(tmp_path / "turned.jpg", side=100)) < 2000
    import base64
    import io

    data = picture(tmp_path / "turned.jpg", side=100).split("base64,")[1].split('"')[0]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (50, 100)


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    assert "broken.png" in picture(tmp_path / "broken.png")
    assert "<img" not in picture(tmp_path / "missing.png")


def test_every_kind_of_picture_can_be_shown() -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "F"):
        assert "data:image/" in picture(Image.new(mode, (300, 20)))


def test_numbers_are_flush_right_and_readable() -> None:
    html = table(["name", "score"], [["a", 0.123456], ["b", None], ["c", 1234567]])
    assert "<td class=n>0.1235</td>" in html and "1,234,567" in html and "<td>a</td>" in html


def test_a_curve_survives_what_a_run_can_write() -> None:
    assert "Nothing was measured" in line_chart({"loss": []}, "step", "loss")
    assert "Nothing was measured" in line_chart({"loss": [(0, math.nan), (1, math.inf)]}, "step", "loss")
    for values in ([(1, 0.0)], [(1, 5.0), (2, 5.0)], [(1, -1.0), (2, 1e9)], [(1, 1e-12), (2, 2e-12)]):
        for log in (False, True):
            for smooth in (0.0, 0.9):
                html = line_chart({"loss": values}, "step", "loss", log=log, smooth=smooth)
                assert "nan" not in html and "inf" not in html


@settings(deadline=None)
@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_cover_the_span_and_are_few(low: float, width: float) -> None:
    if width < 1e-9 * abs(low):
        return  # so few floats lie in such a span that no ticks in it are evenly apart
    marks = ticks(low, low + width)
    assert marks[0] <= low + width * 1e-6 and marks[-1] >= low + width * (1 - 1e-6)
    assert 2 <= len(marks) <= 14


@settings(deadline=None)
@given(st.floats(1e-9, 1e6), st.floats(1.01, 1e6))
def test_logarithmic_ticks_cover_the_span(low: float, factor: float) -> None:
    marks = log_ticks(low, low * factor)
    assert marks[0] <= low and marks[-1] >= low * factor and len(marks) <= 30


def test_a_thinned_curve_keeps_its_spikes_and_its_end() -> None:
    points = [(float(x), 1.0) for x in range(10000)]
    points[4321] = (4321.0, 99.0)
    few = thin(points)
    assert len(few) <= 700 and (4321.0, 99.0) in few and few[-1] == points[-1]
    assert [x for x, _ in few] == sorted(x for x, _ in few)


def test_the_running_mean_of_a_constant_is_the_constant() -> None:
    assert all(abs(y - 3.0) < 1e-12 for _, y in running_mean([(x, 3.0) for x in range(50)], 0.9))
