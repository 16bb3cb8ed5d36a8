"""Every kind's own prompt obeys the rules it gives: its examples are read back, and none betrays what it was told."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from llavakit.errors import LlavakitError
from llavakit.synthesis.context import Annotated, Box, Word, symbols
from llavakit.synthesis.kinds import BRIEF_QUESTIONS, DETAIL_QUESTIONS, PROMPTS, kind_names, open_kinds
from llavakit.synthesis.pictures import PictureFolder
from llavakit.synthesis.prompt_folder import Meta, read_prompt_folder
from llavakit.synthesis.quality.gates import check
from llavakit.synthesis.reading import LETTER_LINE, PHRASE_LINE
from llavakit.synthesis.tasks import Task, make_tasks, read_reply
from llavakit.synthesis.teacher import TeacherReply, TeacherRequest

KINDS = open_kinds(kind_names())
TOLD = re.compile(
    r"captions?\b|bounding|\bbox(es)?\b|coordinate|\b0\.\d|sentences? (say|tell)|was (given|told)", re.I
)
BOX = re.compile(r'^(?!")(.+): \[([\d., ]+)\]$', re.MULTILINE)


def pictured(given: str) -> Annotated:
    """The picture that an example's symbols stand for."""
    captions, _, rest = given.partition("\n\n")
    plain, _, words = rest.partition("Words in the picture:\n")
    corners = lambda text: tuple(float(value) for value in text.split(","))  # noqa: E731
    boxes = tuple(Box(name, corners(text)) for name, text in BOX.findall(plain))
    spoken = tuple(Word(text, corners(box)) for text, box in re.findall(r'^"(.+)": \[(.+)\]$', words, re.M))
    return Annotated("x", "x.jpg", tuple(captions.split("\n")), boxes, words=spoken)


EXAMPLES = [
    pytest.param(kind, given, written, id=f"{kind.name}-{number}")
    for kind in KINDS
    for number, (given, written) in enumerate(kind.examples)
]


def test_all_kinds_are_there() -> None:
    assert set(kind_names()) == {
        "conversation", "detail", "reasoning", "brief", "false_premise", "multiple_choice", "short_answer",
        "region", "text_rich", "vision_conversation", "vision_detail",
    }  # fmt: skip
    assert len(set(DETAIL_QUESTIONS)) >= 11 and len(set(BRIEF_QUESTIONS)) >= 11


@pytest.mark.parametrize(("kind", "given", "written"), EXAMPLES)
def test_an_example_is_written_as_symbols_and_read_back_without_a_note(
    kind, given: str, written: str
) -> None:
    picture = pictured(given)
    assert symbols(picture, kind.meta.parts) == given
    candidate = read_reply(
        Task("x", kind.name, picture, TeacherRequest(()), kind), TeacherReply(written, "examples")
    )
    assert not candidate.unreadable and not candidate.notes, (candidate.unreadable, candidate.notes)
    questions = [question for question, _ in candidate.exchanges]
    assert len(set(questions)) == len(questions)
    if kind.name != "region":
        assert not TOLD.search(written), TOLD.search(written)
    if kind.meta.form == "blocks":
        assert all(question.partition("\n")[0][-1] in "?." for question in questions)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.examples], ids=lambda kind: kind.name)
def test_a_kind_with_examples_has_two_or_three_that_differ(kind) -> None:
    assert 2 <= len(kind.examples) <= 3
    assert len({written for _, written in kind.examples}) == len(kind.examples)


def test_the_examples_of_a_kind_follow_its_own_rules() -> None:
    by_name = {kind.name: kind for kind in KINDS}
    for _, written in by_name["short_answer"].examples:
        answers = re.findall(r"Answer:\n(.+)\n===", written)
        assert all(len(answer.split()) <= 4 and not answer.endswith(".") for answer in answers)
    for _, written in by_name["brief"].examples:
        assert 8 <= len(written.split()) <= 20, written
    for given, written in by_name["text_rich"].examples:
        for quoted in re.findall(r'"(.+?)"', written):
            assert f'"{quoted}"' in given
    assert by_name["short_answer"].meta.suffix == PHRASE_LINE


@pytest.mark.parametrize(("kind", "given", "written"), EXAMPLES)
def test_the_gates_find_nothing_wrong_with_an_example(kind, given: str, written: str) -> None:
    task = Task("x", kind.name, pictured(given), TeacherRequest(()), kind)
    candidate = read_reply(task, TeacherReply(written, "examples"))
    [verdicts] = check([replace(candidate, instructions="")])  # of its own instructions it repeats every word
    assert not verdicts


