"""Whether `transformers serve` says of an exported Llava what llavakit does.

    python benchmarks/interop/transformers_serve.py [--venv FOLDER] [--models FOLDER]

Trains and exports two small models (`served`), opens each with `transformers serve` on loopback, asks the same
questions about the same pictures, and compares greedy answers in float32 and the positions of every prompt. The server
runs in an environment of its own outside the repository, without torchvision, so that its pictures go through Pillow
as a plain installation's do. Leaves with 1 when an answer or a prompt's length differs. The results are written to
benchmarks/results/ under today's date.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import server
from served import check

PACKAGES = ("transformers[serving]==5.23.0", "torch==2.13.0", "pillow")
START_LIMIT = 180.0  # seconds
NAMES = ("transformers", "torch", "pillow", "tokenizers", "uvicorn", "fastapi")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = Path(tempfile.gettempdir()) / "llavakit-transformers-serve"
    arguments.add_argument("--venv", type=Path, default=default, help="where transformers is, or is put")
    arguments.add_argument("--models", type=Path, help="where the exported models are, or are put")
    given = arguments.parse_args()
    python = server.environment(given.venv, PACKAGES)
    if server.version(python, "torchvision") is not None:
        raise SystemExit(f"{given.venv} has torchvision, which this check is made without; remove it there")

    @contextmanager
    def start(model: Path) -> Iterator[server.Server]:
        port = server.free_port()
        command = [
            str(python.with_name("transformers")),
            "serve",
            str(model),
            "--device",
            "cpu",
            "--dtype",
            "float32",
        ]
        command += ["--host", server.HOST, "--port", str(port)]
        with server.serving(command, {}, str(model), port, START_LIMIT) as up:
            yield up

    versions = {name: server.version(python, name) for name in NAMES}
    return check("transformers-serve", start, versions, given.models)


if __name__ == "__main__":
    sys.exit(main())
