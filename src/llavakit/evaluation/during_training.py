"""Benchmarks as a stage of training asks them: the model as it stands, into a folder of the run.

The same asking and scoring as `llavakit eval`. Knows what a recipe wants and nothing of the trainer.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from llavakit.errors import LlavakitError
from llavakit.evaluation import benchmarks
from llavakit.evaluation.asked import Asking
from llavakit.evaluation.page import write_report
from llavakit.evaluation.provenance import Hashes
from llavakit.evaluation.reading import read_questions
from llavakit.evaluation.results import write_results
from llavakit.evaluation.running import run_benchmark
from llavakit.evaluation.scoring_saved import choose_variant, data_folder
from llavakit.model.llava import Llava
from llavakit.recipe import Evaluate


class Evaluation:
    """The evaluator of `training.run`."""

    def check(self, wanted: Evaluate) -> None:
        """Reads the questions of every benchmark. Raises LlavakitError for what cannot be asked."""
        for name in wanted.benchmarks:
            benchmark = benchmarks.load(name)
            if benchmark.needs_judge:
                raise LlavakitError(
                    f"evaluate: {name} is marked by a judge, who is not asked during training; leave it out and give "
                    "the checkpoints to `llavakit eval --judge`"
                )
            folder = data_folder(Path(wanted.data), name)
            read_questions(benchmark, folder, choose_variant(benchmark, None).name)

    def score(
        self, model: Llava, wanted: Evaluate, who: str, out: Path, progress: Callable[[str, int, int], None]
    ) -> dict[str, float]:
        """The headlines by benchmark. What stood in `out`, of an earlier try at the same step, is replaced."""
        if out.exists():
            shutil.rmtree(out)
        hashes = Hashes()
        asking = Asking(limit=wanted.limit, batch=wanted.batch)
        scored = []
        for name in dict.fromkeys(wanted.benchmarks):
            one = run_benchmark(
                model,
                who,
                name,
                Path(wanted.data),
                out,
                asking,
                hashes=hashes,
                progress=partial(progress, name),
            )
            assert one is not None, "a single process scores what it asked"
            scored.append(one)
        hashes.save()
        answered_by = {"model": who}
        write_report(out, answered_by, scored)
        write_results(out, answered_by, scored)
        return {one.benchmark.name: one.marked.score for one in scored}
