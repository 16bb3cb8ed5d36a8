"""`llavakit fake-endpoint`: a scripted OpenAI-compatible server, to rehearse and test against."""

from __future__ import annotations

from typing import Annotated

import typer


def fake_endpoint_command(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    slots: Annotated[int, typer.Option(help="The most requests worked on at once; 0 for any number.")] = 0,
    latency: Annotated[float, typer.Option(help="Seconds of work on a request.")] = 0.0,
    jitter: Annotated[float, typer.Option(help="Share by which the latency varies, 0 to 1.")] = 0.0,
    overload: Annotated[str, typer.Option(help="Beyond the slots: `queue` or `reject`.")] = "queue",
    reject_with: Annotated[int, typer.Option(help="Status of a rejection: 429 or 503.")] = 429,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="NAME=RATE, several times; `--fault list` tells the names.", metavar="NAME=RATE"),
    ] = None,
    retry_after: Annotated[float, typer.Option(help="Seconds to wait that a 429 or 503 names.")] = 1.0,
    slow_factor: Annotated[
        float, typer.Option(help="How many times the latency a `slow` request takes.")
    ] = 10.0,
    rpm: Annotated[int, typer.Option(help="Requests a minute; 0 for no limit.")] = 0,
    tpm: Annotated[int, typer.Option(help="Tokens a minute; 0 for no limit.")] = 0,
    model: Annotated[list[str] | None, typer.Option(help="Name of a model that is listed.")] = None,
    batch: Annotated[float, typer.Option(help="Seconds that a batch takes.")] = 0.0,
    batch_expire: Annotated[float, typer.Option(help="Share of each batch that expires undone.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn.")] = 0,
) -> None:
    """Serve made-up replies with a known capacity and known troubles, and count every request.

    The first line printed is the URL. `GET /stats` tells the counts. Ends on Ctrl-C or SIGTERM.

    Examples:

        llavakit fake-endpoint --slots 32 --latency 0.5

        llavakit fake-endpoint --port 8000 --fault 429=0.05 --fault cut=0.01 --fault truncated=0.02
    """
    import asyncio

    from llavakit.errors import LlavakitError
    from llavakit.synthesis.endpoint.fake import FakeEndpoint, FakeSettings
    from llavakit.synthesis.endpoint.fake.server import serve_until_signalled
    from llavakit.synthesis.endpoint.fake.settings import WAY_FAULTS, WRITTEN_FAULTS

    if fault == ["list"]:
        for name, meaning in {**WAY_FAULTS, **WRITTEN_FAULTS}.items():
            print(f"{name:15} {meaning}")
        return
    if overload not in ("queue", "reject"):
        raise LlavakitError(f"--overload is {overload!r}; expected `queue` or `reject`.")
    if reject_with not in (429, 503):
        raise LlavakitError(f"--reject-with is {reject_with}; expected 429 or 503.")
    settings = FakeSettings(
        seed=seed,
        slots=slots,
        latency_s=latency,
        jitter=jitter,
        overload="queue" if overload == "queue" else "reject",
        reject_status=429 if reject_with == 429 else 503,
        faults=_rates(fault or []),
        retry_after_s=retry_after,
        slow_factor=slow_factor,
        requests_per_minute=rpm,
        tokens_per_minute=tpm,
        models=tuple(model or ["fake-teacher"]),
        host=host,
        port=port,
        batch_s=batch,
        batch_expire=batch_expire,
    )

    def started(fake: FakeEndpoint) -> None:
        print(fake.url, flush=True)

    counts = asyncio.run(serve_until_signalled(settings, started)).stats(keys=False)
    print(f"{counts['received']} requests, {counts['paid']} worked on, {counts['answered']} answered")


def _rates(given: list[str]) -> dict[str, float]:
    """`NAME=RATE` texts as rates by name."""
    from llavakit.errors import LlavakitError

    rates = {}
    for text in given:
        name, _, rate = text.partition("=")
        try:
            rates[name] = float(rate)
        except ValueError as error:
            raise LlavakitError(f"--fault {text!r} is no NAME=RATE, such as 429=0.05.") from error
    return rates
