"""`llavakit data`: look after data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llavakit.cli.balance import balance_command, pairs_command
from llavakit.cli.generate import export_data_command
from llavakit.cli.stats import stats_command

data_app = typer.Typer(no_args_is_help=True, help="Look after data sets: check them, convert them.")
data_app.command("balance")(balance_command)
data_app.command("export")(export_data_command)
data_app.command("pairs")(pairs_command)
data_app.command("stats")(stats_command)


@data_app.command("check")
def check_command(
    data: Annotated[Path, typer.Argument(help="A LLaVA file of conversations, JSON or JSONL.")],
    images: Annotated[
        Path | None, typer.Option(help="Root folder of the pictures; the file's folder when not given.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Also write every row with this conversation template.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="With --template: also tokenise, with the tokenizer of this folder.")
    ] = None,
) -> None:
    """Read every row, decode every picture, and name every row that training would skip.

    Leaves with exit code 1 when there is such a row.

    Examples:

        llavakit data check my-data.json --images photos

        llavakit data check my-data.jsonl --template vicuna_v1 --tokenizer path/to/model
    """
    from rich.console import Console
    from rich.markup import escape

    from llavakit.data.doctor import check
    from llavakit.errors import LlavakitError
    from llavakit.model.language import load_tokenizer

    console = Console()
    loaded = None
    if tokenizer is not None:
        if template is None:
            raise LlavakitError("--tokenizer needs --template: rows are tokenised as a template writes them")
        loaded = load_tokenizer(tokenizer)
    with console.status("Checking") as status:

        def tell(rows: int) -> None:
            if rows % 100 == 0:
                status.update(f"Checking: {rows} rows")

        found = check(data, images, template=template, tokenizer=loaded, progress=tell)
    for finding in sorted([*found.findings, *found.notes], key=lambda one: one.position):
        name = f" (id {finding.id})" if finding.id else ""
        console.print(
            escape(f"row {finding.position}{name}: {finding.reason}"), highlight=False, soft_wrap=True
        )
    turns = f"{found.turns} turns, {found.supervised_words} words of answers"
    print(
        f"{data}: {found.rows} rows, {found.conversations} usable ({found.text_only} of them text only), {turns}"
    )
    if found.pictures or found.videos:
        sizes = ", ".join(f"{w}x{h} ({n})" for (w, h), n in found.picture_sizes.most_common(3))
        videos = f" and {found.videos} videos" if found.videos else ""
        print(f"{found.pictures} pictures{videos}; most common sizes: {sizes or 'none could be decoded'}")
    if found.lengths:
        ordered = sorted(found.lengths)
        print(f"text tokens a row: median {ordered[len(ordered) // 2]}, longest {ordered[-1]}")
    if found.repeated_ids:
        print(f"{found.repeated_ids} rows repeat the id of an earlier row (allowed)")
    if found.findings:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.kinds.items()))
        print(f"{len(found.findings)} rows cannot be used: {kinds}")
        raise typer.Exit(1)
    print("Every row can be used.")


@data_app.command("convert")
def convert_command(
    source: Annotated[Path, typer.Argument(help="A LLaVA file of conversations, JSON or JSONL.")],
    target: Annotated[Path, typer.Argument(help="The file to write; its ending says what it is.")],
    images: Annotated[
        Path | None, typer.Option(help="Root folder of the pictures; the file's folder when not given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a file of conversations as JSON (.json) or as one row a line (.jsonl).

    Rows that cannot be read are named and left out; the exit code is then 1.

    Example:

        llavakit data convert llava_instruct_150k.json llava_instruct_150k.jsonl
    """
    from llavakit.data.convert import convert

    written, problems = convert(source, target, images, force=force)
    for problem in problems:
        print(f"left out {problem}")
    print(f"{target}: {written} conversations")
    if problems:
        raise typer.Exit(1)
