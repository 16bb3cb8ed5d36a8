"""Asking from code that is not asynchronous: one call runs the engine to its end, and a signal stops it in good order.

The first Ctrl-C or SIGTERM sends nothing more and waits for what is under way; the second leaves at once. Either way
the journal is whole.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING

from llavakit.synthesis.asking.engine import run
from llavakit.synthesis.asking.events import Account, Limits, Report, silent
from llavakit.synthesis.asking.journal import Journal
from llavakit.synthesis.asking.prices import Prices
from llavakit.synthesis.teacher import Teacher, TeacherRequest

if TYPE_CHECKING:
    from llavakit.synthesis.asking.batch_engine import Shape
    from llavakit.synthesis.endpoint.endpoint import Endpoint

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def ask_all(
    requests: Iterable[TeacherRequest],
    teacher: Teacher | AbstractAsyncContextManager[Teacher],
    journal: Journal,
    *,
    limits: Limits | None = None,
    prices: Prices | None = None,
    report: Report = silent,
) -> Account:
    """Run the engine until it ends. A teacher that is opened by an asynchronous context manager is entered around it.

    Raises:
        KeyboardInterrupt: a second signal came while calls were under way.
    """
    try:
        return asyncio.run(_ask_all(requests, teacher, journal, limits, prices, report))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def ask_all_in_batches(
    requests: Callable[[], Iterable[TeacherRequest]],
    endpoint: Endpoint,
    journal: Journal,
    *,
    limits: Limits | None = None,
    prices: Prices | None = None,
    report: Report = silent,
    shape: Shape | None = None,
) -> Account:
    """The same in batch mode, over an endpoint that has a Batch API.

    A signal leaves the batches to the service, and the next run adopts them. requests: all of them, anew each time.
    """
    from llavakit.synthesis.asking.batch_engine import run_batches
    from llavakit.synthesis.endpoint.batches import Batches

    async def ask() -> Account:
        stop = asyncio.Event()
        async with endpoint:
            with Signals(stop):
                return await run_batches(
                    requests,
                    Batches(endpoint),
                    journal,
                    limits=limits,
                    prices=prices,
                    report=report,
                    stop=stop,
                    shape=shape,
                )

    try:
        return asyncio.run(ask())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _ask_all(
    requests: Iterable[TeacherRequest],
    teacher: Teacher | AbstractAsyncContextManager[Teacher],
    journal: Journal,
    limits: Limits | None,
    prices: Prices | None,
    report: Report,
) -> Account:
    async with AsyncExitStack() as stack:
        if isinstance(teacher, AbstractAsyncContextManager):
            teacher = await stack.enter_async_context(teacher)
        stop = asyncio.Event()
        with Signals(stop):
            return await run(
                requests, teacher, journal, limits=limits, prices=prices, report=report, stop=stop
            )


class Signals:
    """While it is entered, the first SIGINT or SIGTERM sets `stop` and the second cancels the running task.

    Only a program's main thread hears signals; elsewhere nothing is changed.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        self.stop = stop
        self.hears = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> None:
        if self.hears:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            for number in _SIGNALS:
                loop.add_signal_handler(number, self._heard, task)

    def __exit__(self, *_: object) -> None:
        if self.hears:
            loop = asyncio.get_running_loop()
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _heard(self, task: asyncio.Task[object] | None) -> None:
        if self.stop.is_set() and task is not None:
            task.cancel()
        self.stop.set()
