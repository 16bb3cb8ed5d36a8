"""`llavakit generate` and `llavakit data export` as a user meets them, against a scripted endpoint in this process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llavakit.cli.main import main
from llavakit.data.readers.llava import read_llava
from llavakit.errors import LlavakitError
from llavakit.synthesis.asking import Journal
from llavakit.synthesis.endpoint.fake import FakeServer, FakeSettings

ROOT = Path(__file__).parents[2]
DATA = ("data.json", "data.jsonl", "data.parquet", "rejected.jsonl", "README.md")


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of the program."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return (left.value.code or 0), said.out, said.err  # type: ignore[return-value]


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> str:
    """COCO files of twelve pictures, half of them under another licence."""
    folder = tmp_path_factory.mktemp("coco")
    names = ("dog", "bench", "bicycle", "car", "umbrella", "kite")
    images, captions, boxes = [], [], []
    for number in range(1, 13):
        one, other = names[number % 6], names[(number + 2) % 6]
        images.append({
            "id": number, "file_name": f"{number:012d}.jpg", "width": 640, "height": 480, "license": 1 + number % 2,
        })  # fmt: skip
        for text in (f"A {one} stands beside a {other}.", f"There is a {one} on the left and a {other}."):
            captions.append({"id": len(captions), "image_id": number, "caption": text})
        for place, name in enumerate((one, other)):
            boxes.append({
                "id": len(boxes), "image_id": number, "category_id": names.index(name) + 1,
                "bbox": [40 + 300 * place, 100 + number, 200, 200], "area": 40000, "iscrowd": 0,
            })  # fmt: skip
    licences = [
        {"id": 1, "name": "Attribution License", "url": "http://example.org/by"},
        {"id": 2, "name": "Attribution-NonCommercial License", "url": "http://example.org/by-nc"},
    ]
    categories = [{"id": n, "name": name} for n, name in enumerate(names, 1)]
    write(folder / "captions.json", {"images": images, "annotations": captions, "licenses": licences})
    write(folder / "instances.json", {"images": images, "annotations": boxes, "categories": categories})
    return f"{folder / 'captions.json'},{folder / 'instances.json'}"


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content) if not isinstance(content, str) else content)
    return path


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(FakeSettings()) as server:
        yield server


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in DATA}


def test_a_data_set_is_made_and_made_again_for_free(
    tmp_path: Path, annotations: str, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    asked = (
        "generate",
        "--annotations",
        annotations,
        "--teacher",
        fake.url,
        "--model",
        "fake-teacher",
        "--out",
        out,
    )
    code, said, _ = call(capsys, *asked)
    assert code == 0 and "36 requests (conversation, detail, reasoning)" in said
    assert "36 to ask" in said and "no price is known" in said
    assert fake.stats()["paid"] == 36
    first = files(out)
    rows = list(read_llava(out / "data.json", tmp_path))
    assert rows and all(row.conversation is not None for row in rows)

    code, said, _ = call(capsys, *asked)
    assert code == 0 and "36 have their reply in the journal" in said and "to ask" not in said
    assert fake.stats()["paid"] == 36 and files(out) == first
    for name in DATA:
        (out / name).unlink()
    code, _, _ = call(capsys, "data", "export", out)
    assert code == 0 and files(out) == first


def test_every_sample_says_where_it_is_from(
    tmp_path: Path, annotations: str, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    prices = write(tmp_path / "prices.toml", '[models."fake-"]\ninput = 1.0\noutput = 2.0\n')
    code, said, _ = call(
        capsys, "generate", "--annotations", annotations, "--teacher", fake.url, "--model", "fake-teacher",
        "--types", "conversation", "--licences", "1", "--prices", prices, "--out", out,
    )  # fmt: skip
    assert code == 0 and "left out: 6 pictures under another licence" in said
    rows = [json.loads(line) for line in (out / "data.jsonl").read_text().splitlines()]
    assert rows
    for row in rows:
        told = row["provenance"]
        assert told["source"]["licence"] == "Attribution License" and told["source"]["licence_url"]
        assert told["prompt"].startswith("conversation@") and told["teacher"]["returned"] == "fake-teacher"
        assert told["parameters"]["max_tokens"] and told["at"].endswith("Z") and len(told["request"]) == 64
        assert told["cost"] > 0 and told["usage"]["completion"] > 0 and told["boxes"][0][0]
    card = (out / "README.md").read_text()
    assert "Attribution License" in card and "fake-teacher" in card


def test_what_was_rejected_stays_visible_with_its_reasons_and_gates_can_be_set_anew(
    tmp_path: Path, annotations: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    with FakeServer(FakeSettings(faults={"refusal": 0.3, "malformed": 0.3, "truncated": 0.3})) as fake:
        code, said, _ = call(
            capsys, "generate", "--annotations", annotations, "--teacher", fake.url, "--model", "fake-teacher", "-o", out
        )  # fmt: skip
        stats = fake.stats()
    assert code == 0 and stats["different"] > 36 and "were cut and asked for once more with more room" in said
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert rejected and all(row["reasons"] and row["reply"] for row in rejected)
    assert f"{len(rejected)} rejected" in said and "unreadable" in said
    gates = write(tmp_path / "gates.yaml", "refusal: off\nform: note\nlength: off\nrelevance: off\n")
    code, said, _ = call(capsys, "data", "export", out, "--quality", gates)
    again = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert code == 0 and 0 < len(again) < len(rejected)
    code, _, _ = call(capsys, "data", "export", out)  # the gates of the last export are the folder's
    assert (out / "rejected.jsonl").read_text().count("\n") == len(again)


def test_the_teacher_can_rate_what_passes(
    tmp_path: Path, annotations: str, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    code, _, _ = call(
        capsys, "generate", "--annotations", annotations, "--teacher", fake.url, "--model", "fake-teacher",
        "--types", "detail", "--rate", "--rate-minimum", "5", "-o", out,
    )  # fmt: skip
    kept = [json.loads(line) for line in (out / "data.jsonl").read_text().splitlines()]
    dropped = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert code == 0 and all("rating" in row["provenance"] for row in kept)
    assert all(min((row["provenance"]["rating"]["marks"] or {"none": 5}).values()) == 5 for row in kept)
    assert fake.stats()["paid"] > 12 and len(kept) + len(dropped) == 12


def test_a_run_that_is_killed_goes_on_to_the_same_data(
    tmp_path: Path, annotations: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked(fake: FakeServer, out: Path) -> list[str]:
        return [
            "generate", "--annotations", annotations, "--teacher", fake.url, "--model", "fake-teacher",
            "--concurrency", "4", "--out", str(out),
        ]  # fmt: skip

    settings = FakeSettings(slots=4, latency_s=0.05)
    with FakeServer(settings) as fake:
        call(capsys, *asked(fake, tmp_path / "whole"))
    with FakeServer(settings) as fake:
        program = [sys.executable, "-m", "llavakit.cli.main", *asked(fake, tmp_path / "killed")]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        kills = 0
        journal = tmp_path / "killed" / "journal.sqlite"
        for _ in range(3):
            running = subprocess.Popen(program, env=env, stdout=subprocess.DEVNULL)
            had, until = count(journal), time.monotonic() + 30
            while count(journal) < had + 5 and running.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            if running.poll() is None:
                running.send_signal(signal.SIGKILL)
                kills += 1
            running.wait()
        code, _, _ = call(capsys, *asked(fake, tmp_path / "killed"))
        stats = fake.stats()
    assert code == 0 and kills >= 1
    assert stats["different"] == 36 and stats["paid_again"] <= kills * 4
    assert spoken(tmp_path / "killed") == spoken(tmp_path / "whole")


def spoken(folder: Path) -> list[Any]:
    """Ids with what is said; when and under which number a service answered differs from run to run."""
    rows = [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]
    return [(row["id"], row["conversations"]) for row in rows]


def count(journal: Path) -> int:
    if not journal.is_file():
        return 0
    try:
        with Journal(journal, read_only=True) as opened:
            return opened.count()
    except LlavakitError:  # it is being made
        return 0


def test_a_budget_stops_the_run_with_a_code_of_its_own_and_a_larger_one_goes_on(
    tmp_path: Path, annotations: str, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (
        "generate",
        "--annotations",
        annotations,
        "--teacher",
        fake.url,
        "--model",
        "fake-teacher",
        "-o",
        tmp_path / "d",
    )
    code, said, _ = call(capsys, *asked, "--budget-tokens", 20_000)
    assert code == 3 and "stopped:" in said and "of a budget of 20,000 tokens" in said
    stats = fake.stats()
    assert stats["prompt_tokens"] + stats["completion_tokens"] <= 20_000
    code, said, _ = call(capsys, *asked, "--budget-tokens", 10_000_000)
    assert code == 0 and fake.stats()["paid"] == 36


def test_an_estimate_asks_nothing(
    tmp_path: Path, annotations: str, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = call(
        capsys, "generate", "--annotations", annotations, "--teacher", fake.url, "--estimate", "-o", tmp_path / "d"
    )  # fmt: skip
    assert code == 0 and "36 to ask: about" in said and fake.stats()["received"] == 0


def test_a_try_with_a_few_pictures_is_part_of_the_whole(
    tmp_path: Path, annotations: str, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (
        "generate",
        "--annotations",
        annotations,
        "--teacher",
        fake.url,
        "-o",
        tmp_path / "d",
        "--types",
        "detail",
    )
    code, said, _ = call(capsys, *asked, "--limit", 2)
    assert code == 0 and "10 requests have no reply yet" in said
    code, _, _ = call(capsys, *asked)
    assert code == 0 and fake.stats()["paid"] == 12


def test_every_mistake_is_one_sentence(
    tmp_path: Path, annotations: str, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    write(mine / "letter.txt", "dear")
    begun = tmp_path / "begun"
    usual = {"--annotations": annotations, "--teacher": fake.url, "--model": "fake-teacher", "--out": begun}
    call(capsys, "generate", *(x for pair in usual.items() for x in pair), "--types", "detail", "--limit", 1)
    cases: list[tuple[dict[str, object], str]] = [
        ({}, "was begun with other settings (kinds:"),
        ({"--types": "detail", "--model": "other"}, 'model: "fake-teacher" there, "other" now'),
        ({"--annotations": "none.json"}, "none.json cannot be read"),
        ({"--annotations": write(tmp_path / "cut.json", '{"images": [')}, "cut.json"),
        ({"--types": "poem"}, "There is no kind 'poem'"),
        ({"--types": ","}, "names no kind"),
        ({"--types": "vision_detail", "--out": tmp_path / "v"}, "give the folder they lie in by --images"),
        ({"--teacher": "nobody", "--out": tmp_path / "n"}, "There is no teacher 'nobody'"),
        ({"--out": mine}, "holds files but no generation.json"),
        ({"--formats": "xml"}, "The format 'xml' is not known"),
        ({"--budget": 1}, "needs the price of 'fake-teacher'"),
        ({"--prices": tmp_path / "none.toml"}, "none.toml cannot be read"),
        ({"--quality": tmp_path / "none.yaml"}, "none.yaml cannot be read"),
        ({"--licences": "public domain", "--out": tmp_path / "l"}, "No picture is under the licence"),
        ({"--types": "detail", "--teacher": "rules", "--batch": ""}, "--batch needs a server"),
    ]
    for changed, sentence in cases:
        arguments = [str(x) for pair in {**usual, **changed}.items() for x in pair if str(x)]
        code, _, wrong = call(capsys, "generate", *arguments)
        assert code == 2 and wrong.startswith("error: ") and sentence in wrong, (changed, wrong)
        assert wrong.count("\n") == 1
    assert (mine / "letter.txt").read_text() == "dear" and len(list(mine.iterdir())) == 1


def test_a_server_that_is_not_there_is_told(
    tmp_path: Path, annotations: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = call(
        capsys, "generate", "--annotations", annotations, "--teacher", "http://127.0.0.1:9", "--types", "detail",
        "--limit", "1", "--attempts", "1", "-o", tmp_path / "d",
    )  # fmt: skip
    assert code == 1 and "1 given up" in said and "http://127.0.0.1:9" in said


def test_batch_mode_makes_the_same_data(
    tmp_path: Path, annotations: str, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("generate", "--annotations", annotations, "--teacher", fake.url, "--model", "fake-teacher", "-o")
    code, _, _ = call(capsys, *asked, tmp_path / "batch", "--batch")
    assert code == 0 and fake.stats()["batches"] == 1
    call(capsys, *asked, tmp_path / "calls")
    assert spoken(tmp_path / "batch") == spoken(tmp_path / "calls")
