"""VQAv2, GQA, TextVQA and MME, on files in the official forms with scores counted by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Benchmark, Figures, Question
from llavakit.evaluation.benchmarks import load
from llavakit.evaluation.benchmarks import mme as mme_rules
from llavakit.evaluation.pictures import picture_bytes
from llavakit.evaluation.provenance import questions_hash
from llavakit.evaluation.saved import join
from llavakit.evaluation.scoring_saved import score_file

SHORT = "Answer the question using a single word or phrase."


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def scored(benchmark: Benchmark, questions: list[Question], answers: list[str]) -> Figures:
    return benchmark.summarise([benchmark.mark(q, a) for q, a in zip(questions, answers, strict=True)])


def people(*told: str) -> list[dict[str, Any]]:
    return [
        {"answer_id": n, "answer": answer, "answer_confidence": "yes"} for n, answer in enumerate(told, 1)
    ]


def vqa_files(folder: Path) -> None:
    asked = [{"image_id": 42, "question": "What colour is it?", "question_id": 420}, {"image_id": 42, "question": "Is it?", "question_id": 421}]  # fmt: skip
    write(folder / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": asked})
    told = [
        {"question_id": 420, "answer_type": "other", "answers": people(*["red"] * 2, *["blue"] * 8)},
        {"question_id": 421, "answer_type": "yes/no", "answers": people(*["yes"] * 10)},
    ]
    write(folder / "v2_mscoco_val2014_annotations.json", {"annotations": told})


def test_vqav2_is_scored_by_the_official_tool(tmp_path: Path) -> None:
    vqa_files(tmp_path)
    benchmark = load("vqav2_val")
    questions = benchmark.read(tmp_path, "v1.5")
    assert questions[0].prompt == f"What colour is it?\n{SHORT}"
    assert str(questions[0].pictures[0].path).endswith("val2014/COCO_val2014_000000000042.jpg")  # type: ignore[union-attr]
    # two of ten say red: 0.6; "Yes" reaches the server as "yes": 1; as it stands it is 0, because all ten agree
    figures = scored(benchmark, questions, ["The red.", "Yes"])
    assert figures == {"accuracy": pytest.approx(80), "other": pytest.approx(60), "yes/no": 100}
    assert benchmark.others is not None
    told = benchmark.others(questions, {"420": "The red.", "421": "Yes"})
    assert told["m4c: accuracy"] == told["lmms-eval: exact_match"] == pytest.approx(80)
    assert told["vqaEval, answers as they stand: accuracy"] == pytest.approx(30)


def copy(path: Path, **columns: Any) -> None:
    """A Parquet copy; without a column of its own, every row's picture is its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": b"picture %d" % n, "path": None} for n in range(len(next(iter(columns.values()))))]
    pq.write_table(pa.table({**columns, "image": pa.array(rows, image)}), path)


def test_vqav2s_copy_asks_the_same(tmp_path: Path) -> None:
    copy(
        tmp_path / "data" / "validation-00000-of-00001.parquet",
        question_id=[420, 421],
        image_id=[42, 42],
        question=["What colour is it?", "Is it? "],
        answers=[people(*["red"] * 2, *["blue"] * 8), people(*["yes"] * 10)],
        answer_type=["other", "yes/no"],
    )
    benchmark = load("vqav2_val")
    copied = benchmark.read(tmp_path, "v1.5")
    assert [picture_bytes(q.pictures[0]) for q in copied] == [b"picture 0", b"picture 1"]
    vqa_files(tmp_path)
    official = benchmark.read(tmp_path, "v1.5")  # which goes first where both are there
    assert questions_hash(copied) == questions_hash(official)
    assert copied[0].pictures != official[0].pictures


