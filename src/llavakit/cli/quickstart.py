"""`llavakit quickstart`: train a small LLaVA end to end and show what it sees, or make its stand-ins anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llavakit.errors import LlavakitError


def quickstart_command(
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Changes to the packaged recipe `quickstart`, as for `llavakit train`.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for everything that is made; must be empty or absent.")
    ] = Path("runs/quickstart"),
    seed: Annotated[
        int, typer.Option(help="Another seed draws other scenes and starts from another projector.")
    ] = 0,
    short: Annotated[
        bool, typer.Option("--short", help="A few steps only, to see that everything works; learns nothing.")
    ] = False,
    pretrain: Annotated[
        bool,
        typer.Option(
            "--pretrain", help="Instead, train the tower and the language model that come with the package."
        ),
    ] = False,
) -> None:
    """Make data, train a small LLaVA on it and measure what it sees: no hub, no GPU, no key, a few minutes.

    Example: `llavakit quickstart --out runs/quickstart`, then the `llavakit chat` command that it prints.
    """
    if pretrain:
        _pretrain(out, short)
    else:
        _demonstrate(out, seed, short, changes or [])


def _demonstrate(out: Path, seed: int, short: bool, changes: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from llavakit.cli.training_view import TrainingView
    from llavakit.quickstart.demo import SHORT, run_demo
    from llavakit.quickstart.materials import Amounts
    from llavakit.quickstart.page import HEADINGS, write_page

    console = Console()
    amounts = SHORT if short else Amounts()
    with TrainingView(console) as view:
        outcome = run_demo(
            out, amounts=amounts, seed=seed, overrides=changes, listener=view, chapter=console.rule
        )
    report = write_page(outcome)
    results = outcome.results()
    tasks = list(results["questions"])
    table = Table("exact answers on unseen scenes", *tasks)
    for heading in outcome.examined:
        table.add_row(HEADINGS[heading], *(f"{results[heading][task]:.1%}" for task in tasks))
    console.print(table)
    image = outcome.picture_of("colour")
    console.print(f"Took {results['seconds']:.0f} s. Report: {report}", highlight=False)
    console.print(f"Scores: {out / 'results.json'}", highlight=False)
    console.print("Ask it about a picture:", highlight=False)
    console.print(f"  llavakit chat {outcome.checkpoint} --image {image}", highlight=False, soft_wrap=True)


def _pretrain(out: Path, short: bool) -> None:
    from rich.console import Console

    from llavakit.quickstart.pretrain import MOST_BYTES, pretrain
    from llavakit.quickstart.pretrain_language_model import LanguageTraining
    from llavakit.quickstart.pretrain_tower import TowerTraining

    console = Console()
    tower = TowerTraining(steps=3) if short else TowerTraining()
    language = LanguageTraining(steps=3) if short else LanguageTraining()
    made = pretrain(out, tower, language, lambda line: console.print(line, highlight=False))
    if made["bytes"] > MOST_BYTES:
        raise LlavakitError(
            f"The weights in {out} hold {made['bytes']} bytes; the package ships at most {MOST_BYTES}."
        )
    console.print(
        f"Wrote {out}. To use them: llavakit quickstart model.vision_tower={out}/vision_tower "
        f"model.language_model={out}/language_model --out runs/other",
        highlight=False,
        soft_wrap=True,
    )
