"""`llavakit recipe`: which recipes there are, and what a recipe says once everything is filled in."""

from __future__ import annotations

from typing import Annotated

import typer

recipe_app = typer.Typer(
    no_args_is_help=True, help="List the packaged recipes, or show one with all its values."
)


@recipe_app.command("list")
def list_recipes() -> None:
    """List the recipes that come with llavakit.

    Example:

        llavakit recipe list
    """
    from rich.console import Console
    from rich.table import Table

    from llavakit.recipe import load_recipe, packaged_recipes

    table = Table("name", "stages", "description")
    for name in packaged_recipes():
        recipe = load_recipe(name)
        table.add_row(name, ", ".join(stage.name for stage in recipe.stages), recipe.description)
    Console().print(table)


@recipe_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="A packaged recipe's name, or a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Values to change: KEY=VALUE, dots between the parts of the key."),
    ] = None,
) -> None:
    """Show a recipe with every default written out; what is printed is itself a recipe.

    Example:

        llavakit recipe show llava-v1.5-7b 'stages.1.data=[{path: my.json}]' > mine.yaml
    """
    from llavakit.recipe import load_recipe

    print(load_recipe(name, overrides or ()).to_yaml(), end="")
