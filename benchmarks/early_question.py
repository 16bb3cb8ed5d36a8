"""What it is worth to ask the language model early for the facts of a name.

    python benchmarks/early_question.py --steps 300

Trains the quickstart's language model twice for so many steps, with and without the question at the third layer, and
asks both about scenes described in words: the share of exact answers. On two cores about eight minutes for 300 steps.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from llavakit.quickstart.pretrain_language_model import LanguageTraining, train_language_model
from standins import ask_language_model

TASKS = ("colour", "place", "presence", "counting", "relation")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    usual = LanguageTraining(steps=steps)
    for name, plan in (("with it", usual), ("without it", replace(usual, early_weight=0.0))):
        with tempfile.TemporaryDirectory() as folder:
            train_language_model(plan, Path(folder), lambda line: None)
            found = {task: round(ask_language_model(folder, task), 3) for task in TASKS}
        print(f"{steps} steps {name}: {found}", flush=True)
