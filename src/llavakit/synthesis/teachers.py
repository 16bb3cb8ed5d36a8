"""Teachers by what a user writes: an address, `local:` with a model's folder, or the name of a set of rules.

Opens them; knows no request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.synthesis.teacher import Teacher

LOCAL = "local:"


@asynccontextmanager
async def open_teacher(
    spec: str, *, rules: Mapping[str, Callable[[], Teacher]] | None = None, **endpoint: Any
) -> AsyncIterator[Teacher]:
    """A teacher for as long as the block lasts.

    Args:
        spec: `http://...` or `https://...` of an OpenAI-compatible server, `local:FOLDER` of a causal language model or
            a LLaVA, or a name in `rules`.
        rules: teachers that are no model, by name.
        endpoint: settings of `Endpoint`, such as `key` and `timeout_s`; for an address alone.

    Raises:
        LlavakitError: it is none of these, or the model cannot be opened.
    """
    if spec.startswith(("http://", "https://")):
        from llavakit.synthesis.endpoint.endpoint import Endpoint

        async with Endpoint(spec, **endpoint) as opened:
            yield opened
    elif spec.startswith(LOCAL):
        from llavakit.synthesis.local_teacher import open_local_teacher

        yield open_local_teacher(spec.removeprefix(LOCAL))
    elif rules is not None and spec in rules:
        yield rules[spec]()
    else:
        names = "".join(f", or `{name}`" for name in rules or ())
        raise LlavakitError(
            f"There is no teacher {spec!r}; give a server's http(s) address, `local:` with a model's folder{names}."
        )