def test_vqav2_hands_every_id_to_the_server(tmp_path: Path) -> None:
    rows = [{"image_id": 1, "question": "What?", "question_id": n} for n in (10, 11, 12)]
    write(tmp_path / "v2_OpenEnded_mscoco_test-dev2015_questions.json", {"questions": rows[1:2]})
    write(tmp_path / "v2_OpenEnded_mscoco_test2015_questions.json", {"questions": rows})
    benchmark = load("vqav2")
    questions = benchmark.read(tmp_path, "v1.5")
    assert benchmark.submission is not None
    benchmark.submission(questions, {"11": "Two Dogs."}, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == [
        {"question_id": 10, "answer": ""}, {"question_id": 11, "answer": "2 dogs"}, {"question_id": 12, "answer": ""},
    ]  # fmt: skip
    assert math.isnan(scored(benchmark, questions, ["two"])["accuracy"])
    # 107,394 questions that each told all 447,793 ids would be written as half a terabyte
    assert all(isinstance(value, str) for value in questions[0].meta.values())
    with pytest.raises(LlavakitError, match="1 questions have no answer, 11 first"):
        benchmark.submission(questions, {"10": "two"}, tmp_path / "other.json")
    assert not (tmp_path / "other.json").exists()


def test_gqa_compares_the_very_answer(tmp_path: Path) -> None:
    rows = {
        "1": {"question": "Is it red?", "answer": "yes", "imageId": "n1", "isBalanced": True, "types": {"structural": "verify"}},
        "2": {"question": "What is it?", "answer": "traffic light", "imageId": "n2", "isBalanced": True, "types": {"structural": "query"}},
        "3": {"question": "What?", "answer": "cup", "imageId": "n2", "isBalanced": False, "types": {"structural": "query"}},
    }  # fmt: skip
    write(tmp_path / "testdev_balanced_questions.json", rows)
    benchmark = load("gqa")
    questions = benchmark.read(tmp_path, "v1.5")
    assert [q.id for q in questions] == ["1", "2"]
    figures = scored(benchmark, questions, ["Yes.", "a traffic light"])
    assert (figures["accuracy"], figures["binary"], figures["open"]) == (50, 100, 0)


def test_gqas_copy_joins_its_pictures(tmp_path: Path) -> None:
    copy(
        tmp_path / "testdev_balanced_instructions" / "testdev-00000-of-00001.parquet",
        id=["1", "2", "3"],
        imageId=["n2", "n1", "n3"],
        question=["Is it red?", "What is it?", "What?"],
        answer=["yes", "cup", "cup"],
        isBalanced=[True, True, False],
        types=[{"structural": kind, "semantic": "attr"} for kind in ("verify", "query", "query")],
    )
    benchmark = load("gqa")
    bare = benchmark.read(tmp_path, "v1.5")
    assert str(bare[0].pictures[0].path).endswith("images/n2.jpg")  # type: ignore[union-attr]
    copy(tmp_path / "testdev_balanced_images" / "testdev-00000-of-00001.parquet", id=["n1", "n2"])
    questions = benchmark.read(tmp_path, "v1.5")
    assert [(q.id, q.truth, q.category) for q in questions] == [("1", "yes", "verify"), ("2", "cup", "query")]
    assert [picture_bytes(q.pictures[0]) for q in questions] == [b"picture 1", b"picture 0"]
    assert benchmark.others is not None
    assert scored(benchmark, questions, ["yes", "c.u.p"])["accuracy"] == 50
    assert benchmark.others(questions, {"1": " Yes.\n", "2": "c.u.p"}) == {
        "lmms-eval: exact_match": 100,
        "VLMEvalKit: accuracy": 0,
    }


def textvqa_files(folder: Path) -> None:
    rows = [
        {
            "question_id": 34602,
            "image_id": "abc",
            "question": "What brand?",
            "answers": ["nokia"] * 3 + ["phone"] * 7,
        }
    ]
    write(folder / "TextVQA_0.5.1_val.json", {"data": rows})
    row = {
        "question_id": "abc",
        "image": "abc.jpg",
        "text": f"What brand?\nReference OCR token: NOKIA, 12\n{SHORT}",
    }
    write(folder / "llava_textvqa_val_v051_ocr.jsonl", json.dumps(row) + "\n")


def test_textvqa_is_asked_with_tokens_and_without(tmp_path: Path) -> None:
    textvqa_files(tmp_path)
    benchmark = load("textvqa")
    with_tokens, without = (benchmark.read(tmp_path, name) for name in ("v1.5", "v1.6"))
    assert with_tokens[0].prompt == f"What brand?\nReference OCR token: NOKIA, 12\n{SHORT}"
    assert without[0].prompt == f"What brand?\n{SHORT}"
    assert scored(benchmark, without, ["Nokia"])["accuracy"] == pytest.approx(90)
    assert benchmark.answer_id is not None
    assert benchmark.answer_id({"question_id": "abc", "prompt": with_tokens[0].prompt}) == with_tokens[0].id
    write(tmp_path / "llava_textvqa_val_v051_ocr.jsonl", '{"question_id": "abc", "text": "What brand?"}\n')
    with pytest.raises(LlavakitError, match="has no line of tokens"):
        benchmark.read(tmp_path, "v1.5")


def test_the_copy_of_textvqa_gives_the_same_questions(tmp_path: Path) -> None:
    official, copy = tmp_path / "official", tmp_path / "copy"
    rows = [{"image_id": "abc", "question": "what is the Brand?", "answers": ["nokia"] * 10}]
    write(official / "TextVQA_0.5.1_val.json", {"data": rows})
    (copy / "data").mkdir(parents=True)
    picture = {"bytes": b"x", "path": "abc.jpg"}
    table = pa.Table.from_pylist([{**row, "ocr_tokens": ["A", "B"], "image": picture} for row in rows])
    pq.write_table(table, copy / "data" / "validation-0.parquet")
    benchmark = load("textvqa")
    (plain,), (copied,) = (benchmark.read(folder, "v1.6") for folder in (official, copy))
    assert (plain.id, plain.prompt, plain.truth) == (copied.id, copied.prompt, copied.truth)
    assert plain.prompt == f"What is the brand?\n{SHORT}"
    assert benchmark.read(copy, "v1.5")[0].prompt == f"What is the brand?\nReference OCR token: A, B\n{SHORT}"


def mme_files(folder: Path) -> None:
    for task in mme_rules.TASKS:
        nested = task in ("artwork", "celebrity", "landmark", "posters", "scene")
        texts = folder / task / ("questions_answers_YN" if nested else "")
        pictures = folder / task / ("images" if nested else "")
        for name in ("a", "b"):
            write(
                texts / f"{name}.txt",
                "Is it? Please answer yes or no.\tYes\nIs it not? Please answer yes or no.\tNo\n",
            )
            write(pictures / f"{name}.jpg", "")


def test_mme_counts_answers_and_pictures(tmp_path: Path) -> None:
    mme_files(tmp_path)
    benchmark = load("mme")
    questions = benchmark.read(tmp_path, "v1.5")
    assert len(questions) == 56 and questions[0].prompt == f"Is it?\n{SHORT}"
    # of each task's two pictures one has both right, the other one of two: 75 + 50
    figures = scored(benchmark, questions, ["Yes", "No", "Yes", "Yes"] * 14)
    assert figures["count"] == 125 and figures["perception"] == 1250 and figures["cognition"] == 500
    # pairs are known by their picture, in whatever order they come; a sum that lacks a task is no sum
    verdicts = [benchmark.mark(q, "Yes") for q in questions]
    assert benchmark.summarise(verdicts[::-1])["perception"] == 500
    assert math.isnan(benchmark.summarise(verdicts[4:])["perception"])
    assert benchmark.others is not None
    told = benchmark.others(questions, {q.id: q.truth[0] for q in questions})
    assert told["lmms-eval: total"] == 2800  # y and n are enough for it


def test_mme_knows_the_questions_of_llavas_answers_by_their_prompts(tmp_path: Path) -> None:
    mme_files(tmp_path / "data")
    rows = [
        {"question_id": f"{task}/{name}.jpg", "prompt": f"{asked}\n{SHORT}", "text": text}
        for task in mme_rules.TASKS
        for name in ("a", "b")
        for asked, text in (("Is it  not?", "No"), ("Is it?", "Yes"))
    ]
    answers = tmp_path / "llava.jsonl"
    write(answers, "".join(json.dumps(row) + "\n" for row in rows))
    found = score_file("mme", answers, tmp_path / "data")
    assert (found.marked.score, dict(found.counts)) == (2000, {})
    # the copy names its questions as LLaVA does, and both read the same answers
    cells = [
        {"question_id": f"{task}/{name}.jpg", "question": asked, "answer": truth, "category": task}
        for task in mme_rules.TASKS
        for name in ("a", "b")
        for asked, truth in (("Is it? Please answer yes or no.", "Yes"), ("Is it not?", "No"))
    ]
    (tmp_path / "copy" / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "copy/data/test-00000-of-00001.parquet")
    assert score_file("mme", answers, tmp_path / "copy").marked.score == 2000
    del rows[0]["prompt"]
    write(answers, "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(LlavakitError, match=r"existence/a.jpg has two questions, and the row does not say"):
        score_file("mme", answers, tmp_path / "data")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes", "yes"),
        ("no", "no"),
        ("No, it", "no"),
        ("Yes.", "yes"),
        ("It is not", None),
        ("Nobody", "no"),
        ("", None),
    ],
)
def test_mme_reads_the_first_four_characters(answer: str, said: str | None) -> None:
    assert mme_rules.says(answer) == said


