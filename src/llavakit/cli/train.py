"""`llavakit train`: runs a recipe, shows how it goes, and says what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train_command(
    recipe: Annotated[str, typer.Argument(help="A packaged recipe's name, or a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Values to change: KEY=VALUE, dots between the parts of the key."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run's folder; runs/NAME when not given.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that is in the folder.")
    ] = False,
) -> None:
    """Train a LLaVA, stage by stage, as a recipe says.

    A run can be stopped at any moment (Ctrl-C, a kill, a power cut) and resumed; the result is the same.
    The folder then holds recipe.yaml, manifest.json, metrics.jsonl, checkpoints/ and report.html.

    Examples:

        llavakit train my-recipe.yaml --out runs/first

        llavakit train my-recipe.yaml stages.0.learning_rate.projector=5e-4 --out runs/second

        llavakit train my-recipe.yaml --out runs/first --resume
    """
    import shlex
    import sys

    from rich.console import Console

    from llavakit.cli.training_view import TrainingView
    from llavakit.recipe import load_recipe

    console = Console()
    chosen = load_recipe(recipe, overrides or ())
    folder = out or Path("runs") / chosen.name
    words = ["llavakit", "train", recipe, *(overrides or ()), "--out", str(folder), "--resume"]
    with console.status("Loading PyTorch and transformers"):
        from transformers.utils.logging import disable_progress_bar

        from llavakit import training
        from llavakit.evaluation.during_training import Evaluation

        disable_progress_bar()

    with TrainingView(console) as view:
        try:
            result = training.run(chosen, folder, view, resume, evaluator=Evaluation())
        except training.Interrupted as stopped:
            view.close()
            print(f"Stopped: {stopped}.\nTo go on:\n\n    {shlex.join(words)}\n", file=sys.stderr)
            raise typer.Exit(130) from stopped
    if result.already_finished:
        print(f"The run in {folder} is finished; there is nothing to resume.")
    print(f"\nModel:  {result.checkpoint}\nReport: {result.report}")
    print(
        f"\nTalk to it:\n\n    {shlex.join(['llavakit', 'chat', str(result.checkpoint)])} --image PICTURE\n"
    )
