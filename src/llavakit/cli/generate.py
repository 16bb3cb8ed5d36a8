"""`llavakit generate`: ask a teacher about annotated pictures, and write what passes the gates as a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable

    from llavakit.synthesis.asking import Account, Estimate
    from llavakit.synthesis.curation import Curated
    from llavakit.synthesis.dataset import Dataset
    from llavakit.synthesis.export import Exported
    from llavakit.synthesis.project import Settings
    from llavakit.synthesis.teacher import TeacherRequest

OUT_OF_BUDGET = 3
SHOWN = 12


def generate_command(
    annotations: Annotated[
        str, typer.Option(help="Files of annotations, commas between: COCO, Visual Genome, JSONL.")
    ],
    teacher: Annotated[
        str,
        typer.Option(help="Address of an OpenAI-compatible server, `local:FOLDER` of a model, or `rules`."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The data set's folder; a run in it goes on.")],
    types: Annotated[
        str,
        typer.Option(help="Kinds of data, commas between; a folder with a system_message.txt is one too."),
    ] = "conversation,detail,reasoning",
    model: Annotated[str, typer.Option(help="The name by which the server knows the model.")] = "",
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures, for kinds that show them.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A folder of prompts of your own, one folder a kind.")
    ] = None,
    licences: Annotated[
        str | None,
        typer.Option(help="Keep pictures under these alone, by name or COCO's number; commas between."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Replies for each picture and kind.")] = 1,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Ask about the first so many pictures only.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the requests and of all that is drawn.")] = 0,
    temperature: Annotated[float | None, typer.Option(help="In place of the prompts' own.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Room of a reply, in place of the prompts'.")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema/--no-schema", help="Send JSON schemas, which some servers refuse.")
    ] = True,
    concurrency: Annotated[
        int, typer.Option(min=1, help="The most calls at once; fewer go as it takes.")
    ] = 256,
    rpm: Annotated[float | None, typer.Option(help="Calls a minute.")] = None,
    tpm: Annotated[float | None, typer.Option(help="Tokens a minute.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that one call may take.")] = 120.0,
    attempts: Annotated[int, typer.Option(min=1, help="Calls for one request before it is given up.")] = 6,
    token_field: Annotated[
        Literal["max_tokens", "max_completion_tokens"],
        typer.Option(help="How the model calls a reply's room."),
    ] = "max_tokens",
    prices: Annotated[Path | None, typer.Option(help="TOML file of prices, for costs and --budget.")] = None,
    budget: Annotated[float | None, typer.Option(help="The most money that all runs may cost.")] = None,
    budget_tokens: Annotated[int | None, typer.Option(help="The most tokens that all runs may take.")] = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="Hand requests over in files by the server's Batch API.")
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Tell what it will take, and ask nothing.")
    ] = False,
    quality: Annotated[Path | None, typer.Option(help="YAML file of the gates' settings.")] = None,
    rate: Annotated[
        bool, typer.Option("--rate", help="Let the teacher rate what passes, on four scales of 1 to 5.")
    ] = False,
    rate_minimum: Annotated[int, typer.Option(min=1, max=5, help="The lowest rating that is kept.")] = 3,
    formats: Annotated[str, typer.Option(help="What to write: json, jsonl, parquet.")] = "json,jsonl,parquet",
) -> None:
    """Make instruction data of annotated pictures with the help of a teacher.

    Every reply is kept in the folder's journal before it is read. Stop it at any moment and give the same command
    again: it goes on, and pays nothing twice but what was under way. `llavakit data export` writes the data anew.

    Exit codes: 0 done, 1 some requests have no reply yet, 3 the budget is used up, 130 stopped.

    Examples:

        llavakit generate --annotations captions.json,instances.json --teacher http://localhost:8000 --model M -o data

        llavakit generate --annotations captions.json --teacher local:SmolLM2 --types detail --limit 20 -o try
    """
    from rich.console import Console

    from llavakit.cli.generation_view import GenerationView
    from llavakit.errors import LlavakitError
    from llavakit.quickstart.teacher import RuleTeacher
    from llavakit.synthesis.asking import (
        Budget,
        Journal,
        Limits,
        ask_all,
        ask_all_in_batches,
        read_prices,
    )
    from llavakit.synthesis.asking import estimate as foresee
    from llavakit.synthesis.asking.batch_engine import Shape
    from llavakit.synthesis.curation import Rating, wanted_ratings
    from llavakit.synthesis.dataset import Judging, export_dataset, journal_path, open_dataset
    from llavakit.synthesis.endpoint.endpoint import Endpoint
    from llavakit.synthesis.export import check_formats
    from llavakit.synthesis.project import open_settings
    from llavakit.synthesis.quality import Settings as Gates
    from llavakit.synthesis.teachers import open_teacher

    console = Console()
    wanted_formats = _parts(formats)
    check_formats(wanted_formats)
    if batch and "://" not in teacher:
        raise LlavakitError(f"--batch needs a server with a Batch API; {teacher!r} is no address of one.")
    price_list = read_prices(prices) if prices is not None else None
    if budget is not None and (price_list is None or price_list.of(model) is None):
        raise LlavakitError(
            f"A budget in money needs the price of {model or 'the model'!r}; name it in a file and give --prices, or "
            "use --budget-tokens."
        )
    judging = Judging(
        Gates.load(quality) if quality is not None else Gates(),
        Rating(model, rate_minimum) if rate else None,
    )
    settings = _settings(
        annotations, types, prompts, images, model, seed, temperature, max_tokens, samples, schema, licences
    )
    dataset = open_dataset(out, settings)
    open_settings(out, settings)
    _show_counts("left out", dataset.annotations.left_out)
    limits = Limits(concurrency, rpm, tpm, attempts, budget=Budget(budget, budget_tokens))
    with Journal(journal_path(out)) as journal:
        ahead = foresee((task.request for task in dataset.tasks(limit)), journal, price_list, in_batch=batch)
        _show_counts("no task", dataset.skipped)
        _show_estimate(dataset, ahead)
        if estimate:
            return
        http: dict[str, Any] = {"timeout_s": timeout, "token_field": token_field} if "://" in teacher else {}
        rules = {RuleTeacher.name: RuleTeacher}

        def ask(title: str, missing: int, requests: Callable[[], Iterable[TeacherRequest]]) -> Account:
            with GenerationView(console, title, missing, money=ahead.usd is not None) as view:
                if batch:
                    shape, endpoint = Shape(token_field=token_field), Endpoint(teacher, **http)
                    done = ask_all_in_batches(
                        requests,
                        endpoint,
                        journal,
                        limits=limits,
                        prices=price_list,
                        report=view,
                        shape=shape,
                    )
                else:
                    opened = open_teacher(teacher, rules=rules, **http)
                    done = ask_all(requests(), opened, journal, limits=limits, prices=price_list, report=view)
            _show_account(done)
            return done

        account = None
        if ahead.missing:
            account = ask("Asking", ahead.missing, lambda: (task.request for task in dataset.tasks(limit)))
        if judging.rating is not None and (account is None or not account.stopped):
            marks = list(wanted_ratings(dataset.tasks(), journal.stored, judging.gates, judging.rating))
            missing = foresee(marks, journal, price_list).missing
            if missing:
                account = ask("Rating", missing, lambda: marks)
        done, found = export_dataset(dataset, journal, judging, wanted_formats)
    show_export(out, done, found)
    raise typer.Exit(_exit_code(account))


def export_data_command(
    folder: Annotated[Path, typer.Argument(help="A folder that `llavakit generate` wrote.")],
    quality: Annotated[
        Path | None, typer.Option(help="YAML file of the gates' settings; the last ones if not given.")
    ] = None,
    formats: Annotated[str, typer.Option(help="What to write: json, jsonl, parquet.")] = "json,jsonl,parquet",
) -> None:
    """Read, judge and write a generated data set again, from its journal, without asking anybody.

    The same journal, annotations and gates give the same bytes.

    Example:

        llavakit data export my-data --quality stricter.yaml
    """
    from llavakit.synthesis.asking import Journal
    from llavakit.synthesis.dataset import Judging, export_dataset, journal_path, open_dataset, read_judging
    from llavakit.synthesis.export import check_formats
    from llavakit.synthesis.quality import Settings as Gates

    wanted = _parts(formats)
    check_formats(wanted)
    dataset = open_dataset(folder)
    judging = read_judging(folder)
    if quality is not None:
        judging = Judging(Gates.load(quality), judging.rating)
    with Journal(journal_path(folder), read_only=True) as journal:
        done, found = export_dataset(dataset, journal, judging, wanted)
    show_export(folder, done, found)


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _settings(
    annotations: str,
    types: str,
    prompts: Path | None,
    images: Path | None,
    model: str,
    seed: int,
    temperature: float | None,
    max_tokens: int | None,
    samples: int,
    schemas: bool,
    licences: str | None,
) -> Settings:
    from llavakit.errors import LlavakitError
    from llavakit.synthesis.kinds import open_kinds
    from llavakit.synthesis.project import Settings, annotation_files
    from llavakit.synthesis.prompt_folder import is_prompt_folder

    names = _parts(types)
    if not names:
        raise LlavakitError("--types names no kind; give one such as conversation.")
    kinds = open_kinds(names, prompts)
    own = [
        str((prompts / name).resolve()) if prompts is not None and is_prompt_folder(prompts / name) else name
        for name in names
    ]
    return Settings(
        annotations=annotation_files(tuple(Path(part) for part in _parts(annotations))),
        images=str(images.resolve()) if images is not None else "",
        kinds=tuple(own),
        prompts=tuple(kind.identity for kind in kinds),
        model=model,
        seed=seed,
        temperature=temperature,
        max_tokens=max_tokens,
        samples=samples,
        schemas=schemas,
        licences=_parts(licences) if licences is not None else (),
    )


def _show_counts(title: str, counts: Counter[str]) -> None:
    for reason, number in counts.most_common(SHOWN):
        print(f"{title}: {number:,} {reason}" if title == "left out" else f"{title}: {reason} ({number:,})")
    if len(counts) > SHOWN:
        print(f"{title}: {len(counts) - SHOWN} further reasons")


def _show_estimate(dataset: Dataset, ahead: Estimate) -> None:
    kinds = ", ".join(kind.name for kind in dataset.kinds)
    print(f"{len(dataset.annotations.pictures):,} pictures, {ahead.requests:,} requests ({kinds})")
    if ahead.kept:
        print(f"{ahead.kept:,} have their reply in the journal")
    if not ahead.missing:
        return
    how = "by the replies so far" if ahead.measured else "by the length of texts"
    cost = "no price is known"
    if ahead.usd is not None and ahead.most_usd is not None:
        cost = f"about {ahead.usd:.2f}, {ahead.most_usd:.2f} at most"
    tokens = f"{ahead.prompt:,} tokens read and {ahead.completion:,} written"
    print(f"{ahead.missing:,} to ask: about {tokens}, {how}; {cost}")


def _show_account(account: Account) -> None:
    parts = [f"{account.answered:,} replies in {account.seconds:.0f} s ({account.per_second:.1f}/s)"]
    if account.cut:
        parts.append(f"{account.cut:,} were cut and asked for once more with more room")
    if account.refused:
        parts.append(f"{account.refused:,} requests refused")
    if account.gave_up:
        parts.append(f"{account.gave_up:,} given up; the same command asks for them again")
    if account.usd:
        parts.append(f"{account.usd:.4f} spent in all")
    print("; ".join(parts))
    if account.troubles:
        listed = ", ".join(f"{number:,} {name}" for name, number in account.troubles.most_common())
        print(f"calls without a reply: {listed}; the last said: {account.last_trouble}")
    if account.stopped:
        print(f"stopped: {account.reason}")


def show_export(folder: Path, done: Exported, found: Curated) -> None:
    """What was written, what was not and why."""
    total = done.kept + done.rejected
    print(f"{done.kept:,} of {total:,} replies kept, {done.rejected:,} rejected")
    for reason, number in done.reasons.most_common(SHOWN):
        print(f"  {number:,} {reason}")
    if len(done.reasons) > SHOWN:
        print(f"  and {len(done.reasons) - SHOWN} further reasons, see {folder / 'README.md'}")
    for note, number in found.tolerated.most_common(SHOWN):
        print(f"  let pass in {number:,} replies: {note}")
    for why, number in found.failed.most_common():
        print(f"  {number:,} requests have no reply: {why}")
    if found.missing:
        print(f"  {found.missing:,} requests have no reply yet")
    if found.unrated:
        print(f"  {found.unrated:,} samples have no rating yet")
    print(f"{folder}: {', '.join([*done.files, 'README.md'])}")
    print(f"\nLook at it:\n\n    llavakit data stats {folder}\n")


def _exit_code(account: Account | None) -> int:
    if account is None:
        return 0
    if account.stopped == "access":
        return 2
    if account.stopped:
        return OUT_OF_BUDGET if account.stopped == "budget" else 130
    return 1 if account.gave_up else 0
