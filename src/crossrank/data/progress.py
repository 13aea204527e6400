"""How far a long preparation is, and how long it will still take: a bar on a terminal, a line now and then in a log."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

SECONDS_PER_LINE = 30.0


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show that `done` of `total` are done; the function that is given takes how many more are.

    What was done before does not count towards the speed from which the time left is estimated.
    """
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=total, completed=done)
        lines = _Lines(what, total, done)

        def advance(more: int) -> None:
            bar.advance(task, more)
            lines.advance(more)

        yield advance


class _Lines:
    """Logs how far it is, at most every 30 seconds."""

    def __init__(self, what: str, total: int, done: int) -> None:
        self._what, self._total, self._before, self._done = what, total, done, done
        self._started = self._told = time.monotonic()

    def advance(self, more: int) -> None:
        self._done += more
        now = time.monotonic()
        if now - self._told < SECONDS_PER_LINE or not self._before < self._done < self._total:
            return
        self._told = now
        left = (now - self._started) / (self._done - self._before) * (self._total - self._done)
        log.info("%s: %d of %d, about %.0f min left", self._what, self._done, self._total, max(1, round(left / 60)))
