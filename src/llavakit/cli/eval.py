"""`llavakit eval`: scores on benchmarks, of a model or of answers that were saved."""

from __future__ import annotations

from enum import StrEnum
from functools import partial as with_values
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from llavakit.evaluation.asked import Asking
    from llavakit.evaluation.judge import Judge
    from llavakit.evaluation.results import Scored


class Precision(StrEnum):
    """The numbers that a model can compute in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


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
    model: Annotated[
        str | None,
        typer.Option(help="A model to ask: a folder of any kind that llavakit opens, or a hub name."),
    ] = None,
    condition: Annotated[
        str,
        typer.Option(
            help="shown, blind (no picture) or shuffled (another question's), to see what looking is worth."
        ),
    ] = "shown",
    limit: Annotated[int | None, typer.Option(help="Ask only the first so many questions.")] = None,
    batch: Annotated[int, typer.Option(help="Questions that are answered together.")] = 32,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="The longest answer, in tokens; the benchmark's own when not given.")
    ] = None,
    rank: Annotated[
        int,
        typer.Option(help="Which of --world processes this is. The same command without both then scores."),
    ] = 0,
    world: Annotated[int, typer.Option(help="Processes among which the questions are shared.")] = 1,
    device: Annotated[
        str | None, typer.Option(help="Where the model computes; cuda where there is one when not given.")
    ] = None,
    dtype: Annotated[
        Precision | None,
        typer.Option(help="What the model computes in; what it was saved in when not given."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Who judges free answers: an address of an OpenAI-compatible server, local:FOLDER of a model, or "
            "saved:FILE of replies."
        ),
    ] = None,
    judge_model: Annotated[
        str, typer.Option(help="The judge's name at its server; the benchmark's own when not given.")
    ] = "",
    judge_runs: Annotated[int, typer.Option(help="How often every answer is judged; scores are means.")] = 1,
    judge_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds that one call of a judge's server may take; 120 if not given."),
    ] = None,
    judge_attempts: Annotated[
        int, typer.Option(min=1, help="Calls for one word of the judge before it is given up.")
    ] = 6,
    judge_prices: Annotated[
        Path | None, typer.Option(help="TOML file of prices, to tell what the judge cost.")
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
    """Score a model, or a file of answers, on benchmarks as the official tools do, with 95 % intervals.

    A model's answers are kept below --out as they come: a run that was ended goes on where it was.

    Examples:

        llavakit eval --model runs/mine/checkpoints/2-instruct --benchmarks pope,mme --data eval --out runs/scores

        llavakit eval --answers answer.jsonl --benchmarks scienceqa_img --data eval --out runs/sqa

        llavakit eval --benchmarks list
    """
    from llavakit.errors import LlavakitError
    from llavakit.evaluation.asked import Asking
    from llavakit.evaluation.benchmarks import all_names, load
    from llavakit.evaluation.results import check_free

    if benchmarks == "list":
        for name in all_names():
            print(f"{name:24}{load(name).title}")
        return
    names = list(dict.fromkeys(name.strip() for name in benchmarks.split(",") if name.strip()))
    if not names:
        raise LlavakitError("--benchmarks names none; `llavakit eval --benchmarks list` tells them all")
    loaded = [load(name) for name in names]
    if judge is None and any(benchmark.needs_judge for benchmark in loaded):
        need = ", ".join(benchmark.name for benchmark in loaded if benchmark.needs_judge)
        raise LlavakitError(
            f"{need}: marked by a judge; name one with --judge and an address or local:FOLDER"
        )
    if judge is not None and out is None:
        raise LlavakitError("a judge's replies need a folder to be kept in: give one with --out")
    who = None
    if judge is not None:
        from llavakit.cli.judge_view import make_judge

        if all(benchmark.ask_judge is None for benchmark in loaded):
            raise LlavakitError(f"{', '.join(names)}: marked without a judge; leave out --judge")
        who = make_judge(judge, judge_model, judge_runs, judge_timeout, judge_attempts, judge_prices)
    if (model is None) == (not answers):
        raise LlavakitError("give either --model to ask a model or --answers to score a file of answers")
    if out is not None:
        check_free(out)
    asking = Asking(condition, batch, max_new_tokens, rank, world, limit)
    if model is None:
        given = [f"--{name.replace('_', '-')}" for name in asking.other_than_usual()]
        given += [name for name, value in (("--device", device), ("--dtype", dtype)) if value is not None]
        if given:
            raise LlavakitError(
                f"{', '.join(given)} say how a model is asked, but --answers asks none: leave them out"
            )
        _score(names, answers or [], data, variant, partial, out, who)
    elif out is None:
        raise LlavakitError("a model's answers need a folder to be kept in: give one with --out")
    else:
        asking.check()
        _ask(names, model, data, variant, out, asking, device, dtype, partial, who)


def _score(
    names: list[str],
    files: list[Path],
    data: Path,
    variant: str | None,
    partial: bool,
    out: Path | None,
    judge: Judge | None,
) -> None:
    from llavakit.errors import LlavakitError
    from llavakit.evaluation.provenance import Hashes
    from llavakit.evaluation.scoring_saved import score_file

    if len(files) != len(names):
        raise LlavakitError(
            f"{len(names)} benchmarks and {len(files)} files of answers: give --answers once for each, in their order"
        )
    hashes = Hashes()
    scored = [
        score_file(name, file, data, variant=variant, partial=partial, hashes=hashes, judge=judge, folder=out)
        for name, file in zip(names, files, strict=True)
    ]
    answered_by = {"answers": {str(file): hashes.of(file) for file in files}}
    hashes.save()
    _finish(scored, answered_by, out)


def _ask(
    names: list[str],
    model: str,
    data: Path,
    variant: str | None,
    out: Path,
    asking: Asking,
    device: str | None,
    dtype: Precision | None,
    partial: bool,
    judge: Judge | None,
) -> None:
    from dataclasses import replace

    import torch
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from llavakit.cli.judge_view import in_bar
    from llavakit.evaluation.provenance import Hashes
    from llavakit.evaluation.running import run_benchmark
    from llavakit.model.devices import choose_device
    from llavakit.model.llava import Llava
    from llavakit.model.sources import checkpoint_folder

    where = choose_device(device)
    opened = Llava.from_pretrained(model, None if dtype is None else getattr(torch, dtype.value), where)
    hashes = Hashes()
    hash_of_model = hashes.model(checkpoint_folder(model))
    scored = []
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    ) as bar:
        for name in names:
            line = bar.add_task(name, total=None)
            who = None if judge is None else replace(judge, watch=in_bar(bar))
            one = run_benchmark(
                opened,
                hash_of_model,
                name,
                data,
                out,
                asking,
                variant=variant,
                hashes=hashes,
                progress=with_values(_advance, bar, line),
                judge=who,
                partial=partial,
            )
            if one is not None:
                scored.append(one)
    hashes.save()
    if asking.world > 1:
        print(
            f"answers of process {asking.rank} of {asking.world} are kept; when all are done, give the same command"
        )
        print("without --rank and --world to score them")
        return
    _finish(scored, {"model": model, "hash": hash_of_model}, out)


def _advance(bar: Progress, line: TaskID, done: int, total: int) -> None:
    bar.update(line, completed=done, total=total)


def _finish(scored: list[Scored], answered_by: dict[str, Any], out: Path | None) -> None:
    from llavakit.evaluation.page import write_report
    from llavakit.evaluation.results import write_results, write_submission

    for one in scored:
        _show(one)
    if out is not None:
        for one in scored:
            submission = write_submission(out, one)
            if submission is not None:
                path, cut = submission
                told = f" ({cut:,} answers are longer than a cell can be and are cut in it)" if cut else ""
                print(f"for the server of {one.benchmark.name}: {path}{told}")
            elif one.benchmark.submission is not None:
                print(
                    f"nothing for the server of {one.benchmark.name}: it takes answers to all {one.total:,} questions, "
                    f"and {len(one.questions):,} are there"
                )
        print(f"report: {write_report(out, answered_by, scored)}")
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
    if one.judge is not None:
        from llavakit.cli.judge_view import show_judge

        show_judge(console, one)
