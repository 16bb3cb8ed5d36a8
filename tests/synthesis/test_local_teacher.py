"""A model on this machine answers as a teacher does, and a request's answer is its own whatever is asked beside it."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.model.conftest import TEXT_MODEL, qwen_tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from llavakit.errors import LlavakitError
from llavakit.model.llava import Llava
from llavakit.model.text_model import TextModel
from llavakit.synthesis.context import Annotated
from llavakit.synthesis.kinds import open_kinds
from llavakit.synthesis.local_teacher import LocalTeacher, open_local_teacher
from llavakit.synthesis.tasks import make_tasks
from llavakit.synthesis.teacher import (
    Message,
    SentPicture,
    TeacherError,
    TeacherReply,
    TeacherRequest,
    Trouble,
)
from llavakit.synthesis.teachers import open_teacher

SHOTS = (
    Message("system", "You are a helpful assistant."),
    Message("user", "What is this?"),
    Message("assistant", "It is a small red circle."),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random language model with a chat template."""
    root, tokenizer = tmp_path_factory.mktemp("models") / "qwen", qwen_tokenizer()
    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=len(tokenizer) + 5, eos_token_id=tokenizer.eos_token_id, **TEXT_MODEL)
    model = Qwen2ForCausalLM(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2 if "embed" not in name else 0.5)
    model.save_pretrained(root)
    tokenizer.save_pretrained(root)
    return root


def asked(text: str, seed: int = 0, **settings) -> TeacherRequest:
    settings = {"temperature": 1.0, "max_tokens": 12} | settings
    return TeacherRequest((*SHOTS, Message("user", text)), "m", seed, **settings)


def answers(teacher: LocalTeacher, *requests: TeacherRequest) -> list[TeacherReply]:
    async def run() -> list[TeacherReply]:
        return await asyncio.gather(*map(teacher.reply, requests))

    return asyncio.run(run())


class Watched(LocalTeacher):
    """Notes how many requests were answered together, and how much of their prompts had been read before."""

    def _answer(self, batch):
        self.batches = [*getattr(self, "batches", []), (len(batch), batch[0].head)]
        return super()._answer(batch)


def test_a_request_has_the_same_answer_alone_in_a_batch_and_after_others(folder: Path) -> None:
    requests = [asked(f"How many {thing} are there?", seed) for seed, thing in enumerate(("stars", "stars", "eggs", "red circles"))]  # fmt: skip
    together = Watched(TextModel.open(str(folder)), "tiny")
    replies = answers(together, *requests)
    assert max(size for size, _ in together.batches) >= 2
    for request, reply in zip(requests, replies, strict=True):
        [alone] = answers(LocalTeacher(TextModel.open(str(folder)), "tiny"), request)
        assert alone == reply
    assert answers(together, *requests[::-1]) == replies[::-1]


def test_the_examples_are_read_once_and_reading_them_whole_gives_the_same(folder: Path) -> None:
    request = asked("Is there a green triangle?", temperature=0.0)
    teacher = Watched(TextModel.open(str(folder)), "tiny")
    [reply] = answers(teacher, request)
    [(_, head)] = teacher.batches
    assert head > 30

    class Plain(LocalTeacher):
        def _shared_head(self, messages):
            return []

    assert answers(Plain(TextModel.open(str(folder)), "tiny"), request) == [reply]


def test_greedy_answers_are_those_of_transformers(folder: Path) -> None:
    request = asked("Describe the picture.", temperature=0.0)
    [reply] = answers(LocalTeacher(TextModel.open(str(folder)), "tiny"), request)
    model, tokenizer = Qwen2ForCausalLM.from_pretrained(folder), TextModel.open(str(folder)).tokenizer
    messages = [{"role": m.role, "content": m.content} for m in request.messages]
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    made = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert reply.text == tokenizer.decode(made, skip_special_tokens=True).strip()
    assert (reply.usage.prompt, reply.usage.completion) == (ids["input_ids"].shape[1], len(made))


def test_seeds_and_samples_are_honoured(folder: Path) -> None:
    teacher = LocalTeacher(TextModel.open(str(folder)), "tiny")
    request = asked("Describe the picture.")
    first, again, seeded, sampled = answers(
        teacher, request, request, replace(request, seed=1), replace(request, sample=1)
    )
    assert first == again and len({first.text, seeded.text, sampled.text}) == 3


def test_an_answer_that_ends_stops_and_one_that_is_cut_says_length(folder: Path) -> None:
    model = TextModel.open(str(folder))
    [cut] = answers(LocalTeacher(model, "tiny"), asked("What?", temperature=0.0, max_tokens=3))
    assert (cut.finish, cut.usage.completion, cut.model) == ("length", 3, "tiny")
    bias = torch.zeros(model.language_model.config.vocab_size)
    bias[model.tokenizer.eos_token_id] = 1e4
    plain = model.head
    model.head = lambda hidden_nD: plain(hidden_nD) + bias  # type: ignore[method-assign]
    [ended] = answers(LocalTeacher(model, "tiny"), asked("What?", temperature=0.0))
    assert (ended.finish, ended.text, ended.usage.completion) == ("stop", "", 1)


