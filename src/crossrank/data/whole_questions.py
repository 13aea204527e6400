"""Whole questions, each with all its rows, as what an epoch visits: what a loss over lists needs."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crossrank.data.cache import cached, growing_arrays
from crossrank.data.mapped import new_array
from crossrank.data.order import permute
from crossrank.data.ranks import ROWS_PER_BLOCK
from crossrank.data.training_rows import TrainingRows


class WholeQuestions:
    """The questions of training rows, whose rows stand together; one that an epoch visits n times counts n times.

    The order of an epoch is a pure function of (seed, epoch), as that of single rows is.
    """

    def __init__(self, rows: TrainingRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        """How many questions an epoch visits."""
        return len(self._offsets) - 1 + len(self._again)

    def order(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """Return the memory-mapped order of one epoch's visits, written beside the rows when first asked for."""
        return self._kept(
            f"questions-order-{seed}-{epoch}",
            lambda folder: _permuted(folder / "order.npy", len(self), seed, epoch),
        )

    def rows_of(self, visits: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the rows of some visits, one visit after the other, and of each row which visit it is, from 0.

        A question that is visited twice is two lists.
        """
        asked, more = np.array(visits, np.int64), visits >= len(self._offsets) - 1
        asked[more] = self._again[asked[more] - len(self._offsets) + 1]
        starts = self._offsets[asked]
        lengths = self._offsets[asked + 1] - starts
        visit = np.repeat(np.arange(len(asked)), lengths)
        place = np.arange(len(visit)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return starts[visit] + place, visit

    @cached_property
    def _offsets(self) -> npt.NDArray[np.int64]:
        """Question i of the rows, not of the source, has the rows [offsets[i], offsets[i + 1])."""
        return self._kept("offsets", lambda folder: _write_offsets(self.rows.questions, folder))

    @cached_property
    def _again(self) -> npt.NDArray[np.int64]:
        """The questions that are visited once more, one entry a visit."""
        rows = np.zeros(0, np.int64) if self.rows.again is None else np.asarray(self.rows.again)
        questions = np.searchsorted(self._offsets, rows)
        again: npt.NDArray[np.int64] = questions[self._offsets[questions] == rows]
        return again

    def _kept(self, name: str, build: Callable[[Path], None]) -> npt.NDArray[np.int64]:
        """Return the array, memory-mapped, that a file beside the rows holds."""
        folder = cached(self.rows.folder.with_name(f"{self.rows.folder.name}-{name}"), build)
        (file,) = folder.glob("*.npy")
        mapped: npt.NDArray[np.int64] = np.load(file, mmap_mode="r")
        return mapped


def _permuted(file: Path, length: int, seed: int, epoch: int) -> None:
    permute(new_array(file, length, np.int64), seed, epoch)


def _write_offsets(questions: npt.NDArray[np.int32], folder: Path) -> None:
    last = -1
    with growing_arrays(folder, {"offsets": np.int64}) as append:
        for start in range(0, len(questions), ROWS_PER_BLOCK):
            block = np.asarray(questions[start : start + ROWS_PER_BLOCK])
            append(np.flatnonzero(np.diff(block, prepend=last)) + start)
            last = int(block[-1])
        append(np.array([len(questions)]))
