"""A judge is asked once for every answer, its word is kept with what it was asked by, and its silence marks nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from llavakit.cli.main import main
from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Benchmark, Figures, Question, Variant, Verdict
from llavakit.evaluation.judge import Judge
from llavakit.evaluation.judging import judge_answers
from llavakit.synthesis.asking import Limits
from llavakit.synthesis.teacher import (
    Message,
    Teacher,
    TeacherError,
    TeacherReply,
    TeacherRequest,
    Trouble,
    Usage,
)


def ask(question: Question, answer: str) -> TeacherRequest | None:
    """Nothing is asked about an empty answer."""
    if not answer:
        return None
    content = f"Is {answer!r} right for {question.id}?"
    return TeacherRequest((Message("user", content),), "pinned", temperature=0.2, max_tokens=5)


def mark_judged(question: Question, answer: str, reply: str) -> Verdict:
    try:
        return Verdict(question, reply, float(reply) / 10)
    except ValueError:
        return Verdict(question, None, 0.0, "no number in the judge's reply")


def summarise(verdicts: Sequence[Verdict]) -> Figures:
    return {"score": 100 * sum(verdict.credit for verdict in verdicts) / len(verdicts)}


FREE = Benchmark(
    name="free",
    title="Free answers",
    files=(),
    variants=(Variant("plain", "judged"),),
    read=lambda folder, variant: [],
    mark=lambda question, answer: Verdict(question, None, 0.0, "empty"),
    summarise=summarise,
    headline="score",
    ask_judge=ask,
    mark_judged=mark_judged,
    needs_judge=True,
)
QUESTIONS = [Question(str(number), (), "?", None) for number in range(4)]
ANSWERS = {"0": "a cat", "1": "a dog", "2": "", "3": "a hen"}


class Says:
    """A judge that says what a function says, and counts how often it is asked."""

    name = "says"

    def __init__(self, say: Callable[[TeacherRequest], str]) -> None:
        self.say, self.asked = say, 0

    async def reply(self, request: TeacherRequest) -> TeacherReply:
        self.asked += 1
        return TeacherReply(self.say(request), "judge-2026", usage=Usage(9, 1))


def judge(says: Teacher, **how: object) -> Judge:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Teacher]:
        yield says

    limits = Limits(attempts=1, more_room=1.0)
    return Judge("says", opened, limits=limits, **how)  # type: ignore[arg-type]


def test_every_answer_is_judged_once_and_the_judge_is_told(tmp_path: Path) -> None:
    says = Says(lambda request: "8" if "cat" in request.messages[0].content else "4")
    found = judge_answers(FREE, QUESTIONS, ANSWERS, judge(says), tmp_path)
    assert [verdict.credit for verdict in found.marked.verdicts] == [0.8, 0.4, 0.0, 0.4]
    assert found.marked.score == pytest.approx(40)
    assert (found.told["asked_as"], found.told["answered_as"]) == (["pinned"], ["judge-2026"])
    again = judge_answers(FREE, QUESTIONS, ANSWERS, judge(says), tmp_path)
    assert (says.asked, again.marked.score) == (3, found.marked.score)
    other = judge_answers(FREE, QUESTIONS, ANSWERS, judge(says, model="other"), tmp_path)
    assert other.told["asked_as"] == ["other"] and says.asked == 6
    assert other.told["prompts"] == found.told["prompts"], "the prompts are the same, whoever is asked"


def test_several_runs_give_the_mean_and_how_far_they_spread(tmp_path: Path) -> None:
    says = Says(lambda request: str(2 + 4 * request.sample))
    found = judge_answers(FREE, QUESTIONS, ANSWERS, judge(says, runs=2), tmp_path)
    assert found.told["scores"] == pytest.approx([15, 45])
    assert found.marked.score == pytest.approx(30)
    assert "first judging of 2" in found.marked.interval.method


def test_a_rambling_judge_is_counted(tmp_path: Path) -> None:
    says = Says(lambda request: "I should say that" if "dog" in request.messages[0].content else "10")
    found = judge_answers(FREE, QUESTIONS, ANSWERS, judge(says), tmp_path)
    assert found.marked.notes["no number in the judge's reply"] == 1


def test_what_is_unread_in_any_run_is_counted(tmp_path: Path) -> None:
    says = Says(lambda request: "hm" if request.sample and "dog" in request.messages[0].content else "10")
    found = judge_answers(FREE, QUESTIONS, ANSWERS, judge(says, runs=3), tmp_path)
    assert "no number in the judge's reply" not in found.marked.notes
    assert found.counts["marked in judging 2: no number in the judge's reply"] == 1
    assert found.counts["marked in judging 3: no number in the judge's reply"] == 1


def test_a_reply_that_cannot_be_read_is_asked_for_again_as_the_benchmark_says(tmp_path: Path) -> None:
    def again(first: TeacherRequest, asked: int) -> TeacherRequest | None:
        return replace(first, temperature=asked / 2) if asked < 3 else None

    def say(request: TeacherRequest) -> str:
        content = request.messages[0].content
        return "7" if "cat" in content or ("dog" in content and request.temperature == 1) else "hm"

    benchmark, says = replace(FREE, ask_judge_again=again), Says(say)
    found = judge_answers(benchmark, QUESTIONS, ANSWERS, judge(says), tmp_path)
    assert [verdict.credit for verdict in found.marked.verdicts] == [0.7, 0.7, 0.0, 0.0]
    assert says.asked == 1 + 3 + 3 == found.told["calls"] == found.calls_now
    assert found.counts["replies of the judge that could not be read, asked for again"] == 4
    again_found = judge_answers(benchmark, QUESTIONS, ANSWERS, judge(says), tmp_path)
    assert says.asked == 7 and again_found.calls_now == 0 and again_found.told == found.told


def test_a_judge_that_changes_its_name_midway_is_told(tmp_path: Path) -> None:
    class Renamed(Says):
        async def reply(self, request: TeacherRequest) -> TeacherReply:
            reply = await super().reply(request)
            return replace(reply, model="judge-b") if "cat" in request.messages[0].content else reply

    found = judge_answers(FREE, QUESTIONS, ANSWERS, judge(Renamed(lambda request: "5")), tmp_path)
    assert found.told["answered_as"] == ["judge-2026", "judge-b"]
    assert (found.counts["replies of judge-2026"], found.counts["replies of judge-b"]) == (2, 1)


def silent_on_dogs(request: TeacherRequest) -> str:
    if "dog" in request.messages[0].content:
        raise TeacherError(Trouble.REFUSED, "too long")
    return "10"


def test_an_answer_without_the_judges_word_is_never_marked(tmp_path: Path) -> None:
    with pytest.raises(LlavakitError, match=r"no word on 1 of 3 answers.*--partial"):
        judge_answers(FREE, QUESTIONS, ANSWERS, judge(Says(silent_on_dogs)), tmp_path)
    found = judge_answers(FREE, QUESTIONS, ANSWERS, judge(Says(silent_on_dogs)), tmp_path, partial=True)
    assert [question.id for question in found.questions] == ["0", "2", "3"]
    assert found.counts["questions left out for want of the judge's word"] == 1


def test_where_a_judge_only_helps_to_read_its_silence_leaves_the_official_mark(tmp_path: Path) -> None:
    helped = replace(FREE, needs_judge=False)
    found = judge_answers(helped, QUESTIONS, ANSWERS, judge(Says(silent_on_dogs)), tmp_path)
    assert len(found.questions) == 4
    assert found.counts["read without the judge's help"] == 1


def test_a_judge_that_cannot_be_reached_ends_the_run(tmp_path: Path) -> None:
    def closed(request: TeacherRequest) -> str:
        raise TeacherError(Trouble.ACCESS, "the key is not known")

    with pytest.raises(LlavakitError, match=r"was not asked to the end: .*the key is not known"):
        judge_answers(FREE, QUESTIONS, ANSWERS, judge(Says(closed)), tmp_path)


def test_a_benchmark_without_judge_says_so(tmp_path: Path) -> None:
    with pytest.raises(LlavakitError, match="marked without a judge"):
        judge_answers(replace(FREE, ask_judge=None), QUESTIONS, ANSWERS, judge(Says(str)), tmp_path)


def test_a_judge_needs_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["eval", "--benchmarks", "scienceqa", "--answers", "x", "--judge", "http://127.0.0.1:1"])
    assert end.value.code == 2
    assert "give one with --out" in capsys.readouterr().err
