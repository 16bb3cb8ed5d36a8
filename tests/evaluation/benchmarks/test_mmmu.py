"""MMMU: files of thirty subjects, letters and free answers, the tool's draws, what lmms-eval gives, the server's file."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.benchmarks.mmmu import DISCIPLINES, SUBJECTS
from llavakit.evaluation.marking import mark_answers
from llavakit.evaluation.pictures import picture_bytes
from llavakit.evaluation.scoring_saved import score_file

VAL, TEST = load("mmmu"), load("mmmu_test")
DIRECTLY = "Answer with the option's letter from the given choices directly."
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def row(subject: str, number: int = 1, split: str = "validation", **changed: Any) -> dict[str, Any]:
    """A question with four options, of which the first is true, in the form of the official files."""
    return {
        "id": f"{split}_{subject}_{number}",
        "question": f"What is in <image 1>, by {subject}?",
        "options": "['oak', 'elm', 'ash', 'fir']",
        "answer": "A" if split != "test" else "?",
        "question_type": "multiple-choice",
        "subfield": "s",
    } | changed


def free(subject: str, number: int, answer: str) -> dict[str, Any]:
    return row(subject, number, options="[]", answer=answer, question_type="open")


def write(
    folder: Path, *rows: dict[str, Any], split: str = "validation", without: tuple[str, ...] = ()
) -> None:
    """A folder a subject: the rows of their subjects, and one question of every other subject."""
    for subject in SUBJECTS:
        own = [one for one in rows if one["id"].rpartition("_")[0] == f"{split}_{subject}"]
        if subject not in without:
            save(folder / subject / f"{split}-00000-of-00001.parquet", own or [row(subject, split=split)])


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    for number in range(1, 8):
        cells = [{"bytes": f"{one['id']} {number}".encode(), "path": None} for one in rows]
        table = table.append_column(
            f"image_{number}", pa.array(cells if number < 4 else [None] * len(rows), PICTURE)
        )
    pq.write_table(table, path)


def answered(questions: Any, **texts: str) -> dict[str, str]:
    """A right answer to every question, but for those that are given by subject and number."""
    given = {f"validation_{name}": text for name, text in texts.items()}
    return {question.id: given.get(question.id, question.truth[0]) for question in questions}


def test_the_questions_come_in_the_tools_order_and_in_both_ways_of_asking(tmp_path: Path) -> None:
    two = row("Art", 12, question="Is <image 2> after <image 1>?", options='["<image 3>", "it\'s no"]')
    write(tmp_path, two, row("Art", 3), free("Music", 1, "5.2"))
    questions = VAL.read(tmp_path, "v1.5")
    assert [question.category for question in questions] == sorted([*SUBJECTS, "Art"])
    assert [question.id for question in questions[3:5]] == ["validation_Art_12", "validation_Art_3"], (
        "a subject keeps its file's order"
    )
    first = questions[3]
    assert first.prompt == f"Is <image 2> after <image 1>?\n(A) <image 3>\n(B) it's no\n\n{DIRECTLY}"
    assert [picture_bytes(picture) for picture in first.pictures] == [b"validation_Art_12 1"]
    asked = {question.id: question for question in VAL.read(tmp_path, "lmms-eval")}
    other = asked["validation_Art_12"]
    assert other.prompt == f"Is <image 2> after <image 1>?\nA. <image 3>\nB. it's no\n\n{DIRECTLY}"
    assert [picture_bytes(picture)[-1:] for picture in other.pictures] == [b"1", b"2", b"3"]
    short = "Answer the question using a single word or phrase."
    assert asked["validation_Music_1"].prompt == f"What is in <image 1>, by Music?\n\n{short}"
    assert questions[25].prompt == f"What is in <image 1>, by Music?\n{short}"


def test_one_file_of_all_subjects_reads_as_the_official_folders_do(tmp_path: Path) -> None:
    rows = [row(subject) for subject in SUBJECTS] + [free("Music", 2, "['5.2', 'five']")]
    write(tmp_path / "official", *rows)
    save(tmp_path / "copy/data/validation-00000-of-00001.parquet", rows)
    official, copy = (VAL.read(tmp_path / name, "v1.5") for name in ("official", "copy"))
    assert [(q.id, q.prompt, q.truth, q.meta) for q in official] == [
        (q.id, q.prompt, q.truth, q.meta) for q in copy
    ]
    assert official[25].truth == ["5.2", "five"]


def test_an_answer_without_a_letter_is_wrong_and_drawn_in_the_headline(tmp_path: Path) -> None:
    rows = [row("Accounting", number) for number in range(1, 4)] + [free("Music", 1, "5.2")]
    write(tmp_path, *rows, row("Biology", 1, options="['yes', 'no']", answer="B"))
    questions = VAL.read(tmp_path, "v1.5")
    random.seed(42)
    draws = [random.choice(list("ABCD")) for _ in range(3)] + [random.choice(list("AB"))]
    assert draws == ["A", "A", "C", "A"], "the tool draws these, one after another"
    unread = {"Accounting_1": "oak", "Accounting_2": "", "Accounting_3": "none", "Biology_1": "no"}
    verdicts = [
        VAL.mark(q, text) for q, text in zip(questions, answered(questions, **unread).values(), strict=True)
    ]
    assert sum(verdict.credit for verdict in verdicts) == 28
    assert {v.note for v in verdicts if not v.credit} == {"no option found, one is drawn in the headline"}
    figures = VAL.summarise(verdicts)
    assert figures["accuracy"] == 100 * 30 / 32, "the first two draws hit"
    assert figures["unread answers wrong"] == 100 * 28 / 32
    assert figures["unread answers at their chance"] == pytest.approx(100 * (28 + 3 / 4 + 1 / 2) / 32)
    assert figures["Accounting"] == pytest.approx(200 / 3) and figures["Biology"] == 0
    assert figures["Business"] == pytest.approx(100 * 6 / 7) and figures["Science"] == 80
    assert figures["with options"] == 100 * 29 / 31 and figures["open"] == 100
    assert list(figures)[3:11] == ["with options", "open", *DISCIPLINES]
    assert VAL.summarise(verdicts[::-1]) == figures, "the order in which answers come is of no account"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A", "A"), ("A.", "A"), ("(A) oak or (B)", "B"), ("It is A", "A"), ("A is not B", "B"), ("NASA rocket", None),
        ("a", None), ("E", None), ("I believe that it is some oak", "A"), ("it is some oak", None),
        ("\x1b[31mA", None), ("x" * 100_000, None), ("A " * 50_000, "A"),
    ],
)  # fmt: skip
def test_a_letter_is_read_by_the_tools_rule(tmp_path: Path, answer: str, letter: str | None) -> None:
    write(tmp_path)
    question = VAL.read(tmp_path, "v1.5")[0]
    verdict = VAL.mark(question, answer)
    assert (verdict.parsed, verdict.credit) == (letter, float(letter == "A"))


@pytest.mark.parametrize(
    ("answer", "credit"),
    [("5.2", 1), ("The answer is 5.2 V", 1), ("high five!", 1), ("5.3", 0), ("", 0), ("5.2" * 30_000, 0)],
)
def test_a_free_answer_fits_any_of_its_truths(tmp_path: Path, answer: str, credit: float) -> None:
    write(tmp_path, free("Art", 1, "['5.2', 'five']"))
    verdict = VAL.mark(VAL.read(tmp_path, "v1.5")[3], answer)
    assert verdict.credit == credit
    assert (verdict.parsed is None) == (not answer)


def test_what_lmms_eval_gives_is_said_beside(tmp_path: Path) -> None:
    write(tmp_path, free("Art", 1, "5.2"), free("Art", 2, "['5.2', 'five']"), row("Biology", 1, answer="B"))
    questions = VAL.read(tmp_path, "v1.5")
    # an A before a blank counts inside a word; an unread answer counts a quarter; a list of truths is one text there
    texts = answered(questions, Accounting_1="NASA rocket", Biology_1="elm", Art_1="It is 5.2", Art_2="5.2")
    assert VAL.others is not None
    assert VAL.others(questions, texts) == {
        "lmms-eval 0.7.3: mmmu_acc": pytest.approx(100 * (28 + 1 / 4 + 1) / 31),
        "lmms-eval 0.7.2: mmmu_acc": pytest.approx(100 * (28 + 1 / 4) / 31),
    }
    marked = mark_answers(VAL, questions, texts)
    assert marked.figures["unread answers wrong"] == 100 * 29 / 31
    assert marked.notes["no option found, one is drawn in the headline"] == 2


def test_awkward_saved_answers_are_counted_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data, path = tmp_path / "mmmu", tmp_path / "answers.json"
    write(data)
    texts = answered(VAL.read(data, "v1.5"), Art_1="", Music_1="x" * 100_000, Math_1="\x00\x1b (A)\x07")
    path.write_text(json.dumps(dict(reversed(texts.items()))))
    scored = score_file("mmmu", path, data)
    assert scored.marked.figures["unread answers wrong"] == 100 * 28 / 30
    assert scored.marked.score == 100, "both draws, of four options each, are A"
    assert {"answers that are empty", "answers of more than 10,000 characters"} <= scored.counts.keys()
    assert scored.counts["answers with control characters"] == 1
    rows = [{"id": name, "response": text} for name, text in texts.items()]
    path.write_text(json.dumps([*rows, rows[0]]))
    assert score_file("mmmu", path, data).counts["answers given twice, the same"] == 1
    path.write_text(json.dumps([*rows, {"id": rows[0]["id"], "response": "B"}]))
    with pytest.raises(LlavakitError, match="validation_Accounting_1 has two answers that differ"):
        score_file("mmmu", path, data)
    path.write_text(json.dumps(rows[1:]))
    with pytest.raises(
        LlavakitError, match="1 of 30 questions have no answer, validation_Accounting_1 first"
    ):
        score_file("mmmu", path, data)
    part = score_file("mmmu", path, data, partial=True)
    assert part.counts["questions without an answer, left out"] == 1 and len(part.questions) == 29


def test_what_is_missing_or_unusable_is_told(tmp_path: Path) -> None:
    with pytest.raises(LlavakitError, match=r"MMMU/MMMU, a folder a subject; or data/validation"):
        VAL.read(tmp_path, "v1.5")
    write(tmp_path, without=("Music", "Art"))
    with pytest.raises(
        LlavakitError, match="has 28 of MMMU's 30 subjects and lacks Art, Music: put them there"
    ):
        VAL.read(tmp_path, "v1.5")
    save(tmp_path / "Music/validation-00000-of-00001.parquet", [row("Music")])
    for changed, told in (
        ({"answer": "E"}, "4 options and the answer 'E'"),
        ({"options": "__import__('os').getcwd()"}, "is no list of options"),
        ({"options": "[]"}, "is no list of options"),
        ({"id": "validation_Alchemy_1"}, "of no subject"),
    ):
        save(tmp_path / "Art/validation-00000-of-00001.parquet", [row("Art", **changed)])
        with pytest.raises(LlavakitError, match=told):
            VAL.read(tmp_path, "v1.5")
    save(tmp_path / "Art/validation-00000-of-00001.parquet", [row("Art"), row("Art")])
    with pytest.raises(LlavakitError, match="two questions have the id validation_Art_1"):
        VAL.read(tmp_path, "v1.5")


def test_the_test_split_has_no_score_here_and_goes_to_the_server(tmp_path: Path) -> None:
    open_one = row("Art", 2, split="test", options="[]", question_type="open")
    write(tmp_path, row("Art", 1, split="test"), open_one, split="test")
    questions = TEST.read(tmp_path, "v1.5")
    texts = {question.id: "B." for question in questions} | {"test_Art_2": "a red fox", "test_Biology_1": "?"}
    marked = mark_answers(TEST, questions, texts)
    assert math.isnan(marked.score) and math.isnan(marked.figures["Art"])
    assert marked.notes["truth is on the server"] == 30
    assert TEST.submission is not None
    TEST.submission(questions, texts, tmp_path / "up.json")
    sent = json.loads((tmp_path / "up.json").read_text())
    assert len(sent) == 31 and sent["test_Music_1"] == "B"
    assert sent["test_Art_2"] == "a red fox" and sent["test_Biology_1"] == "A", "as the tool draws it"
    with pytest.raises(LlavakitError, match="31 questions have no answer, test_Accounting_1 first"):
        TEST.submission(questions, {}, tmp_path / "up.json")


def test_of_no_answers_at_all_every_figure_is_nan() -> None:
    assert math.isnan(VAL.summarise([])["accuracy"])


def test_a_subject_may_come_in_more_parts_than_another(tmp_path: Path) -> None:
    write(tmp_path, without=("Art",))
    for part in range(2):
        save(tmp_path / f"Art/validation-0000{part}-of-00002.parquet", [row("Art", part + 1)])
    assert len(VAL.read(tmp_path, "v1.5")) == 31
    (tmp_path / "Art/validation-00001-of-00002.parquet").unlink()
    with pytest.raises(LlavakitError, match="1 of the 2 parts"):
        VAL.read(tmp_path, "v1.5")
