"""`llavakit inspect`: what a model is shown of a data set, token by token."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.text import Text

    from llavakit.conversation.inspect import InspectedRow

_STAND_IN = "package:llavakit/quickstart/weights/language_model"
_TITLE = "Tokens of "


def inspect_command(
    data: Annotated[Path, typer.Argument(help="A LLaVA file of conversations, JSON or JSONL.")],
    template: Annotated[
        str, typer.Option(help="The conversation template; `tokenizer` is the tokenizer's own.")
    ] = "tokenizer",
    tokenizer: Annotated[
        str, typer.Option(help="A model's folder, GGUF file or hub name; the quickstart's when not given.")
    ] = _STAND_IN,
    row: Annotated[int | None, typer.Option(min=0, help="Show only this row, counted from 0.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show this many rows.")] = 5,
    images: Annotated[
        Path | None, typer.Option(help="Root folder of the pictures; the file's folder when not given.")
    ] = None,
    image_tokens: Annotated[
        int, typer.Option(min=1, help="Positions that a picture takes; 576 is LLaVA-1.5's.")
    ] = 576,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Cut whole exchanges until a row has no more positions.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page with the rows and their pictures.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Let the page replace a file that is no such page.")
    ] = False,
) -> None:
    """Show the tokens of conversations, which of them are supervised, and where pictures stand.

    Pictures are not opened, except for the page. A row that cannot be used is shown with its reason.

    Examples:

        llavakit inspect my-data.json --template vicuna_v1 --tokenizer path/to/model

        llavakit inspect my-data.jsonl --row 12 --html tokens.html
    """
    from rich.console import Console

    from llavakit.conversation.inspect import BORDER, CLOSE, OPEN, counts, row_counts, row_title
    from llavakit.errors import LlavakitError

    if html is not None:
        _check_target(html, force)
    rows = _inspected(data, images, template, tokenizer, row, limit, image_tokens, max_length)
    console = Console(highlight=False)
    print(f"{OPEN}supervised{CLOSE}  {BORDER} between tokens  ⏎ line end")
    for one in rows:
        print()
        console.print(row_title(one), style="bold", markup=False, soft_wrap=True)
        if one.note:
            console.print(f"note: {one.note}", markup=False, soft_wrap=True)
        if one.problem is not None:
            console.print(_problem(one.problem), soft_wrap=True)
            continue
        console.print(_flow(one), soft_wrap=True)
        console.print(row_counts(one), style="dim", markup=False, soft_wrap=True)
    print()
    totals = counts(rows)
    print("in all: " + ", ".join(f"{name} {count}" for name, count in totals.items()))
    if totals["with a problem"] == len(rows):
        raise LlavakitError(
            f"{data}: none of the {len(rows)} rows looked at can be tokenised; their reasons are above, mend them or "
            "look at other rows with --row"
        )
    if html is not None:
        _write(html, rows, data, f"template {template}, tokenizer {tokenizer}")
        print(f"page: {html}")


def _inspected(
    data: Path,
    images: Path | None,
    template_name: str,
    tokenizer_name: str,
    only: int | None,
    limit: int,
    image_tokens: int,
    max_length: int | None,
) -> list[InspectedRow]:
    """The rows asked for. Raises LlavakitError when the file cannot be read or holds no such row."""
    from llavakit.conversation.inspect import InspectedRow, inspect_conversation
    from llavakit.conversation.templates import get_template
    from llavakit.data.readers.llava import read_llava
    from llavakit.errors import LlavakitError
    from llavakit.model.language import load_tokenizer

    first, last = (only, only + 1) if only is not None else (0, limit)
    read = list(islice(read_llava(data, images), first, last))
    if not read:
        wanted = "row" if only is None else f"row {only} (they are counted from 0)"
        raise LlavakitError(f"{data}: the file holds no {wanted}, so there is nothing to show")
    if template_name != "tokenizer":
        get_template(template_name)  # a wrong name is told before the tokenizer is loaded
    tokenizer = load_tokenizer(tokenizer_name)
    template = get_template(template_name, tokenizer)
    rows = []
    for row in read:
        conversation = row.conversation
        if conversation is None:
            rows.append(
                InspectedRow(row.position, "", problem=row.problem or "the row holds no conversation")
            )
            continue
        lengths = [image_tokens] * len(conversation.images)
        rows.append(
            inspect_conversation(
                conversation,
                template,
                tokenizer,
                lengths,
                position=row.position,
                max_length=max_length,
                note=row.note,
            )
        )
    return rows


def _flow(row: InspectedRow) -> Text:
    from rich.text import Text

    from llavakit.conversation.inspect import BORDER, CLOSE, OPEN, PlacedPicture, picture_label, runs, visible

    line = Text()
    for learnt, group in runs(row.cells):
        if learnt:
            line.append(OPEN, "bold green")
        for number, cell in enumerate(group):
            if number:
                line.append(BORDER, "dim")
            if isinstance(cell, PlacedPicture):
                line.append(picture_label(cell), "bold magenta")
                continue
            line.append(visible(cell.text), "green underline" if learnt else "")
            if cell.text.endswith("\n"):
                line.append("\n")
        if learnt:
            line.append(CLOSE, "bold green")
    return line


def _problem(reason: str) -> Text:
    from rich.text import Text

    from llavakit.conversation.inspect import visible

    return Text(f"✗ cannot be used: {visible(reason)}", "red")


def _check_target(html: Path, force: bool) -> None:
    """Raises LlavakitError when the page has no folder, or would replace a file that is no page of this command."""
    from llavakit.errors import LlavakitError

    if not html.parent.is_dir():
        raise LlavakitError(f"{html}: there is no folder {html.parent}; make it first")
    if html.is_dir():
        raise LlavakitError(f"{html} is a folder; name a file for the page")
    if html.exists() and not force:
        with html.open("rb") as file:
            begins = file.read(400)
        if not re.search(rb"<title>" + _TITLE.encode(), begins):
            raise LlavakitError(
                f"{html} exists and is no page of llavakit inspect; name another file, or say --force to replace it"
            )


def _write(html: Path, rows: list[InspectedRow], data: Path, subtitle: str) -> None:
    from llavakit.conversation.inspect import to_html
    from llavakit.training.durable import write_text

    write_text(html, to_html(rows, f"{_TITLE}{data.name}", subtitle=subtitle))
