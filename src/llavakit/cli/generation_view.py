"""How asking a teacher looks in a terminal: a bar with rate, cost and time left, or a line now and then in a file.

Knows accounts and rich.
"""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from llavakit.synthesis.asking import Account

QUIET_SECONDS = 5.0


class GenerationView:
    """A listener of the engine. Use it as a context manager.

    total: requests that have no answer yet. money: whether costs are known.
    """

    def __init__(self, console: Console, title: str, total: int, *, money: bool) -> None:
        self.console, self.title, self.total, self.money = console, title, total, money
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(title, total=total, words="")
        self._said = time.monotonic()

    def __enter__(self) -> GenerationView:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, account: Account, /) -> None:
        done = account.answered + account.refused + account.gave_up
        words = self.words(account, done)
        self._progress.update(self._task, completed=done, words=escape(words))
        now = time.monotonic()
        if not self.console.is_terminal and now - self._said >= QUIET_SECONDS:
            self._said = now
            self.console.print(
                escape(f"{self.title} {done}/{self.total}  {words}"), highlight=False, soft_wrap=True
            )

    def words(self, account: Account, done: int) -> str:
        parts = [f"{account.per_second:.1f}/s", f"{account.under_way} of {account.window} under way"]
        if self.money:
            parts.append(f"{account.usd:.4f} spent")
        failed = account.troubles.total()
        if failed:
            parts.append(f"{failed} calls failed")
        if account.waiting_s > 1:
            parts.append(f"the endpoint asked for {account.waiting_s:.0f} s of rest")
        if done and account.seconds > 0:
            left = timedelta(seconds=round((self.total - done) * account.seconds / done))
            parts.append(f"{left} left")
        return "  ".join(parts)
