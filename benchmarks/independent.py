"""Scorers that others wrote, opened without installing them, and set beside ours on the same random answers.

A package is had with pip into a temporary folder and unpacked there; single files of it are opened by their path, with
empty modules in the place of what they import and scoring does not use. Knows no rule in particular.
"""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

_JOINTS = (" ", " ", " ", "", "\n", "\t", ", ", "; ")


def phrase(draw: random.Random, words: Sequence[str]) -> str:
    """One to five words with or without spaces, now and then a line's end, a tab or nothing at all."""
    drawn = draw.choices(words, k=draw.choice((0, 1, 1, 1, 2, 2, 3, 5)))
    return "".join(word + draw.choice(_JOINTS) for word in drawn[:-1]) + "".join(drawn[-1:])


def package(name: str) -> Path:
    """The folder of a package such as `anls==0.0.2`, unpacked and not installed."""
    folder = Path(tempfile.gettempdir()) / "llavakit-independent-scorers" / name
    if not list(folder.glob("*.dist-info")):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), name]
        subprocess.run(command, check=True, timeout=120)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(folder)
    return folder


def opened(folder: Path, path: str) -> Any:
    """One file of a package as a module of its own name, by its path below the folder."""
    name = path.removesuffix(".py").replace("/", ".")
    spec = importlib.util.spec_from_file_location(name, folder / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def stand_in(name: str, **content: Any) -> None:
    """An empty module in the place of one that the files import and scoring does not use."""
    module = ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module


def stand_in_for_lmms_eval() -> None:
    """What its scoring files import and do not use: logging, charts, servers, the registry of metrics."""
    stand_in("loguru", logger=SimpleNamespace(info=str, warning=print, error=print, debug=str))
    for name in ("", ".tasks", ".tasks._task_utils", ".filters", ".api"):
        stand_in(f"lmms_eval{name}")
    stand_in("lmms_eval.tasks._task_utils.file_utils", generate_submission_file=None)
    stand_in("lmms_eval.api.filter", Filter=object)
    stand_in("lmms_eval.api.reasoning", strip_reasoning_tags=None)
    registered = {
        "register_aggregation": lambda _: lambda rule: rule,
        "register_metric": lambda **_: lambda rule: rule,
    }
    stand_in("lmms_eval.api.registry", **registered)
    stand_in("sacrebleu")
    stand_in("requests")
    stand_in("pandas", isna=lambda cell: cell is None)


def compared(
    name: str,
    cases: Sequence[Any],
    theirs: Callable[[Any], Any],
    ours: Callable[[Any], Any],
    known: Callable[[Any], bool] = lambda _: False,
    reason: str = "",
) -> dict[str, Any]:
    """Counts the cases that differ. known: whether a case is one of those that should be able to."""
    differ = [case for case in cases if theirs(case) != ours(case)]
    unexplained = [case for case in differ if not known(case)]
    told = f", all {len(differ):,} where {reason}" if differ and not unexplained else ""
    print(f"{name}: {len(differ):,} of {len(cases):,} differ{told}")
    if unexplained:
        print(f"  {len(unexplained):,} without a known reason, such as {unexplained[0]!r}")
    return {
        "rule": name,
        "cases": len(cases),
        "differ": len(differ),
        "reason": reason,
        "unexplained": len(unexplained),
    }
