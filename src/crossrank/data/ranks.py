"""Where each row stands among its question's negatives."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossrank.data.cache import ArrayWriter

ROWS_PER_BLOCK = 1 << 18


def write_ranks(questions: npt.NDArray[np.int32], labels: npt.NDArray[Any], file: Path) -> None:
    """Write the rank of every row as uint8; rows of a question stand together, their questions ascending.

    It is 0 for a positive, else the row's place among its question's negatives, hardest first, from 1 to 255. A
    negative is labelled 0, or lower than the best of its question.
    """
    with ArrayWriter(file, labels.shape, np.uint8) as ranks:
        for block in whole_questions(questions):
            ranks.append(_ranks(np.asarray(questions[block]), np.asarray(labels[block])))


def whole_questions(questions: npt.NDArray[np.int32]) -> Iterator[slice]:
    """Cut ascending question numbers into blocks of some 262,144 rows that split no question."""
    start = 0
    while start < len(questions):
        last = questions[min(start + ROWS_PER_BLOCK, len(questions)) - 1]
        stop = int(np.searchsorted(questions, last, side="right"))
        yield slice(start, stop)
        start = stop


def _ranks(questions: npt.NDArray[np.int32], labels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    starts = np.flatnonzero(np.diff(questions, prepend=-1))
    lengths = np.diff(starts, append=len(questions))
    negative = (labels == 0) | (labels < np.repeat(np.maximum.reduceat(labels, starts), lengths))
    counted = np.cumsum(negative, dtype=np.int32)
    before = np.repeat((counted - negative)[starts], lengths)
    return np.where(negative, np.minimum(counted - before, 255), 0).astype(np.uint8)
