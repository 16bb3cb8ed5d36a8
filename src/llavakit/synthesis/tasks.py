"""Tasks: which request goes out for which picture and kind, and what its reply is as a candidate.

A task is a pure function of the picture, the kind's prompt and the run's settings, so the same run always makes the
same requests, and a reply can be read again at any time without asking. A picture that lacks what a kind needs gets no
task and is counted: a teacher that is told nothing makes a picture up.

Asks nobody, writes no file; opens a picture only for a teacher that is to see it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llavakit.conversation.record import Conversation, Picture, Text, Turn
from llavakit.errors import LlavakitError
from llavakit.synthesis.candidate import Candidate
from llavakit.synthesis.context import Annotated, symbols
from llavakit.synthesis.kinds import BRIEF_QUESTIONS, QUESTIONS
from llavakit.synthesis.pictures import PictureError, PictureFolder, encode
from llavakit.synthesis.prompt_folder import PromptFolder
from llavakit.synthesis.reading import (
    SCHEMAS,
    Read,
    Unreadable,
    read_blocks,
    read_choices,
    read_json,
    read_regions,
    read_text,
)
from llavakit.synthesis.teacher import Message, SentPicture, TeacherReply, TeacherRequest


@dataclass(frozen=True, slots=True)
class Task:
    """One request about one picture.

    id: of the sample it becomes, `KIND-PICTURE`, with `-N` behind it for a further sample (the second is `-2`). seed:
    of the run; whatever is drawn in reading is drawn by it and the id's parts.
    """

    id: str
    kind: str
    picture: Annotated
    request: TeacherRequest
    folder: PromptFolder
    seed: int = 0

    @property
    def prompt(self) -> str:
        """The prompt's identity: name, version and hash."""
        return self.folder.identity

    @property
    def key(self) -> str:
        """The request's key, by which its reply is kept."""
        return self.request.key


def make_tasks(
    pictures: Sequence[Annotated],
    kinds: Sequence[PromptFolder],
    *,
    model: str = "",
    seed: int = 0,
    temperature: float | None = None,
    max_tokens: int | None = None,
    samples: int = 1,
    images: PictureFolder | None = None,
    schemas: bool = True,
    skipped: Counter[str],
) -> Iterator[Task]:
    """Tasks in the order of pictures, kinds and samples, each made when it is asked for.

    Args:
        temperature, max_tokens: in place of those that the prompts say.
        samples: how many replies a picture and kind get; every further one is asked with a seed of its own.
        images: where the pictures lie, for kinds whose teacher sees them.
        schemas: whether the JSON schema of a kind that has one is sent; some servers refuse requests with one.
        skipped: counts, by `kind: reason`, the pictures of which there is no task.

    Raises:
        LlavakitError: two pictures of one data set share an id, or a kind shows pictures and `images` is None.
    """
    if blind := [kind.name for kind in kinds if "picture" in kind.meta.needs and images is None]:
        raise LlavakitError(
            f"The teacher of {', '.join(blind)} sees pictures; give the folder they lie in by --images."
        )
    labels = _labels(pictures, samples)
    for picture, label in zip(pictures, labels, strict=True):
        shown: SentPicture | PictureError | None = None  # of this picture, made once for all kinds
        for kind in kinds:
            lacking = _lacking(picture, kind)
            context = symbols(picture, kind.meta.parts)
            sent: tuple[SentPicture, ...] = ()
            if not lacking and "picture" in kind.meta.needs and images is not None:
                shown = shown or _shown(picture, images)
                if isinstance(shown, PictureError):
                    lacking = shown.reason
                else:
                    sent = (shown,)
            if not lacking and not context.strip() and not sent:
                lacking = "nothing to tell the teacher"
            if lacking:
                skipped[f"{kind.name}: {lacking}"] += 1
                continue
            text = "\n\n".join(part for part in (kind.meta.ask, context) if part)
            messages = [Message("system", kind.system)]
            for given, written in kind.examples:
                messages += [Message("user", given), Message("assistant", written)]
            messages.append(Message("user", text, sent))
            for sample in range(samples):
                request = TeacherRequest(
                    tuple(messages),
                    model,
                    seed + sample,
                    kind.meta.temperature if temperature is None else temperature,
                    kind.meta.max_tokens if max_tokens is None else max_tokens,
                    SCHEMAS.get(kind.meta.form) if schemas else None,
                    sample,
                )
                name = f"{kind.name}-{label}" + (f"-{sample + 1}" if sample else "")
                yield Task(name, kind.name, picture, request, kind, seed)


