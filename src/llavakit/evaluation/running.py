"""Asks a model a benchmark's questions: in batches, journalled, shared among processes, under a condition.

Answers are greedy. What a batch holds changes an answer by no more than the rounding of sums; tests hold that in
float32 the answers are the same. A question with options to rank is answered by the letter of the likeliest.

Knows models and questions, and no benchmark in particular.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from llavakit.conversation.record import Conversation, Part, Picture, Text, Turn
from llavakit.conversation.templates import get_template
from llavakit.conversation.tokenize import Encoded, encode
from llavakit.errors import LlavakitError
from llavakit.evaluation import benchmarks
from llavakit.evaluation.asked import Asking, Journal
from llavakit.evaluation.benchmark import Benchmark, Question
from llavakit.evaluation.conditions import under
from llavakit.evaluation.judge import Judge
from llavakit.evaluation.pictures import PictureSource, named, picture_bytes
from llavakit.evaluation.provenance import Hashes, questions_hash
from llavakit.evaluation.reading import read_questions
from llavakit.evaluation.results import Scored
from llavakit.evaluation.saved import oddities
from llavakit.evaluation.scoring_saved import choose_variant, data_folder, scored
from llavakit.images.pixels import PictureError, open_picture
from llavakit.model.generation import Request, generate
from llavakit.model.llava import Llava
from llavakit.model.ranking import option_losses
from llavakit.model.reuse import PictureFeatures

Progress = Callable[[int, int], None]
ROUNDS = 8
"""Batches whose prompts and pictures are held at once, so that questions of like length find each other."""


def prepare(questions: Sequence[Question], asking: Asking) -> list[Question]:
    """What all processes ask together: the questions under the condition, up to the limit, whole units only."""
    put = under(asking.condition, questions)
    if asking.limit is None or asking.limit >= len(put):
        return put
    taken: set[tuple[str, str]] = set()
    room = asking.limit
    for unit, size in Counter(map(_unit, put)).items():  # in the order in which they first come
        if taken and size > room:
            break
        taken.add(unit)
        room -= size
    return [question for question in put if _unit(question) in taken]


def _unit(question: Question) -> tuple[str, str]:
    return ("unit", question.unit) if question.unit else ("question", question.id)


def share(questions: Sequence[Question], rank: int, world: int) -> list[Question]:
    """A process's part: a stretch of its own, so that questions of one picture mostly stay together."""
    count = len(questions)
    return list(questions[rank * count // world : (rank + 1) * count // world])


def settings(
    model: Llava, hash_of_model: str, benchmark: Benchmark, questions: Sequence[Question], asking: Asking
) -> dict[str, Any]:
    """What has to be equal for two answers to be of the same run."""
    return {
        "benchmark": benchmark.name,
        "model": hash_of_model,
        "questions": questions_hash(questions),
        "condition": asking.condition,
        "max_new_tokens": asking.max_new_tokens or benchmark.max_new_tokens,
        "decoding": "greedy",
        "template": model.settings.template,
        "image_policy": model.settings.image_policy.name,
        "dtype": str(next(model.language_model.parameters()).dtype).removeprefix("torch."),
    }


def ask(
    model: Llava,
    questions: Sequence[Question],
    journal: Journal,
    asking: Asking,
    max_new_tokens: int,
    progress: Progress = lambda done, total: None,
) -> Mapping[str, str]:
    """Asks what this process has to ask and the journal does not hold; returns all answers that it holds.

    questions: all that `prepare` gives, over all processes. progress: hears questions done and all of this process.
    Raises LlavakitError, naming the question, when a picture cannot be opened or a prompt does not fit the model.
    """
    mine = share(questions, asking.rank, asking.world)
    left = [question for question in mine if question.id not in journal.answers]
    done = len(mine) - len(left)
    progress(done, len(mine))
    features = PictureFeatures(model)
    size = asking.batch * ROUNDS
    rounds = [left[start : start + size] for start in range(0, len(left), size)]
    for some, pictures in _opened_ahead(rounds):
        written = [question for question in some if not question.choices]

        def answered(place: int, text: str, written: Sequence[Question] = written) -> None:
            nonlocal done
            journal.keep(written[place].id, text)
            done += 1
            progress(done, len(mine))

        requests = [_request(model, question, pictures[question.id]) for question in written]
        generate(
            model,
            requests,
            max_new_tokens=max_new_tokens,
            batch_rows=asking.batch,
            on_answer=answered,
        )
        for question in some:
            if question.choices:
                letter, losses = rank_choices(model, question, pictures[question.id], features)
                journal.keep(question.id, letter, losses=losses)
                done += 1
                progress(done, len(mine))
        journal.sync()
    return journal.answers


def rank_choices(
    model: Llava,
    question: Question,
    pictures: Sequence[Image.Image],
    features: PictureFeatures | None = None,
) -> tuple[str, list[float]]:
    """The letter of the option that the model finds likeliest, a token on average, and all options' losses."""
    if len(question.choices) > len(string.ascii_uppercase):
        raise LlavakitError(
            f"question {question.id} has {len(question.choices)} options, at most 26 have letters"
        )
    options = [encode_question(model, question, pictures, choice) for choice in question.choices]
    losses = option_losses(model, options, pictures, features)
    return string.ascii_uppercase[losses.index(min(losses))], losses


def _opened_ahead(
    rounds: Sequence[Sequence[Question]],
) -> Iterator[tuple[Sequence[Question], dict[str, list[Image.Image]]]]:
    """Rounds with their pictures; while one is answered the next one's are opened."""
    with ThreadPoolExecutor(1) as aside:
        coming = [aside.submit(_open, some) for some in rounds[:1]]
        for number, some in enumerate(rounds, start=1):
            pictures = coming.pop().result()
            coming += [aside.submit(_open, following) for following in rounds[number : number + 1]]
            yield some, pictures


def _open(questions: Sequence[Question]) -> dict[str, list[Image.Image]]:
    """Every question's pictures, one that several ask about opened once."""
    opened: dict[PictureSource, Image.Image] = {}
    result = {}
    for question in questions:
        for source in question.pictures:
            if source not in opened:
                try:
                    opened[source] = open_picture(picture_bytes(source))
                except PictureError as error:  # of bytes, so that the sentence does not name the picture
                    raise LlavakitError(f"question {question.id}, {named(source)}: {error}") from error
                except LlavakitError as error:  # the sentence names the picture, not who asks about it
                    raise LlavakitError(f"question {question.id}: {error}") from error
        result[question.id] = [opened[source] for source in question.pictures]
    return result


def _request(model: Llava, question: Question, pictures: Sequence[Image.Image]) -> Request:
    encoded = encode_question(model, question, pictures)
    limit = getattr(model.language_model.config, "max_position_embeddings", None)
    if limit is not None and len(encoded.ids) >= limit:
        raise LlavakitError(
            f"question {question.id}: its prompt takes {len(encoded.ids)} positions, the language model has {limit}"
        )
    return Request(encoded, pictures)


def encode_question(
    model: Llava, question: Question, pictures: Sequence[Image.Image], answer: str | None = None
) -> Encoded:
    """The prompt, pictures first as LLaVA shows them; with an answer, the whole conversation."""
    parts: list[Part] = [Picture(number) for number in range(len(pictures))]
    parts.append(Text(f"\n{question.prompt}" if pictures else question.prompt))
    turns = [Turn("user", tuple(parts))]
    if answer is not None:
        turns.append(Turn("assistant", (Text(answer),)))
    names = tuple(f"picture {number + 1}" for number in range(len(pictures)))
    conversation = Conversation(question.id, "evaluation", names, tuple(turns), {})
    lengths = [model.image_length(*picture.size, len(pictures)) for picture in pictures]
    template = get_template(model.settings.template, model.tokenizer)
    return encode(conversation, template, model.tokenizer, lengths, prompt=answer is None)


def run_benchmark(
    model: Llava,
    hash_of_model: str,
    name: str,
    data: Path,
    out: Path,
    asking: Asking,
    *,
    variant: str | None = None,
    hashes: Hashes | None = None,
    progress: Progress = lambda done, total: None,
    judge: Judge | None = None,
    partial: bool = False,
) -> Scored | None:
    """Asks one benchmark's questions, as far as the journal below `out` lacks answers, and scores them.

    Returns None for one of several processes, whose answers are scored by a last call with `world` 1, which finds them
    all in the journals and asks only what is missing.
    """
    asking.check()
    benchmark = benchmarks.load(name)
    chosen = choose_variant(benchmark, variant)
    folder = data_folder(data, name)
    questions = read_questions(benchmark, folder, chosen.name)
    put = prepare(questions, asking)
    told = settings(model, hash_of_model, benchmark, questions, asking)
    with Journal(out / "asked" / name, told, asking.rank, asking.world) as journal:
        answers = ask(model, put, journal, asking, int(told["max_new_tokens"]), progress)
        torn = journal.torn
    if asking.world > 1:
        return None
    wanted = {question.id for question in put}
    asked = [question for question in questions if question.id in wanted]
    texts = {question.id: answers[question.id] for question in asked}
    counts = dict(oddities(texts.values()))
    if torn:
        counts["answers cut off by the end of a process, asked again"] = torn
    return scored(
        benchmark,
        chosen,
        asked,
        texts,
        counts,
        (hashes or Hashes()).data(benchmark, folder),
        len(questions),
        asking={**told, "batch": asking.batch, "limit": asking.limit},
        judge=judge,
        folder=out,
        partial=partial,
    )