def test_choices_put_the_right_option_at_every_letter_about_as_often() -> None:
    kind = next(kind for kind in KINDS if kind.name == "multiple_choice")
    letters: Counter[str] = Counter()
    for seed in range(200):
        task = Task("x", kind.name, pictured(kind.examples[0][0]), TeacherRequest(()), kind, seed)
        for question, answer in read_reply(task, TeacherReply(kind.examples[0][1], "m")).exchanges:
            letters[answer] += 1
            assert question.endswith("\n" + LETTER_LINE)
            if question.startswith("How many people"):
                assert f"\n{answer}. Three\n" in question
    assert set(letters) == set("ABCD") and min(letters.values()) > 150


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, "utf-8")
    return folder


def test_a_folder_laid_out_as_the_original_opens_and_its_form_is_read_off_the_examples(
    tmp_path: Path,
) -> None:
    dialogue = {"000_caps__txt": "A dog.\nA cat.", "000_conv__txt": "Question:\nA?\n===\nAnswer:\nB.\n"}
    write(tmp_path / "conversation", system_message__txt="Write.", **dialogue)
    boxed = {"000_caps__txt": "A dog.\n\ndog: [0.1, 0.2, 0.3, 0.4]", "000_conv__txt": "A dog lies there."}
    write(tmp_path / "detail_description", system_message__txt="Describe.", **boxed)
    first, second, third = open_kinds(["conversation", "detail_description", "brief"], tmp_path)
    assert (first.meta.form, first.meta.parts) == ("blocks", ("captions",))
    assert (second.meta.form, second.meta.parts) == ("text", ("captions", "boxes"))
    assert third.hash == read_prompt_folder(PROMPTS / "brief").hash
    assert first.identity == f"conversation@unversioned+{first.hash[:12]}"
    [again] = open_kinds([str(tmp_path / "conversation")])
    assert again == first
    (tmp_path / "conversation" / "000_conv.txt").write_text(dialogue["000_conv__txt"] + "\n")
    assert open_kinds(["conversation"], tmp_path)[0].hash != first.hash


def test_a_prompt_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(LlavakitError, match="There is no kind 'haiku'; there are brief, conversation"):
        open_kinds(["haiku"])
    with pytest.raises(LlavakitError, match="named twice"):
        open_kinds(["brief", "brief"])
    with pytest.raises(LlavakitError, match="no folder"):
        open_kinds([str(tmp_path / "nowhere")])
    with pytest.raises(LlavakitError, match=r"has 000_caps\.txt and no 000_conv\.txt"):
        read_prompt_folder(
            write(tmp_path / "half", system_message__txt="Write.", **{"000_caps__txt": "A dog."})
        )
    with pytest.raises(LlavakitError, match="`form`"):
        read_prompt_folder(write(tmp_path / "odd", system_message__txt="Write.", kind__yaml="form: rhyme"))
    with pytest.raises(LlavakitError, match="is empty"):
        read_prompt_folder(write(tmp_path / "void", system_message__txt=" "))


def test_a_teacher_that_sees_is_shown_the_picture(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), "red").save(tmp_path / "COCO_val2014_000000000007.jpg")
    picture = Annotated(7, "000000000007.jpg", (), ())
    skipped: Counter[str] = Counter()
    kinds = open_kinds(["vision_detail"])
    missing = replace(picture, id=8, image="000000000008.jpg")
    [task] = make_tasks([picture, missing], kinds, images=PictureFolder(tmp_path), skipped=skipped)
    assert task.request.messages[-1].pictures[0].media_type == "image/jpeg"
    assert task.request.messages[-1].content == kinds[0].meta.ask
    assert skipped == {"vision_detail: picture missing": 1}
    with pytest.raises(LlavakitError, match="--images"):
        next(make_tasks([picture], kinds, skipped=skipped))


def test_drawn_questions_come_from_the_list() -> None:
    rng = random.Random(0)
    kind = next(kind for kind in KINDS if kind.name == "brief")
    drawn = {
        read_reply(
            Task("x", "brief", Annotated(rng.random(), "x", (), ()), TeacherRequest(()), kind), TeacherReply("A.", "m")
        ).exchanges[0][0]
        for _ in range(300)
    }  # fmt: skip
    assert drawn == set(BRIEF_QUESTIONS)


def test_the_guide_names_every_kind_and_every_setting() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text("utf-8")
    for name in (*kind_names(), *Meta.model_fields):
        assert f"`{name}`" in guide, name
    numbers = {"sixteen": len(DETAIL_QUESTIONS), "twelve": len(BRIEF_QUESTIONS)}
    assert numbers == {"sixteen": 16, "twelve": 12} and all(f"drawn from {word}" in guide for word in numbers)
