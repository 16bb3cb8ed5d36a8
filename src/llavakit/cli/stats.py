"""`llavakit data stats`: what a data set is made of, as a page and as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def stats_command(
    data: Annotated[
        Path, typer.Argument(help="A folder of generated data, or a file: LLaVA .json, .jsonl, .parquet.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The folder to write to; the data's own when not given.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Root folder of the pictures; the data's own.")] = None,
    annotations: Annotated[
        list[Path] | None, typer.Option(help="Annotations with boxes, for rows that hold none.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Kept samples to show, and rejected ones, at most.")] = 300,
    embed: Annotated[
        bool, typer.Option("--embed", help="Put small copies of the pictures into the page.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Count what questions ask and answers name, and leaf through samples beside their pictures.

    Writes stats.html, which needs nothing else but the pictures, and stats.json.

    Examples:

        llavakit data stats my-data --images photos

        llavakit data stats llava_instruct_150k.json --out stats --images train2017
    """
    from rich.console import Console

    from llavakit.synthesis.statistics.counting import survey
    from llavakit.synthesis.statistics.page import write_page
    from llavakit.synthesis.statistics.rows import Boxed, read_data

    boxes: dict[str, tuple[Boxed, ...]] = {}
    if annotations:
        from llavakit.synthesis.annotations import read_annotations

        for one in read_annotations(annotations).pictures:
            boxes[one.image] = tuple((box.category, *box.corners) for box in one.boxes)
    home = data if data.is_dir() else data.parent
    with Console().status("Counting") as status:
        found = survey(
            read_data(data),
            most=samples,
            boxes=boxes,
            progress=lambda rows: status.update(f"Counting: {rows:,} rows"),
        )
        title = f"{data.resolve().name}: what it is made of"
        written = write_page(found, out or home, title, images or home, embed=embed, force=force)
    account = found.statistics
    print(f"{data}: {account.kept:,} kept, {account.rejected:,} rejected, {account.exchanges:,} questions")
    for reason, number in sorted(account.problems.items()):
        print(f"{number:,} rows were not read: {reason}")
    if written.missing:
        print(
            f"the pictures of {written.missing:,} of {written.shown:,} shown samples are not below {images or home}"
        )
    print(f"page: {written.page}")
    print(f"numbers: {written.values}")
