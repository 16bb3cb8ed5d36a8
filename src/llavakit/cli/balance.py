"""`llavakit data balance` and `llavakit data pairs`: captions made fewer, and made stage 1's data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def balance_command(
    source: Annotated[
        Path, typer.Argument(help="Captions: .tsv (CC3M's), .json, .jsonl, COCO's or .parquet.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write, in the form of the source.")],
    minimum: Annotated[int, typer.Option(help="Leave out phrases in fewer captions than this.")] = 3,
    cap: Annotated[int, typer.Option(help="Captions that one phrase draws at most.")] = 100,
    seed: Annotated[int, typer.Option(help="Another seed draws other captions.")] = 0,
    remaining: Annotated[
        str, typer.Option(help="once: by frequency in the whole set; recount: by what is not yet pooled.")
    ] = "once",
    count_pooled: Annotated[
        bool, typer.Option(help="Captions that other phrases drew count towards a phrase's cap.")
    ] = False,
    normalise: Annotated[
        str, typer.Option(help="determiners: lower case without articles; lower; none.")
    ] = "determiners",
    phrases: Annotated[str, typer.Option(help="Who finds phrases: textblob, or spacy:MODEL.")] = "textblob",
    field: Annotated[str, typer.Option(help="The field or column of the captions.")] = "",
    processes: Annotated[int | None, typer.Option(help="Processes; all cores when not given.")] = None,
    cache: Annotated[Path | None, typer.Option(help="A folder in which phrases are kept.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Keep the captions that still name every concept: at most --cap for each, from the rarest up.

    This is how LLaVA chose 595 thousand of CC3M's 3.3 million. A report stands beside the file.

    Examples:

        llavakit data balance Train_GCC-training.tsv --out cc595k.tsv

        llavakit data balance captions_train2017.json --out balanced.json --cap 30
    """
    from rich.console import Console

    from llavakit.synthesis.balance.balancing import Balance, balance
    from llavakit.synthesis.balance.choice import Rule
    from llavakit.synthesis.balance.extraction import Finder

    how = Balance(
        Rule(minimum, cap, seed, remaining, count_pooled),  # type: ignore[arg-type]
        Finder(phrases, normalise),  # type: ignore[arg-type]
        processes or os.cpu_count() or 1,
        cache,
        field,
    )
    with Console().status("Finding phrases") as status:
        report = balance(
            source,
            out,
            how,
            force=force,
            progress=lambda rows: status.update(f"Finding phrases: {rows:,} captions"),
        )
    before, after = report["before"], report["after"]
    print(f"{out}: {report['kept']:,} of {report['rows']:,} captions")
    for reason, number in report["without_caption"].items():
        print(f"left out {number:,}: {reason}")
    print(f"phrases: {before['unique_phrases']:,} before, {after['unique_phrases']:,} after")
    print(
        f"in {minimum} captions or more: {report['frequent_phrases']:,}, "
        f"of which {report['frequent_phrases_covered']:,} are still told of"
    )
    print(f"report: {out}.report.json")


def pairs_command(
    source: Annotated[
        Path, typer.Argument(help="Captions: .tsv (CC3M's), .json, .jsonl, COCO's or .parquet.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write: .json, or .jsonl with one row a line.")],
    seed: Annotated[int, typer.Option(help="Another seed draws other questions.")] = 0,
    field: Annotated[str, typer.Option(help="The field or column of the captions.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write captions as data of stage 1: a short question, and the caption as its answer.

    Example:

        llavakit data pairs cc595k.tsv --out cc595k.json
    """
    from llavakit.synthesis.pairs import write_pairs

    written, left_out = write_pairs(source, out, field=field, seed=seed, force=force)
    for reason, number in sorted(left_out.items()):
        print(f"left out {number:,}: {reason}")
    print(f"{out}: {written:,} pairs")
