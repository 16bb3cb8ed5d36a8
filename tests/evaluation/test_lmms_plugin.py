"""lmms-eval finds llavakit by its entry point and gets the answers that llavakit itself gives.

A stand-in holds what the plugin uses of lmms-eval: the manifest and the base class of its models.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from llavakit.errors import LlavakitError
from llavakit.model.llava import Llava
from llavakit.model.session import ChatSession

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Manifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


class Base:
    is_simple = True

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}
        self.kept: list[Any] = []
        self.cache_hook = SimpleNamespace(add_partial=lambda *all_of_it: self.kept.append(all_of_it))


def parsed(line: str) -> dict[str, Any]:
    pairs = (part.split("=", 1) for part in line.split(",") if part)
    return {name: int(value) if value.isnumeric() else value for name, value in pairs}


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The class that the entry point leads to, over the stand-in."""
    for name, content in {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": Base},
        "lmms_eval.api.instance": {},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": Manifest},
        "lmms_eval.utils": {"simple_parse_args_string": parsed},
    }.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
        if "." in name:
            monkeypatch.setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], module, False)
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    module_name, function = entry["lmms_eval.models"]["llavakit"].split(":")
    manifest = getattr(import_module(module_name), function)()
    module_name, class_name = manifest.simple_class_path.rsplit(".", 1)
    yield getattr(import_module(module_name), class_name)
    sys.modules.pop("llavakit.evaluation.lmms_model", None)


def asked(context: str, place: int, **how: Any) -> Any:
    return SimpleNamespace(args=(context, how, lambda document: document["image"], place, "task", "test"))


def test_answers_are_those_of_a_chat_in_the_order_of_the_requests(
    plugin: Any, model_folder: Path, model: Llava
) -> None:
    opened = plugin(str(model_folder), batch_size="4")
    pictures = [Image.effect_noise((40, 40), 30 * number).convert("RGB") for number in (1, 2)]
    opened.task_dict = {"task": {"test": [{"image": [pictures[0]]}, {"image": [pictures[1]]}, {"image": []}]}}
    requests = [
        asked("what colour is the circle", 0, max_new_tokens=6),
        asked("<image>\nwhat is this", 1, max_new_tokens=3, until=["###"]),
        asked("hello", 2, max_new_tokens=6),
    ]
    answers = opened.generate_until(requests)
    expected = [
        ChatSession(model, max_new_tokens=6).ask("what colour is the circle", [pictures[0]]),
        ChatSession(model, max_new_tokens=3).ask("what is this", [pictures[1]]),
        ChatSession(model, max_new_tokens=6).ask("hello"),
    ]
    assert answers == expected and any(answers)
    assert len(opened.kept) == 3


def test_of_several_continuations_the_likeliest_has_the_lowest_loss(plugin: Any, model_folder: Path) -> None:
    opened = plugin(str(model_folder))
    picture = Image.effect_noise((40, 40), 30).convert("RGB")
    opened.task_dict = {"task": {"test": [{"image": [picture]}]}}
    greedy = opened.generate_until([asked("what colour is the circle", 0, max_new_tokens=30)])[0]
    losses = [
        opened.loglikelihood([SimpleNamespace(args=("what colour is the circle", text, lambda document: document["image"], 0, "task", "test"))])[0][0]
        for text in (greedy, "of of of of")
    ]  # fmt: skip
    assert losses[0] < losses[1]


def test_a_release_that_wraps_results_gets_the_pair_in_its_wrapping(
    plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = sys.modules[plugin.__module__]
    assert rooms._loss(0.5) == (0.5, False)
    monkeypatch.setattr(rooms, "GenerationResult", SimpleNamespace)
    assert rooms._loss(0.5).text == (0.5, False)


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (asked("see <image> here", 0), "inside it"),
        (asked("<image><image> what", 0), "2 marks"),
        (asked("what", 0, num_beams=5), "5 beams"),
    ],
)
def test_what_would_be_answered_in_another_way_is_refused(
    plugin: Any, model_folder: Path, request_: Any, told: str
) -> None:
    opened = plugin(str(model_folder))
    opened.task_dict = {"task": {"test": [{"image": [Image.new("RGB", (40, 40))]}]}}
    with pytest.raises(LlavakitError, match=told):
        opened.generate_until([request_])
    with pytest.raises(LlavakitError, match="not conv_template"):
        plugin(str(model_folder), conv_template="vicuna_v1")


@pytest.mark.parametrize(
    ("model_args", "options", "rows"),
    [
        ("", {"batch_size": 8}, 8),
        (",batch_size=16", {"batch_size": 1}, 16),
        (",batch_size=16", {"batch_size": "16"}, 16),
        ("", {"batch_size": "auto"}, 32),
        ("", {"batch_size": "auto:4", "max_batch_size": 12}, 12),
        (",device=cpu", {"batch_size": 1, "device": None}, 1),
    ],
)
def test_a_command_line_may_name_the_batch_in_either_place(
    plugin: Any, model_folder: Path, model_args: str, options: dict[str, Any], rows: int
) -> None:
    opened = plugin.create_from_arg_string(f"pretrained={model_folder}{model_args}", options)
    assert opened.batch_size == rows
    assert opened.device == opened.model.device  # lmms-eval counts requests on it where processes share them


@pytest.mark.parametrize(
    ("model_args", "options", "told"),
    [
        ("pretrained=m,batch_size=16", {"batch_size": 8}, "batch_size=16 and --batch_size says 8"),
        ("pretrained=m,device=cpu", {"device": "cuda"}, "device=cpu and --device says cuda"),
        ("pretrained=m", {"batch_size": "many"}, "'many'"),
        ("pretrained=m,batch_size=0", {}, "0, and has to be"),
        ("batch_size=16", {}, "pretrained=FOLDER"),
    ],
)
def test_a_command_line_that_contradicts_itself_or_names_no_model_is_refused(
    plugin: Any, model_args: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(LlavakitError, match=told):
        plugin.create_from_arg_string(model_args, options)


def test_of_several_processes_each_takes_the_gpu_of_its_rank_unless_one_is_named(
    plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = sys.modules[plugin.__module__]
    monkeypatch.setattr(room.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(room, "choose_device", lambda name: name)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [room._device(name) for name in (None, "cuda", "cuda:0", "cpu")] == [
        "cuda:1",
        "cuda:1",
        "cuda:0",
        "cpu",
    ]
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert room._device(None) is None
