"""`llavakit eval`: scores on benchmarks, of a model or of answers that were saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llavakit.evaluation.results import Scored


def eval_command(
    benchmarks: Annotated[
        str,
        typer.Option("--benchmarks", help="Names of benchmarks, with commas between; `list` tells them all."),
    ],
    data: Annotated[
        Path, typer.Option(help="Folder of the benchmarks' files, or of a folder for each benchmark.")
    ] = Path("data"),
    answers: Annotated[
        list[Path] | None,
        typer.Option(help="Score this file of answers instead of asking a model; once for every benchmark."),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(help="The way of asking, such as v1.5 or v1.6; a benchmark's first when not given."),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Score the questions that have an answer, though others have none."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results.json and the marked answers; must hold no results."),
    ] = None,
) -> None:
    """Score a file of answers on benchmarks, as the official tools do, with 95 % intervals.

    Examples:

        llavakit eval --answers answer.jsonl --benchmarks scienceqa_img --data eval --out runs/sqa

        llavakit eval --benchmarks list
    """
    from llavakit.errors import LlavakitError
    from llavakit.evaluation.benchmarks import all_names, load
    from llavakit.evaluation.provenance import Hashes
    from llavakit.evaluation.results import check_free, write_results
    from llavakit.evaluation.scoring_saved import score_file

    if benchmarks == "list":
        for name in all_names():
            print(f"{name:24}{load(name).title}")
        return
    names = [name.strip() for name in benchmarks.split(",") if name.strip()]
    files = answers or []
    if not files:
        raise LlavakitError("nothing to score: name a file of answers with --answers")
    if len(files) != len(names):
        raise LlavakitError(
            f"{len(names)} benchmarks and {len(files)} files of answers: give --answers once for each, in their order"
        )
    if out is not None:
        check_free(out)
    hashes = Hashes()
    scored = [
        score_file(name, file, data, variant=variant, partial=partial, hashes=hashes)
        for name, file in zip(names, files, strict=True)
    ]
    answered_by = {"answers": {str(file): hashes.of(file) for file in files}}
    hashes.save()
    for one in scored:
        _show(one)
    if out is not None:
        print(f"results: {write_results(out, answered_by, scored)}")


def _show(one: Scored) -> None:
    """The table of figures and everything that was noticed."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    marked, benchmark, interval = one.marked, one.benchmark, one.marked.interval
    console.print(
        f"{benchmark.name} ({one.variant.protocol}): {benchmark.headline} {marked.score:.2f}, 95 % interval "
        f"{interval.low:.2f} to {interval.high:.2f} ({interval.method}), {len(one.questions):,} of {one.total:,} "
        "questions",
        markup=False,
        soft_wrap=True,
    )
    table = Table("figure", "value")
    table.columns[1].justify = "right"
    for name, value in {**marked.figures, **marked.others}.items():
        table.add_row(name, f"{value:.2f}")
    console.print(table)
    for what, number in {**one.counts, **marked.notes}.items():
        console.print(
            f"  {number:,} {what}" if what in one.counts else f"  {number:,} marked: {what}", markup=False
        )
