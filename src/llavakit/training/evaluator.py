"""What training knows of evaluation: somebody who scores the model as it stands.

Evaluation is built on models, as training is, and neither on the other; who starts a run brings the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from llavakit.model.llava import Llava
from llavakit.recipe import Evaluate


class Evaluator(Protocol):
    """Scores models on the benchmarks of a recipe's `evaluate`."""

    def check(self, wanted: Evaluate) -> None:
        """Raises LlavakitError for what cannot be scored: before a run begins, not hours later."""

    def score(
        self, model: Llava, wanted: Evaluate, who: str, out: Path, progress: Callable[[str, int, int], None]
    ) -> dict[str, float]:
        """The headlines by benchmark; answers, results and the page are put into `out`, which is made anew.

        who: the model in words. progress: hears the benchmark, questions done, and all; what it raises is let through.
        """
