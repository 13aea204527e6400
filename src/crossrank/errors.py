"""Every error that crossrank raises on purpose.

CrossrankError
├── ConfigError      the composed config is wrong; lists every problem
├── AssetError       a model or a data set could not be fetched
├── DataError        a file, a row or a collection is wrong; names file and row
├── CacheError       a cache could not be written
├── ModelError       a backbone or a tokenizer cannot serve as a packed cross-encoder
├── ExportError      an export does not score as the model it was written from, or could not be uploaded
├── TrainingError    a training is dead; says since when and where its last good checkpoint lies
└── ResumeError      a run cannot go on: it is not there, has finished, is another one now, or is being trained
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class CrossrankError(Exception):
    """A mistake in what the user gave; its message is one sentence that says what would be right."""


class ConfigError(CrossrankError, ValueError):
    """The composed config is wrong; the message lists every problem, one a line, each by its full path."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in the config:"
        super().__init__("\n".join([head, *(f"  - {problem}" for problem in self.problems)]))


class AssetError(CrossrankError, OSError):
    """A model or a data set is neither on this machine nor to be had from the hub."""


class DataError(CrossrankError, ValueError):
    """A data file, one of its rows, or a collection made of such files is wrong."""


class CacheError(CrossrankError, OSError):
    """A cache could not be written; nothing half-written is left behind."""


class ModelError(CrossrankError, ValueError):
    """A backbone or a tokenizer cannot serve as a packed cross-encoder."""


class ExportError(CrossrankError, RuntimeError):
    """An export does not score in its users' libraries as the model in memory does, or could not be uploaded."""


class TrainingError(CrossrankError, RuntimeError):
    """A training is dead, its loss or weights not finite or its scores collapsed, and was stopped."""


class ResumeError(CrossrankError, ValueError):
    """A run cannot go on where it stopped."""


@contextmanager
def one_sentence(passed_on: bool = False) -> Iterator[None]:
    """End a program whose user gave something wrong with what that is and exit code 2, without a stack trace.

    With `passed_on` the error goes on instead, as where other jobs of a sweep are still to run.
    """
    try:
        yield
    except CrossrankError as error:
        if passed_on:
            raise
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
