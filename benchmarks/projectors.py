"""Projectors that make fewer features, on the quickstart's task: accuracy against tokens against time.

    python benchmarks/projectors.py

Runs the quickstart's two stages with each projector on the same data and asks the quickstart's examination: the MLP at
36 features a picture; averages, pixel shuffle and the resampler at 9 (a quarter); averages and the resampler at 4 (a
ninth). Prints exact answers, and the seconds of the training; writes benchmarks/results/DATE-projectors.json.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from llavakit import training
from llavakit.model.llava import Llava
from llavakit.quickstart.demo import examine, recipe_for, shares
from llavakit.quickstart.materials import Amounts, make_materials
from results import write_result

PROJECTORS = (
    "mlp2x_gelu",
    "avgpool2-mlp2x_gelu", "shuffle2-mlp2x_gelu", "resampler3",
    "avgpool3-mlp2x_gelu", "resampler2",
)  # fmt: skip

if __name__ == "__main__":
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_materials(folder / "materials", Amounts(training=1500, validation=8), seed=0)
        for name in PROJECTORS:
            unchecked = [f"stages.{stage}.validation=null" for stage in (0, 1)]
            recipe = recipe_for(folder / "materials", 0, [f"model.projector={name}", *unchecked])
            began = time.monotonic()
            checkpoint = training.run(recipe, folder / name).checkpoint
            seconds = time.monotonic() - began
            examined = examine(checkpoint, folder / "materials", folder / f"{name}-examined")
            features = Llava.from_pretrained(checkpoint).geometry.tokens
            found[name] = {
                "features": features,
                **shares(examined.marked.verdicts),
                "seconds": round(seconds, 1),
            }
            print(name, json.dumps(found[name]), flush=True)
    write_result("projectors", {"found": found})
