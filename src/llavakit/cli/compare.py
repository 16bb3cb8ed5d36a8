"""`llavakit compare`: two runs of `llavakit eval` on the same questions, answer by answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare_command(
    first: Annotated[Path, typer.Argument(help="Folder of results of `llavakit eval`.")],
    second: Annotated[Path, typer.Argument(help="Another, on the same questions.")],
) -> None:
    """Say how much two runs differ and whether by more than luck.

    Example:

        llavakit compare runs/before runs/after
    """
    from rich.console import Console
    from rich.table import Table

    from llavakit.evaluation.comparing import compare

    found = compare(first, second)
    console = Console(highlight=False)
    table = Table("benchmark", "first", "second", "difference", "95 % interval", "p", "+ / -")
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.no_wrap = True  # a number is shown whole, however narrow the terminal is
    for one in found:
        paired = one.paired
        table.add_row(
            one.name,
            *(f"{score:.2f}" for score in one.scores),
            f"{paired.difference:+.2f}",
            f"{paired.low:+.2f} to {paired.high:+.2f}",
            f"{paired.p:.4f}" if paired.p >= 0.0001 else f"{paired.p:.1e}",
            f"{paired.better} / {paired.worse}",
        )
    console.print(table)
    for one in found:
        console.print(f"{one.name}: {one.headline}, {one.paired.method}", markup=False, soft_wrap=True)
    for one in found:
        for line in one.told:
            console.print(f"{one.name}: {line}", markup=False, soft_wrap=True)
