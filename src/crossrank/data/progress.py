"""How far a long step is, and how long it will still take: a bar on a terminal, a line now and then in a log."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

SECONDS_PER_LINE = 30.0


class Advance(Protocol):
    """Takes how many more are done, and what there is to say of them."""

    def __call__(self, more: int, note: str = "") -> None:
        """Move the bar on."""


class _Bars:
    """One display for all that goes on at once, such as an evaluation within a training."""

    def __init__(self) -> None:
        self._display: Progress | None = None

    @contextmanager
    def bar(self, what: str, total: int, done: int) -> Iterator[Advance]:
        outermost = self._display is None
        display = self._display = self._display or self._new()
        if outermost:
            display.start()
        task = display.add_task(what, total=total, completed=done, note="")
        try:
            yield lambda more, note="": display.update(task, advance=more, note=note)
        finally:
            display.remove_task(task)
            if outermost:
                display.stop()
                self._display = None

    @staticmethod
    def _new() -> Progress:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False),
        )  # fmt: skip
        return Progress(*columns, console=Console(stderr=True), transient=True, disable=not on_terminal())


_BARS = _Bars()
_hidden: ContextVar[bool] = ContextVar("hidden", default=False)


@contextmanager
def hidden(hide: bool = True) -> Iterator[None]:
    """Have no step within it show how far it is."""
    token = _hidden.set(hide or _hidden.get())
    try:
        yield
    finally:
        _hidden.reset(token)


def on_terminal() -> bool:
    """Return whether a person sees the bars."""
    return sys.stderr.isatty()


@contextmanager
def progress(what: str, total: int, done: int = 0, lines: bool = True) -> Iterator[Advance]:
    """Show that `done` of `total` are done; the function that is given takes how many more are.

    What was done before does not count towards the speed from which the time left is estimated. Without a terminal
    there is nothing but `lines` in the log.
    """
    if _hidden.get():
        yield lambda more, note="": None
        return
    told = _Lines(what, total, done)
    with _BARS.bar(what, total, done) as move:

        def advance(more: int, note: str = "") -> None:
            move(more, note)
            if lines:
                told.advance(more)

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