def test_what_the_model_cannot_do_is_refused_once_and_others_go_on(folder: Path) -> None:
    teacher = LocalTeacher(TextModel.open(str(folder)), "tiny")

    async def run() -> list[object]:
        shown = Message("user", "What?", (sent((8, 8)),))
        requests = [asked("word " * 600), TeacherRequest((shown,)), asked("What?")]
        return await asyncio.gather(*map(teacher.reply, requests), return_exceptions=True)

    long, seeing, good = asyncio.run(run())
    assert isinstance(long, TeacherError) and long.trouble is Trouble.REFUSED and "positions" in str(long)
    assert isinstance(seeing, TeacherError) and "sees no pictures" in str(seeing)
    assert isinstance(good, TeacherReply)


def test_a_request_that_was_given_up_holds_nobody_up(folder: Path) -> None:
    teacher = Watched(TextModel.open(str(folder)), "tiny")

    async def run() -> TeacherReply:
        given_up = asyncio.create_task(teacher.reply(asked("What is this?")))
        await asyncio.sleep(0)
        given_up.cancel()
        return await teacher.reply(asked("How many stars?"))

    assert asyncio.run(run()).usage.completion > 0
    assert [size for size, _ in teacher.batches] == [1]


def test_a_fault_in_answering_reaches_everybody_who_waits(folder: Path) -> None:
    class Broken(LocalTeacher):
        def _answer(self, batch):
            raise KeyError("a fault of the program")

    async def run() -> list[object]:
        teacher = Broken(TextModel.open(str(folder)), "tiny", batch_rows=1)
        waiting = asyncio.gather(
            *(teacher.reply(asked("What?", n)) for n in range(3)), return_exceptions=True
        )
        return await asyncio.wait_for(waiting, 5)

    assert [type(fault) for fault in asyncio.run(run())] == [KeyError] * 3


def test_no_batch_is_larger_than_allowed(folder: Path) -> None:
    teacher = Watched(TextModel.open(str(folder)), "tiny", batch_rows=2)
    answers(teacher, *(asked("What is this?", seed) for seed in range(5)))
    assert [size for size, _ in teacher.batches] == [2, 2, 1]


def sent(size: tuple[int, int], colour: str = "red") -> SentPicture:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return SentPicture("image/png", buffer.getvalue())


def test_a_llava_sees_the_picture(parts: dict[str, str], tmp_path: Path) -> None:
    model = Llava.compose(vision_tower=parts["clip"], language_model=parts["qwen"], template="tokenizer")
    model.save_pretrained(tmp_path / "llava")
    teacher = open_local_teacher(str(tmp_path / "llava"))
    requests = [
        TeacherRequest(
            (SHOTS[0], Message("user", "What is this?", (sent((28, 28), colour),))), "m", 0, 0.0, 12
        )
        for colour in ("red", "blue")
    ]
    replies = answers(teacher, *requests)
    assert replies[0].usage.prompt > replies[0].usage.completion > 0
    expected = [
        model.chat("What is this?", [Image.new("RGB", (28, 28), colour)], max_new_tokens=12)
        for colour in ("red", "blue")
    ]
    without = [replace(request, messages=request.messages[1:]) for request in requests]
    assert [reply.text for reply in answers(teacher, *without)] == expected


def test_teachers_are_opened_by_what_the_user_writes(folder: Path, tmp_path: Path) -> None:
    async def name(spec: str) -> str:
        async with open_teacher(
            spec, rules={"rules": lambda: LocalTeacher(TextModel.open(str(folder)), "mine")}
        ) as one:
            return one.name

    assert asyncio.run(name(f"local:{folder}")) == str(folder)
    assert asyncio.run(name("rules")) == "mine"
    assert asyncio.run(name("http://127.0.0.1:9/v1")).startswith("http://127.0.0.1:9")
    with pytest.raises(LlavakitError, match=r"no teacher 'gpt'; give a server's .*or `rules`"):
        asyncio.run(name("gpt"))
    with pytest.raises(LlavakitError, match="nowhere"):
        asyncio.run(name(f"local:{tmp_path / 'nowhere'}"))


def test_a_task_of_every_text_kind_can_be_put_to_a_local_model(folder: Path) -> None:
    skipped: Counter[str] = Counter()
    tasks = make_tasks(
        [Annotated(1, "1.jpg", ("A dog.",), ())], open_kinds(["brief"]), skipped=skipped, max_tokens=4
    )
    [task] = tasks
    model = TextModel.open(str(folder))
    model.language_model.config.max_position_embeddings = 4096
    [reply] = answers(LocalTeacher(model, "tiny"), task.request)
    assert reply.usage.completion <= 4 and not skipped
