"""What a score was made from, as hashes: questions, the rules that read answers, data files, a model's folder.

Hashes of files are kept in the user's cache by place, size and time, and written there once at the end. Of a folder of
pictures the names and sizes are hashed, not the contents.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from llavakit import __version__
from llavakit.evaluation.benchmark import Benchmark, Question
from llavakit.evaluation.reading import found
from llavakit.evaluation.writing import write_whole
from llavakit.synthesis.quality import names, text, things

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pillow", "pyarrow")


def questions_hash(questions: Sequence[Question]) -> str:
    """Over what is asked and what is true, in no order."""
    lines = sorted(
        json.dumps(
            [one.id, one.prompt, one.truth, list(one.choices), one.category, one.unit, len(one.pictures)],
            sort_keys=True,
            default=str,
        )
        for one in questions
    )
    return _sha("\n".join(lines).encode("utf-8", "surrogatepass"))


def rules_hash(benchmark: Benchmark) -> str:
    """Over the source of the benchmark's file and of all shared rules, the words for COCO's objects among them."""
    file = inspect.getsourcefile(inspect.unwrap(benchmark.summarise))
    rules = sorted((Path(__file__).parent / "scoring").glob("*.py"))
    rules += [Path(inspect.getfile(module)) for module in (names, things, text)]
    sources = [Path(file)] if file is not None and Path(file).is_file() else []
    return _sha(b"\0".join(path.read_bytes() for path in [*sources, *rules]))


def versions() -> dict[str, str]:
    """Of llavakit, Python and the packages that are installed; nothing is imported."""
    told = {"llavakit": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            told[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return told


def machine() -> dict[str, Any]:
    """The system, its processor and how many of it."""
    told: dict[str, Any] = {"system": platform.platform(), "processors": os.cpu_count()}
    torch = sys.modules.get("torch")  # only a run that asked a model has it
    if torch is not None:
        told["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            told["gpu"] = torch.cuda.get_device_name()
    return told


class Hashes:
    """Hashes of files and folders; `save` keeps them for the next time."""

    def __init__(self, cache: Path | None = None) -> None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self._cache = cache or home / "llavakit" / "hashes.json"
        self._known: dict[str, str] = {}
        self._fresh: dict[str, str] = {}
        try:
            known = json.loads(self._cache.read_text("utf-8"))
        except (OSError, ValueError):
            return  # no cache, or one that is damaged: everything is hashed anew
        if isinstance(known, dict):
            self._known = {str(name): str(value) for name, value in known.items()}

    def of(self, path: Path) -> str:
        """Of a file's bytes, or of a folder's names and sizes."""
        if path.is_dir():
            listing = sorted(
                f"{one.relative_to(path)}\t{one.stat().st_size}" for one in path.rglob("*") if one.is_file()
            )
            return _sha("\n".join(listing).encode("utf-8", "surrogateescape"))
        state = path.stat()
        key = f"{path.resolve()}\t{state.st_size}\t{state.st_mtime_ns}"
        if key not in self._known:
            with path.open("rb") as file:
                self._known[key] = self._fresh[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._known[key]

    def data(self, benchmark: Benchmark, folder: Path) -> dict[str, str]:
        """Of every file that the benchmark can be read from and that is there."""
        paths = {path for needed in benchmark.files for path in found(folder, needed)}
        return {str(path.relative_to(folder)): self.of(path) for path in sorted(paths)}

    def model(self, folder: Path) -> str:
        """Of a model's folder: its configuration and weights, by name."""
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
        return _sha("\n".join(f"{path.relative_to(folder)}\t{self.of(path)}" for path in files).encode())

    def save(self) -> bool:
        """Keeps what was hashed; False when the cache cannot be written, which costs time and nothing else."""
        if not self._fresh:
            return True
        try:
            write_whole(self._cache, json.dumps(self._known, indent=0).encode())
        except OSError:
            return False
        self._fresh = {}
        return True


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