def test_mme_refuses_what_is_not_whole(tmp_path: Path) -> None:
    with pytest.raises(LlavakitError, match="on request; or data/test"):
        load("mme").read(tmp_path, "v1.5")
    mme_files(tmp_path)
    write(tmp_path / "OCR" / "a.txt", "Is it?\tYes\n")
    with pytest.raises(LlavakitError, match="expected two lines"):
        load("mme").read(tmp_path, "v1.5")
    write(tmp_path / "OCR" / "a.txt", "Is it?\tYes\nIs it?\tperhaps\n")
    with pytest.raises(LlavakitError, match="expected Yes or No"):
        load("mme").read(tmp_path, "v1.5")


@pytest.mark.parametrize("name", ["vqav2_val", "vqav2", "gqa", "textvqa"])
def test_a_missing_file_is_named_with_its_source_and_size(tmp_path: Path, name: str) -> None:
    with pytest.raises(LlavakitError, match=r"put there .* \(\d+ MB\) from https://"):
        load(name).read(tmp_path, "v1.5")


@pytest.mark.parametrize("answer", ["", "word " * 20_000, "\x00\x1b[31m", "\ud800"])
def test_any_answer_is_marked(tmp_path: Path, answer: str) -> None:
    vqa_files(tmp_path)
    textvqa_files(tmp_path)
    for name in ("vqav2_val", "textvqa"):
        benchmark = load(name)
        for question in benchmark.read(tmp_path, "v1.5"):
            assert benchmark.mark(question, answer).credit == 0


