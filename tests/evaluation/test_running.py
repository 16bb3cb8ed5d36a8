"""A model is asked once for every answer, alike in any batch, and what it is shown is what the condition says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from llavakit.cli.main import main
from llavakit.errors import LlavakitError
from llavakit.evaluation.asked import Asking, Journal
from llavakit.evaluation.benchmark import Question
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.conditions import under
from llavakit.evaluation.pictures import InFile
from llavakit.evaluation.results import read_marked, read_results
from llavakit.evaluation.running import ask, prepare, rank_choices, run_benchmark, share
from llavakit.model.llava import Llava
from llavakit.model.packed import Tiled

SEED = load("seed_bench_image")
PLAIN = Asking()


def answers_of(
    model: Llava, folder: Path, questions: list[Question], asking: Asking = PLAIN
) -> dict[str, str]:
    with Journal(folder, {}, asking.rank, asking.world) as journal:
        return dict(ask(model, questions, journal, asking, 6))


def question(name: str, *pictures: str, category: str = "", unit: str = "") -> Question:
    return Question(
        name,
        tuple(InFile(Path(picture)) for picture in pictures),
        "?",
        "",
        category=category,
        unit=unit,
    )


def test_greedy_answers_do_not_depend_on_the_batch(model: Llava, seed_bench: Path, tmp_path: Path) -> None:
    questions = SEED.read(seed_bench, "v1.5")
    alone = answers_of(model, tmp_path / "alone", questions, Asking(batch=1))
    together = answers_of(model, tmp_path / "together", questions, Asking(batch=12))
    assert alone == together
    assert len(alone) == 12 and any(alone.values())


def test_a_run_that_was_ended_asks_only_what_has_no_answer(
    model: Llava, seed_bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = SEED.read(seed_bench, "v1.5")
    whole = answers_of(model, tmp_path / "whole", questions)
    asked: list[str] = []
    keep = Journal.keep

    def ending(self: Journal, name: str, answer: str, **more: object) -> None:
        if len(asked) == 5:
            self._file.write(b'{"llavakit_question": "torn')  # as a machine that stops leaves it
            self._file.flush()
            raise KeyboardInterrupt
        asked.append(name)
        keep(self, name, answer, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "keep", ending)
        with pytest.raises(KeyboardInterrupt):
            answers_of(model, tmp_path / "ended", questions)

    def noted(self: Journal, name: str, answer: str, **more: object) -> None:
        asked.append(name)
        keep(self, name, answer, **more)

    monkeypatch.setattr(Journal, "keep", noted)
    assert answers_of(model, tmp_path / "ended", questions) == whole
    assert sorted(asked) == sorted(whole), "every question was answered once"


def test_shares_of_several_processes_are_the_whole(model: Llava, seed_bench: Path, tmp_path: Path) -> None:
    for count in (1, 2, 5, 13):
        parts = [share(SEED.read(seed_bench, "v1.5"), rank, count) for rank in range(count)]
        assert [one.id for part in parts for one in part] == [str(number) for number in range(12)]
    told = {"hash_of_model": "x", "name": "seed_bench_image", "data": seed_bench}
    for rank in range(2):
        assert run_benchmark(model, out=tmp_path, asking=Asking(rank=rank, world=2), **told) is None  # type: ignore[arg-type]
    merged = run_benchmark(model, out=tmp_path, asking=Asking(), **told)  # type: ignore[arg-type]
    merging = tmp_path / "asked" / "seed_bench_image" / "0-of-1.jsonl"
    assert merging.read_text().count("\n") == 1, "all answers were there, so none was asked for again"
    single = run_benchmark(model, out=tmp_path / "single", asking=Asking(), **told)  # type: ignore[arg-type]
    assert merged is not None and single is not None
    assert merged.answers == single.answers


def test_answers_asked_otherwise_or_by_two_at_once_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path, {"condition": "shown"}) as journal:
        journal.keep("1", "yes")
        with pytest.raises(LlavakitError, match="another process is writing"):
            Journal(tmp_path, {"condition": "shown"})
    with pytest.raises(LlavakitError, match="condition 'shown' there and 'blind' now"):
        Journal(tmp_path, {"condition": "blind"})
    (tmp_path / "0-of-1.jsonl").write_text('{"asking": {"condition": "shown"}}\n{"nonsense": 1}\n')
    with pytest.raises(LlavakitError, match="line 2 is damaged"):
        Journal(tmp_path, {"condition": "shown"})


def test_blind_hides_every_picture_and_shuffled_never_shows_its_own() -> None:
    questions = [question(str(n), f"p{n // 2}", category="a" if n < 6 else "b") for n in range(12)]
    questions += [question("text", category="a")]
    assert all(not one.pictures for one in under("blind", questions))
    shuffled = under("shuffled", questions)
    for own, other in zip(questions, shuffled, strict=True):
        assert own.id == other.id
        assert (own.pictures != other.pictures) or not own.pictures
        group = {picture for one in questions if one.category == own.category for picture in one.pictures}
        assert set(other.pictures) <= group
    with pytest.raises(LlavakitError, match="same picture"):
        under("shuffled", [question("1", "p"), question("2", "p")])
    with pytest.raises(LlavakitError, match="no condition 'hidden'"):
        under("hidden", questions)


def test_a_category_of_one_picture_is_shuffled_with_the_others() -> None:
    questions = [question("1", "p", category="a"), question("2", "q", category="b")]
    assert [one.pictures[0] for one in under("shuffled", questions)] == [InFile(Path("q")), InFile(Path("p"))]


def test_a_limit_breaks_no_unit() -> None:
    questions = [question(str(n), unit=f"u{n // 2}") for n in range(6)]
    assert [one.id for one in prepare(questions, Asking(limit=3))] == ["0", "1"]
    assert [one.id for one in prepare(questions, Asking(limit=1))] == ["0", "1"]
    assert len(prepare(questions, Asking(limit=9))) == 6


def test_options_are_ranked_by_the_loss_that_the_model_itself_gives(model: Llava, seed_bench: Path) -> None:
    from llavakit.evaluation import running
    from llavakit.images.pixels import to_tiles
    from llavakit.model.packed import pack_conversations

    asked = SEED.read(seed_bench, "ranked")[0]
    pictures = running._open([asked])[asked.id]
    letter, losses = rank_choices(model, asked, pictures)
    plain = []
    for choice in asked.choices:
        encoded = running.encode_question(model, asked, pictures, choice)
        tiles = to_tiles(pictures[0], model.settings.image_policy, model.pixels)
        tiled = Tiled(tiles, model.image_layout(*pictures[0].size))
        with torch.no_grad():
            loss = model(pack_conversations([encoded], [tiled], ["one"]))
        plain.append(float(loss.loss_sum) / loss.supervised)
    assert losses == pytest.approx(plain, rel=1e-4)
    assert letter == "ABCD"[plain.index(min(plain))]


def test_the_command_asks_scores_and_goes_on(
    model_folder: Path, seed_bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["eval", "--model", str(model_folder), "--benchmarks", "seed_bench_image"]
    arguments += [
        "--data",
        str(seed_bench),
        "--out",
        str(out),
        "--max-new-tokens",
        "4",
        "--variant",
        "ranked",
    ]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0, capsys.readouterr()
    result = read_results(out)
    benchmark = result["benchmarks"]["seed_bench_image"]
    assert benchmark["asking"]["condition"] == "shown"
    assert benchmark["asking"]["template"] == "tokenizer"
    assert len(result["answered_by"]["hash"]) == 64
    letters = [row["text"] for row in read_marked(out, "seed_bench_image")]
    assert len(letters) == 12 and set(letters) <= set("ABCD")
    right = sum(letter == "ABCD"[number % 4] for number, letter in enumerate(letters))
    assert benchmark["score"] == pytest.approx(100 * right / 12)
    (out / "results.json").unlink()
    again = out / "asked" / "seed_bench_image" / "0-of-1.jsonl"
    before = again.read_bytes()
    with pytest.raises(SystemExit):
        main(arguments)
    assert again.read_bytes() == before
    assert read_results(out)["benchmarks"] == result["benchmarks"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "either --model"),
        (["--model", "nowhere"], "give one with --out"),
        (["--model", "nowhere", "--out", "OUT"], "nowhere"),
        (["--model", "nowhere", "--out", "OUT", "--rank", "2", "--world", "2"], "expected 0 to 1"),
        (["--model", "nowhere", "--out", "OUT", "--batch", "0"], "batch is 0"),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    arguments = [str(tmp_path) if one == "OUT" else one for one in arguments]
    with pytest.raises(SystemExit) as end:
        main(["eval", "--benchmarks", "seed_bench", *arguments])
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_a_picture_that_is_missing_names_its_question(model: Llava, seed_bench: Path, tmp_path: Path) -> None:
    (seed_bench / "SEED-Bench-image" / "p3").write_bytes(b"no picture")
    with pytest.raises(LlavakitError, match=r"question 6, .*/p3: .*not a picture"):
        answers_of(model, tmp_path / "out", SEED.read(seed_bench, "v1.5"))
    (seed_bench / "SEED-Bench-image" / "p3").unlink()
    with pytest.raises(LlavakitError, match=r"question 6: .*p3 cannot be read"):
        answers_of(model, tmp_path / "again", SEED.read(seed_bench, "v1.5"))


def test_a_journal_can_be_read_by_anyone(model: Llava, seed_bench: Path, tmp_path: Path) -> None:
    answers = answers_of(model, tmp_path / "asked", SEED.read(seed_bench, "v1.5")[:2])
    head, *lines = (tmp_path / "asked" / "0-of-1.jsonl").read_text().splitlines()
    assert "asking" in json.loads(head)
    assert {row["llavakit_question"]: row["text"] for row in map(json.loads, lines)} == answers
