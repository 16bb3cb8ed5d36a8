"""`llavakit plan`: what a run will take, before it is begun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from llavakit.training.estimate import Estimate, StageEstimate
    from llavakit.training.expected_data import Said

_UNITS = {"": 1, "B": 1, "MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 2**20, "GIB": 2**30}


def plan_command(
    recipe: Annotated[str, typer.Argument(help="A packaged recipe's name, or a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Values to change: KEY=VALUE, dots between the parts of the key."),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="How many GPUs.")] = 1,
    memory: Annotated[
        str | None, typer.Option(help="Memory of each GPU, e.g. 80GB (10^9 bytes) or 80GiB.")
    ] = None,
    tflops: Annotated[
        float, typer.Option(min=0.001, help="What a GPU can do in bfloat16; 312 is an A100, 989 an H100.")
    ] = 312.0,
    mfu: Annotated[
        float, typer.Option(min=0.001, max=1.0, help="The share of --tflops that training reaches.")
    ] = 0.4,
    samples: Annotated[
        list[str] | None,
        typer.Option(
            help="Rows of a stage's data, and positions of a mean one: STAGE=ROWS or STAGE=ROWSxLENGTH."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in bytes, hours and FLOPs.")] = False,
) -> None:
    """Tell the memory, time and disk that a recipe will take, without reading weights.

    Sizes come from configurations: local folders, the hub, or a packaged table of well-known parts. Rows and lengths
    come from the recipe's data where the files are there; whatever is supposed instead is listed.

    Examples:

        llavakit plan llava-v1.5-7b --gpus 8 --memory 80GB

        llavakit plan my-recipe.yaml --memory 24GB --tflops 165 --samples tune=50000x900
    """
    import dataclasses
    import json

    from rich.console import Console

    from llavakit.recipe import load_recipe

    chosen = load_recipe(recipe, overrides or ())
    room = None if memory is None else _bytes(memory)
    said = dict(_said(one) for one in samples or ())
    waiting = Console(stderr=True)
    with waiting.status("Loading PyTorch and transformers") as status:
        from llavakit.training.architecture import read_architecture
        from llavakit.training.estimate import Machine, estimate_run
        from llavakit.training.expected_data import expected_data

        status.update("Counting")
        model = read_architecture(chosen.model)
        data = expected_data(chosen, model, said, lambda name, rows: status.update(f"{name}: {rows:,} rows"))
        estimate = estimate_run(chosen, model, data, Machine(gpus, room, tflops, mfu))
    if as_json:
        print(json.dumps(dataclasses.asdict(estimate), indent=2))
    else:
        _show(Console(), estimate)


def _bytes(text: str) -> int:
    from llavakit.errors import LlavakitError

    digits = text.strip().rstrip("BGIMTbgimt ")
    unit = text.strip()[len(digits) :].strip().upper()
    try:
        return round(float(digits) * _UNITS[unit])
    except (ValueError, KeyError):
        raise LlavakitError(
            f"--memory is {text!r}, expected a number and a unit, e.g. 80GB or 80GiB"
        ) from None


def _said(text: str) -> tuple[str, Said]:
    from llavakit.errors import LlavakitError
    from llavakit.training.expected_data import Said

    stage, _, numbers = text.partition("=")
    rows, _, length = numbers.partition("x")
    try:
        said = Said(int(rows.replace("_", "")), float(length) if length else None)
    except ValueError:
        said = Said(0)
    if not stage or said.rows < 1 or (said.length is not None and not said.length >= 1):
        raise LlavakitError(
            f"--samples is {text!r}, expected STAGE=ROWS or STAGE=ROWSxLENGTH, e.g. tune=665000x1024"
        )
    return stage, said


def _show(console: Console, estimate: Estimate) -> None:
    from rich.markup import escape
    from rich.table import Table

    machine = estimate.machine
    gpus = f"{machine.gpus} GPU{'s' * (machine.gpus > 1)}"
    room = "" if machine.memory is None else f" of {_size(machine.memory)}"
    console.print(f"[bold]{escape(estimate.recipe)}[/bold] on {gpus}{room}\n", highlight=False)
    parts = Table("part", "parameters", *(stage.name for stage in estimate.stages))
    for part, count in estimate.parameters.items():
        learns = [stage.memory.trained.get(part) for stage in estimate.stages]
        parts.add_row(part, f"{count:,}", *("frozen" if one is None else f"learns {one:,}" for one in learns))
    console.print(parts)
    for name, origin in estimate.origins.items():
        console.print(escape(f"{name}: configuration from {origin}"), highlight=False, soft_wrap=True)
    for stage in estimate.stages:
        _show_stage(console, stage, estimate)
    hours = "not known" if estimate.hours is None else _hours(estimate.hours)
    console.print(
        f"\nIn all: {hours}; disk {_size(estimate.disk_most)} at the most, {_size(estimate.disk)} at the end; "
        f"{_size(estimate.host)} of the machine's memory to open the parts.",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"Hours at {machine.mfu:.0%} of {machine.tflops:g} TFLOP/s a GPU (--mfu, --tflops). 1 GB is 10^9 bytes. "
        "`llavakit train` uses one GPU; figures for more are arithmetic.",
        highlight=False,
        soft_wrap=True,
    )


def _show_stage(console: Console, stage: StageEstimate, estimate: Estimate) -> None:
    from rich.markup import escape
    from rich.table import Table

    def say(text: str) -> None:
        console.print(escape(text), highlight=False, soft_wrap=True)

    several = stage.divided is not None
    columns = ["every GPU holds all", f"divided among {estimate.machine.gpus}"] if several else ["memory"]
    table = Table("", *columns)
    both = [stage.memory, *([stage.divided] if stage.divided else [])]
    for row in dict.fromkeys(name for one in both for name in one.peak.rows):
        sizes = [one.peak.rows.get(row, 0) for one in both]
        if any(sizes):
            table.add_row(row, *map(_size, sizes))
    table.add_row("[bold]in all", *(f"[bold]{_size(one.total)}" for one in both))
    table.add_row("moment", *(one.peak.name for one in both))
    if stage.fits is not None:
        table.add_row(
            "fits", *("yes" if one else "no" for one in (stage.fits, stage.fits_divided)[: len(both)])
        )
    say(f"\nStage {stage.name}, a GPU's memory at the fullest moment of a step:")
    console.print(table)
    for part in stage.frozen_in_float32:
        say(f"{part} is frozen and kept in float32: its weights are not stored in bfloat16.")
    if stage.better:
        better = Table("what would need less", "price", "a GPU", "fits")
        for one in stage.better:
            better.add_row(one.change, one.price, _size(one.memory), "yes" if one.fits else "no")
        console.print(better)
    say("Data: " + "; ".join(stage.data.said) + ".")
    if stage.steps is not None and stage.tokens is not None and stage.hours is not None:
        say(
            f"{stage.steps:,} steps, {stage.tokens / 1e6:,.1f}M positions, {stage.flops:.2e} FLOPs: "
            f"{_hours(stage.hours)}. Disk: model {_size(stage.checkpoint)}, a state {_size(stage.state)}."
        )


def _size(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"


def _hours(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:,.1f} minutes"
