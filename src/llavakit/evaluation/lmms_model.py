"""A Llava as a model of lmms-eval: the one file that imports that package, opened by its registry alone.

Questions of one setting are answered together by the same packed generation that `llavakit eval` uses, pictures
before the text. A task that wants something else is refused, never answered in another way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lmms_eval.api import instance
from lmms_eval.api.model import lmms
from PIL import Image

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Question
from llavakit.evaluation.running import encode_question
from llavakit.images.pixels import open_picture
from llavakit.model.devices import choose_device
from llavakit.model.generation import Request, generate
from llavakit.model.llava import Llava
from llavakit.model.ranking import option_losses
from llavakit.model.reuse import PictureFeatures

GenerationResult = getattr(instance, "GenerationResult", None)  # not in every release
MARK = "<image>"
DEFAULT_NEW_TOKENS = 1024
AUTO_ROWS = 32
ROUNDS = 8


class LlavakitForLmmsEval(lmms):  # type: ignore[misc] # the package comes without types
    """pretrained: any folder or hub name that llavakit opens. batch_size: questions answered together.

    batch_size may be `auto`, which is 32, or max_batch_size where that is less. device: of this process when it names
    none of several: under `accelerate launch` and `torchrun` each process takes the GPU of its local rank.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str | None = None,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        device: str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown:
            raise LlavakitError(
                f"llavakit takes pretrained, batch_size and device in --model_args, not {', '.join(unknown)}"
            )
        if pretrained is None:
            raise LlavakitError("no model is named; say --model_args pretrained=FOLDER")
        self.batch_size = _rows(batch_size, max_batch_size)
        self.model = Llava.from_pretrained(str(pretrained), device=_device(device))
        self.device = self.model.device

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: Mapping[str, Any] | None = None
    ) -> LlavakitForLmmsEval:
        """The model of a command line: --model_args, and options beside them, of which --batch_size is always passed.

        Raises LlavakitError where the two differ; a batch of 1 beside another is taken as the option not said.
        """
        from lmms_eval.utils import simple_parse_args_string

        said = simple_parse_args_string(arg_string)
        options = {name: value for name, value in (additional_config or {}).items() if value is not None}
        for name in said.keys() & options.keys():
            unsaid = name == "batch_size" and str(options[name]) == "1"
            if str(said[name]) != str(options[name]) and not unsaid:
                raise LlavakitError(
                    f"--model_args says {name}={said[name]} and --{name} says {options[name]}; say one of them"
                )
        return cls(**options | said)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answer to every request, in order; greedy unless a task asks for a temperature."""
        answers = [""] * len(requests)
        alike: dict[tuple[Any, ...], list[int]] = {}
        for place, request in enumerate(requests):
            alike.setdefault(_settings(request.args[1]), []).append(place)
        for (new_tokens, temperature, top_p, stop), places in alike.items():
            size = self.batch_size * ROUNDS
            for start in range(0, len(places), size):
                some = places[start : start + size]
                texts = generate(
                    self.model,
                    [self._request(requests[place].args) for place in some],
                    max_new_tokens=new_tokens,
                    temperature=temperature,
                    top_p=top_p,
                    stop=stop,
                    batch_rows=self.batch_size,
                )
                for place, text in zip(some, texts, strict=True):
                    answers[place] = text
                    context, how = requests[place].args[:2]
                    self.cache_hook.add_partial("generate_until", (context, how), text)
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """The mean loss of every continuation, of which lmms-eval takes the lowest, as of its own LLaVA.

        Whether greedy decoding would write the continuation is not computed and is always False.
        """
        features, found = PictureFeatures(self.model), []
        for request in requests:
            context, target, to_pictures, doc_id, task, split = request.args
            document = self.task_dict[task][split][doc_id]
            answer = target if isinstance(target, str) else str(target(document))
            question, pictures = _question(context, to_pictures, document)
            encoded = encode_question(self.model, question, pictures, answer)
            found.append(_loss(option_losses(self.model, [encoded], pictures, features)[0]))
        return found

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise LlavakitError("llavakit does not answer tasks of several rounds in lmms-eval")

    def _request(self, args: tuple[Any, ...]) -> Request:
        context, _, to_pictures, doc_id, task, split = args
        question, pictures = _question(context, to_pictures, self.task_dict[task][split][doc_id])
        return Request(encode_question(self.model, question, pictures), pictures)


def _rows(batch_size: int | str, most: int | None) -> int:
    """Questions answered together; lmms-eval writes `auto` or `auto:N` for a number that the model finds."""
    if str(batch_size).partition(":")[0] == "auto":
        return min(AUTO_ROWS, most or AUTO_ROWS)
    if not str(batch_size).isdecimal() or int(batch_size) < 1:
        raise LlavakitError(f"batch_size is {batch_size!r}, and has to be a number from 1 on or auto")
    return int(batch_size)


def _device(name: str | None) -> torch.device:
    """The device of that name; of several GPUs that of this process's local rank, where the name leaves it open."""
    several = torch.cuda.is_available() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and name in (None, "cuda"):
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return choose_device(name)


def _loss(loss: float) -> Any:
    """A loss and False as lmms-eval's evaluator hands them on: where it wraps results, it turns a bare pair to text."""
    found = (loss, False)
    return found if GenerationResult is None else GenerationResult(text=found)


def _settings(how: Mapping[str, Any]) -> tuple[int, float, float, tuple[str, ...]]:
    """New tokens, temperature, top_p and stops of a task's settings."""
    if int(how.get("num_beams") or 1) != 1:
        raise LlavakitError(f"the task asks for {how['num_beams']} beams, llavakit answers with one")
    stop = how.get("until") or ()
    temperature = float(how.get("temperature") or 0.0) if how.get("do_sample", True) else 0.0
    return (
        int(how.get("max_new_tokens") or DEFAULT_NEW_TOKENS),
        temperature,
        float(how.get("top_p") or 1.0),
        (stop,) if isinstance(stop, str) else tuple(stop),
    )


def _question(
    context: str, to_pictures: Callable[[Any], Any], document: Any
) -> tuple[Question, list[Image.Image]]:
    """The text that is asked and the pictures of a document, a mark for each at its beginning taken off."""
    pictures = [open_picture(picture) for picture in _flat(to_pictures(document))]
    marks = context.count(MARK)
    if marks not in (0, len(pictures)):
        raise LlavakitError(f"a question has {marks} marks {MARK} and {len(pictures)} pictures")
    text = context
    for _ in range(marks):
        text = text.lstrip()
        if not text.startswith(MARK):
            raise LlavakitError(f"llavakit shows pictures before a question, this one has {MARK} inside it")
        text = text.removeprefix(MARK)
    return Question("asked", (), text.lstrip("\n") if marks else text, None), pictures


def _flat(pictures: Any) -> Iterator[Any]:
    for one in pictures or ():
        if isinstance(one, list | tuple):
            yield from _flat(one)
        else:
            yield one
