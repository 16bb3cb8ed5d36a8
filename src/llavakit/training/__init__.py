"""Training: stages, steps, states and the folder of a run. `run` does all of it."""

from llavakit.training.interrupt import Interrupted
from llavakit.training.runner import RunResult, run
from llavakit.training.trainer import NotFinite

__all__ = ["Interrupted", "NotFinite", "RunResult", "run"]
