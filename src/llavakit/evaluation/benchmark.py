"""What a benchmark is: questions read from its official files, how an answer is marked, and how marks become a score.

Every benchmark is one file in `benchmarks/` with one `Benchmark`. Its functions are pure: they take questions and
answers and give verdicts and figures, without torch and without a model.

Knows no model and no benchmark in particular.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llavakit.evaluation.pictures import PictureSource
from llavakit.synthesis.teacher import TeacherRequest

Figures = dict[str, float]
"""Figures by name, in the unit in which the benchmark publishes them (most in percent)."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question as it is put to the model.

    id: unique in its benchmark. prompt: the whole text that is asked, response-format line included, without any mark
    for the picture. truth: what marking needs, as plain JSON values. choices: the texts whose likelihood is compared
    where a choice is ranked, in the order of their letters. category: for the breakdown. unit: questions that are
    judged or drawn together (rotations of one question, two questions of one picture); "" for a question by itself.
    meta: what else is known; `place` is the question's place in its file, where saved answers may go by it.
    """

    id: str
    pictures: tuple[PictureSource, ...]
    prompt: str
    truth: Any
    choices: tuple[str, ...] = ()
    category: str = ""
    unit: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What marking made of one answer.

    parsed: what was understood, None when nothing was. credit: between 0 and 1, for the breakdown and the pages; the
    score itself is `Benchmark.summarise`'s. note: a short phrase that is counted, such as "no letter found"; "" when
    there is nothing to say. facts: further values that `summarise` needs.
    """

    question: Question
    parsed: str | None
    credit: float
    note: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NeededFile:
    """A file or folder of a benchmark: its path below the data folder, where it is had, and how large it is."""

    path: str
    source: str
    size: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of asking, by name: `v1.5`, `v1.6`, `ocr`. protocol: a phrase that every cell of a table can carry."""

    name: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Published:
    """A number from a paper or model card that a score may stand beside."""

    model: str
    value: float
    protocol: str
    source: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Everything about one benchmark.

    read: (folder of data, variant's name) to questions; raises LlavakitError, with every missing file, where it is had
    and how large it is. mark: one answer, never raising for what the answer holds. summarise: verdicts of any subset
    of whole units to figures, the headline among them; division by nothing gives nan. headline: the name of the figure
    that tables show. mean: whether the headline is 100 times the mean credit, which lets intervals be drawn fast.

    others: figures that other well-known tools would give for the same answers, by "tool: figure". submission: writes
    the file that a server takes; None where the truth is public. answer_id: the question's id that a row of saved
    answers is for, where it is not the row's `question_id`.

    ask_judge: what a judge is asked about an answer, None where this answer needs none. mark_judged: the mark by a
    judge's reply; its `parsed` is None when the reply says nothing. ask_judge_again: what is asked then, of the first
    request and how often was asked; None for no more. needs_judge: without a judge there is no score; otherwise a judge
    only helps to read answers.
    """

    name: str
    title: str
    files: tuple[NeededFile, ...]
    variants: tuple[Variant, ...]
    read: Callable[[Path, str], list[Question]]
    mark: Callable[[Question, str], Verdict]
    summarise: Callable[[Sequence[Verdict]], Figures]
    headline: str
    mean: bool = True
    max_new_tokens: int = 128
    others: Callable[[Sequence[Question], Mapping[str, str]], Figures] | None = None
    submission: Callable[[Sequence[Question], Mapping[str, str], Path], None] | None = None
    answer_id: Callable[[Mapping[str, Any]], str] | None = None
    published: tuple[Published, ...] = ()
    ask_judge: Callable[[Question, str], TeacherRequest | None] | None = None
    mark_judged: Callable[[Question, str, str], Verdict] | None = None
    ask_judge_again: Callable[[TeacherRequest, int], TeacherRequest | None] | None = None
    needs_judge: bool = False