def test_textvqas_answers_are_named_by_picture_and_prompt(tmp_path: Path) -> None:
    textvqa_files(tmp_path)
    benchmark = load("textvqa")
    questions = benchmark.read(tmp_path, "v1.5")
    for row, fault in (
        ({"question_id": "abc", "text": "x"}, "no field 'prompt'"),
        ({"question_id": "abc", "prompt": None, "text": "x"}, "its prompt is None, expected the text"),
        ({"question_id": None, "prompt": "What brand?", "text": "x"}, "its question_id is None"),
    ):
        with pytest.raises(LlavakitError, match=f"answers, row 1 names no question: .*{fault}"):
            join(benchmark, questions, [row])


def test_truths_of_another_form_are_refused_and_not_taken_letter_by_letter(tmp_path: Path) -> None:
    textvqa_files(tmp_path)
    for answers in ("nokia", [], None, [None], [["nokia"]]):
        row = {"question_id": 1, "image_id": "abc", "question": "What brand?", "answers": answers}
        write(tmp_path / "TextVQA_0.5.1_val.json", {"data": [row]})
        with pytest.raises(LlavakitError, match=r"field 'answers' is .*, expected (a list of )?text"):
            load("textvqa").read(tmp_path, "v1.6")
    vqa_files(tmp_path)
    path = tmp_path / "v2_mscoco_val2014_annotations.json"
    whole = json.loads(path.read_text())
    for told, fault in (
        (people(), "has no answers"),
        ([{"answer": None}], "field 'answer' is None, expected text"),
    ):
        whole["annotations"][0]["answers"] = told
        write(path, whole)
        with pytest.raises(LlavakitError, match=fault):
            load("vqav2_val").read(tmp_path, "v1.5")


def test_the_sets_of_vqav2s_server_have_to_fit(tmp_path: Path) -> None:
    rows = [{"image_id": 1, "question": "What?", "question_id": n} for n in (10, 11, 12)]
    write(tmp_path / "v2_OpenEnded_mscoco_test-dev2015_questions.json", {"questions": rows})
    write(tmp_path / "v2_OpenEnded_mscoco_test2015_questions.json", {"questions": rows[:1]})
    with pytest.raises(
        LlavakitError, match=r"lacks question 11 of .*, and 2 in all: they are of different versions"
    ):
        load("vqav2").read(tmp_path, "v1.5")


@pytest.mark.parametrize(
    "line", ["Reference OCR token: A, B", "Reference OCR token: ", "Reference OCR token:  , A, "]
)
def test_tokens_are_shown_to_the_letter(tmp_path: Path, line: str) -> None:
    textvqa_files(tmp_path)
    row = {"question_id": "abc", "text": f"What brand?\n{line}\n{SHORT}"}
    write(tmp_path / "llava_textvqa_val_v051_ocr.jsonl", json.dumps(row))
    assert load("textvqa").read(tmp_path, "v1.5")[0].prompt == row["text"]
