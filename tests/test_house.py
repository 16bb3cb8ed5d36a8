"""The rules of the house, read off the source: which room may import which, who prints, how long a file may be."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "llavakit"
FILES = sorted(SOURCE.rglob("*.py"))

# Bottom to top; a room imports only from itself and from those before it.
ROOMS = (
    "ground",
    "conversation",
    "images",
    "checkpoints",
    "model",
    "data",
    "synthesis",
    "training",
    "evaluation",
    "quickstart",
    "cli",
)


def room_of(module: str) -> str:
    """The room of a dotted name inside llavakit; files that stand in no folder are the ground floor."""
    name = module.split(".")[1] if "." in module else ""
    return name if (SOURCE / name).is_dir() and name else "ground"


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of llavakit in a file, at the top or inside a function."""
    package = ["llavakit", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            module = (start + (node.module or "")).rstrip(".")
            # `from llavakit import model` imports the room; `from llavakit.model import x` may, harmlessly, too
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "llavakit" else [module]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "llavakit")


def test_every_folder_is_a_room_with_a_floor() -> None:
    folders = {path.parent.relative_to(SOURCE).parts[0] for path in FILES if path.parent != SOURCE}
    assert folders <= set(ROOMS)


def test_a_room_imports_only_from_the_rooms_below_it() -> None:
    upward = []
    for path in FILES:
        here = room_of("llavakit." + ".".join(path.relative_to(SOURCE).parts[:-1]))
        for line, module in imports(path):
            there = room_of(module)
            if ROOMS.index(there) > ROOMS.index(here):
                upward.append(f"{path.relative_to(ROOT)}:{line}: {here} imports {module}")
    assert not upward, "\n".join(upward)


def test_only_the_command_line_prints() -> None:
    printing = []
    for path in FILES:
        if path.is_relative_to(SOURCE / "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            called = (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            )
            stream = isinstance(node, ast.Attribute) and node.attr in {"stdout", "stderr"}
            rich = isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"rich", "typer"}
            if called or rich or (stream and ast.unparse(node).startswith("sys.")):
                printing.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not printing, "\n".join(printing)


def test_every_file_says_what_it_is_and_stays_readable() -> None:
    for path in FILES:
        text = path.read_text()
        assert len(text.splitlines()) <= 400, f"{path.relative_to(ROOT)} is past 400 lines"
        assert ast.get_docstring(ast.parse(text)), f"{path.relative_to(ROOT)} has no docstring at its top"


def test_help_imports_nothing_heavy() -> None:
    program = """
import sys
from llavakit.cli.main import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {"torch", "transformers", "tokenizers", "numpy", "PIL", "safetensors", "pyarrow"} & set(sys.modules)
assert not heavy, heavy
"""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "quickstart" in done.stdout


def test_torchvision_is_neither_asked_for_nor_installed() -> None:
    """The package index's torchvision brings a CUDA build that does not fit a CPU torch, and breaks transformers."""
    assert importlib.util.find_spec("torchvision") is None, "pip uninstall torchvision"
    for name in ("pyproject.toml", "constraints.txt"):
        lines = [line.split("#")[0] for line in (ROOT / name).read_text().splitlines()]
        assert not any("torchvision" in line or "timm" in line for line in lines), name


@pytest.mark.parametrize(
    "name", ["LICENSE", "NOTICE", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "constraints.txt"]
)
def test_what_a_newcomer_looks_for_is_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 0