def _lacking(picture: Annotated, kind: PromptFolder) -> str:
    for need in kind.meta.needs:
        if need != "picture" and not any(getattr(picture, part) for part in need.split(" or ")):
            return f"no {need}"
    return ""


def _shown(picture: Annotated, images: PictureFolder) -> SentPicture | PictureError:
    try:
        return encode(images.find(picture.image))
    except PictureError as error:
        return error


def _labels(pictures: Sequence[Annotated], samples: int) -> list[str]:
    """Ids as text; the data set's name stands ahead of those that two data sets share."""
    times = Counter(str(picture.id) for picture in pictures)
    labels = [
        str(picture.id) if times[str(picture.id)] == 1 else f"{picture.source}-{picture.id}"
        for picture in pictures
    ]
    if twice := [label for label, number in Counter(labels).items() if number > 1]:
        raise LlavakitError(
            f"{len(twice)} ids stand for several pictures of one data set, the first is {twice[0]!r}; "
            "give every picture an id of its own."
        )
    there = set(labels)
    for number in range(2, samples + 1):
        if clash := next((label for label in labels if f"{label}-{number}" in there), None):
            raise LlavakitError(
                f"The id {clash + f'-{number}'!r} stands for a picture and for sample {number} of {clash!r}; "
                "ask for one sample a picture, or give that picture another id."
            )
    return labels


def read_reply(task: Task, reply: TeacherReply) -> Candidate:
    """What a reply says, or why it says nothing. Pure: the same task and reply always give the same candidate."""
    read, reason = Read(), ""
    try:
        if reply.finish != "stop":
            raise Unreadable(f"the reply was cut ({reply.finish})")
        if reply.refusal:
            raise Unreadable("the teacher declined")
        read = _read(task, reply.text)
    except Unreadable as error:
        reason = str(error)
    suffix = task.folder.meta.suffix
    exchanges = tuple(
        (f"{question}\n{suffix}" if suffix else question, answer) for question, answer in read.exchanges
    )
    fewest, most = task.folder.meta.exchanges
    if exchanges and not fewest <= len(exchanges) <= most:
        read.notes.append(f"{'fewer' if len(exchanges) < fewest else 'more'} exchanges than asked for")
    return Candidate(
        task.id,
        task.kind,
        task.picture,
        exchanges,
        reply.text,
        reply.finish,
        reply.refusal,
        reason,
        task.folder.instructions,
        reply.model,
        tuple(read.notes),
    )


def _read(task: Task, text: str) -> Read:
    meta, further = task.folder.meta, task.request.sample
    rng = random.Random(f"{task.seed}/{task.kind}/{task.picture.id}" + (f"/{further}" if further else ""))
    match meta.form:
        case "blocks":
            return read_blocks(text)
        case "text":
            questions = QUESTIONS[meta.questions] if isinstance(meta.questions, str) else meta.questions
            return read_text(text, questions, rng)
        case "json":
            return read_json(text)
        case "choices":
            return read_choices(text, rng)
        case "regions":
            return read_regions(text, task.picture, rng)


def conversation(candidate: Candidate, meta: Mapping[str, Any] | None = None) -> Conversation:
    """A candidate's exchanges as a record, the picture on its own line before the first question."""
    turns = []
    for number, (question, answer) in enumerate(candidate.exchanges):
        ahead = (Picture(0), Text("\n" + question)) if number == 0 else (Text(question),)
        turns += [Turn("user", ahead), Turn("assistant", (Text(answer),))]
    told = {"kind": candidate.kind, "teacher": candidate.teacher} if meta is None else dict(meta)
    return Conversation(candidate.id, "", (candidate.picture.image,), tuple(turns), told)


def caption_pairs(
    pictures: Sequence[Annotated], *, seed: int = 0, questions: Sequence[str] = BRIEF_QUESTIONS
) -> list[Conversation]:
    """Stage 1's data: a question drawn from a list and, as its answer, the first caption people wrote for the picture
    (LLaVA, section 4.1). A picture without captions gives none."""
    pairs = []
    for picture in pictures:
        if not picture.captions:
            continue
        question = random.Random(f"{seed}/caption/{picture.id}").choice(questions)
        spoken = ((question, picture.captions[0]),)
        candidate = Candidate(f"caption-{picture.id}", "caption", picture, spoken, picture.captions[0])
        pairs.append(conversation(candidate, {"kind": "caption"}))
    return pairs
