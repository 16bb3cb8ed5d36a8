"""The program `llavakit`: its verbs, its global options, and how a mistake is told.

Imports no torch and no transformers, and nor may a verb's file outside its function, so that `--help` answers at once.
A LlavakitError becomes one sentence on stderr and exit code 2; anything else is a fault of llavakit and keeps its
traceback. Ctrl-C leaves with 130.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from llavakit import __version__
from llavakit.cli.chat import chat_command
from llavakit.cli.compare import compare_command
from llavakit.cli.data import data_app
from llavakit.cli.eval import eval_command
from llavakit.cli.export import export_command
from llavakit.cli.fake_endpoint import fake_endpoint_command
from llavakit.cli.generate import generate_command
from llavakit.cli.inspect import inspect_command
from llavakit.cli.plan import plan_command
from llavakit.cli.quickstart import quickstart_command
from llavakit.cli.recipe import recipe_app
from llavakit.cli.train import train_command
from llavakit.errors import LlavakitError

app = typer.Typer(
    name="llavakit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("quickstart")(quickstart_command)
app.command("plan")(plan_command)
app.command("train")(train_command)
app.command("chat")(chat_command)
app.command("generate")(generate_command)
app.command("eval")(eval_command)
app.command("compare")(compare_command)
app.command("export")(export_command)
app.command("inspect")(inspect_command)
app.command("fake-endpoint")(fake_endpoint_command)
app.add_typer(data_app, name="data")
app.add_typer(recipe_app, name="recipe")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"llavakit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave."),
    ] = False,
) -> None:
    """Train, measure and talk to a LLaVA: a language model that sees.

    Begin with `llavakit quickstart`, which needs no data, no GPU and no key.
    Every verb explains itself: `llavakit VERB --help`.
    """


def main(arguments: list[str] | None = None) -> None:
    """Runs the program with these arguments (default: the process's own) and leaves with its exit code.

    `--debug` is heard wherever it stands.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        app(args=[argument for argument in arguments if argument != "--debug"], prog_name="llavakit")
    except LlavakitError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
