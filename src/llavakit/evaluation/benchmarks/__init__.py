"""The benchmarks, one file each, opened by name."""

from __future__ import annotations

from importlib import import_module

from llavakit.errors import LlavakitError
from llavakit.evaluation.benchmark import Benchmark

# name -> the file that has it, by name; a file is imported only when one of its benchmarks is asked for
_WHERE = {
    "ai2d": "ai2d",
    "ai2d_no_mask": "ai2d",
    "chair": "chair",
    "chair_80": "chair",
    "chair_all": "chair",
    "chartqa": "chartqa",
    "docvqa": "docvqa",
    "docvqa_test": "docvqa",
    "gqa": "gqa",
    "llava_bench_coco": "llava_bench",
    "llava_bench_wild": "llava_bench",
    "mathvista": "mathvista",
    "mathvista_test": "mathvista",
    "mm_vet": "mm_vet",
    "mmbench": "mmbench",
    "mmbench_cn": "mmbench",
    "mme": "mme",
    "mmmu": "mmmu",
    "mmmu_test": "mmmu",
    "mmstar": "mmstar",
    "own": "own",
    "pope": "pope",
    "realworldqa": "realworldqa",
    "refcoco+_testA": "refcoco",
    "refcoco+_testB": "refcoco",
    "refcoco+_val": "refcoco",
    "refcoco_testA": "refcoco",
    "refcoco_testB": "refcoco",
    "refcoco_val": "refcoco",
    "refcocog_test": "refcoco",
    "refcocog_val": "refcoco",
    "scienceqa": "scienceqa",
    "scienceqa_img": "scienceqa",
    "seed_bench": "seed_bench",
    "seed_bench_image": "seed_bench",
    "textvqa": "textvqa",
    "vizwiz": "vizwiz",
    "vizwiz_val": "vizwiz",
    "vqav2": "vqav2",
    "vqav2_val": "vqav2",
}


def all_names() -> tuple[str, ...]:
    """Every benchmark's name, sorted."""
    return tuple(sorted(_WHERE))


def load(name: str) -> Benchmark:
    """A benchmark by name; raises LlavakitError telling the names there are."""
    if name not in _WHERE:
        raise LlavakitError(f"there is no benchmark named {name!r}: choose among {', '.join(all_names())}")
    module = import_module(f"{__name__}.{_WHERE[name]}")
    several: tuple[Benchmark, ...] = getattr(module, "BENCHMARKS", ()) or (module.BENCHMARK,)
    return next(benchmark for benchmark in several if benchmark.name == name)


def family(name: str) -> str:
    """The name of the file that has a benchmark, which those that read the same data share; the name itself if none."""
    return _WHERE.get(name, name)
