"""The rows that a source gives by itself: documents that it labels, and questions that it wants to be seen more often.

They are kept as training rows are: `questions`, `documents` and `labels`, question by question, best label first.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossrank.data.cache import ArrayWriter, cached, growing_arrays, save_array
from crossrank.data.pairs import PairIndex
from crossrank.data.ranks import ROWS_PER_BLOCK, whole_questions
from crossrank.errors import DataError

log = logging.getLogger(__name__)

NAMES = ("questions", "documents", "labels")
Rows = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[Any]]


@dataclass(frozen=True)
class Given:
    """What a source gives: `rows` labelled rows in a `folder`; `scored` as in `QAPairs`; whether there are `copies`."""

    folder: Path
    rows: int
    scored: bool
    copies: bool

    @classmethod
    def prepare(cls, index: Callable[[], PairIndex], named: str, cache_dir: Path) -> "Given":
        """Write what the source gives, unless it is cached; the index is only asked for then."""
        folder = cached(cache_dir / "given" / named, lambda to: write_given(index(), to))
        return cls(folder, **json.loads((folder / "given.json").read_text(encoding="utf-8")))

    def alone(self) -> Path:
        """Return the folder of the rows, to be trained on without others.

        Raises:
            DataError: there are none, or all are labelled alike.
        """
        labels = np.load(self.folder / "labels.npy", mmap_mode="r") if self.rows else np.zeros(0)
        if not self.rows or labels.min() == labels.max():
            alike = f"labels all of its {self.rows} pairs {labels[0]:g}" if self.rows else "gives no negatives"
            raise DataError(f"the source {alike}: there is nothing to tell apart; choose a miner, such as miner=bm25")
        return self.folder

    def allow_mining(self, fresh: bool = False) -> None:
        """Check that mined documents can stand beside those that are given.

        Raises:
            DataError: the given ones are scored, which mined ones are not, or mined ones are drawn anew each epoch.
        """
        if self.scored:
            raise DataError("the source's documents have scores, which mined ones would lack; train with miner=none")
        if self.rows and fresh:
            raise DataError("the source has negatives of its own, which no epoch draws anew; set policy.fresh=false")

    def allow_in_batch(self) -> None:
        """Check that documents of other questions can stand beside those that are given.

        Raises:
            DataError: the given ones are scored, which those are not.
        """
        if self.scored:
            raise DataError(
                "the source's documents have scores, which those of other questions would lack; set "
                "data.in_batch_negatives=0"
            )

    def beside(self, mined: Path) -> Path:
        """Return the folder of mined rows together with those that are given."""
        if not self.rows:
            return mined
        return cached(mined.with_name(f"{mined.name}-and-given"), lambda to: join_rows(self.folder, mined, to))

    def again(self, rows: Path) -> npt.NDArray[np.int64] | None:
        """Return the rows that an epoch visits once more, one entry a visit, memory-mapped; None for none."""
        if not self.copies:
            return None
        folder = cached(rows.with_name(f"{rows.name}-again"), lambda to: _write_again(self.folder, rows, to))
        mapped: npt.NDArray[np.int64] = np.load(folder / "again.npy", mmap_mode="r")
        return mapped


def write_given(index: PairIndex, folder: Path) -> None:
    """Write the labelled rows of an index, labels as uint8 if they are 0 and 1 alone, and how often it repeats each."""
    judged = index.judged
    facts = {"rows": 0, "scored": False, "copies": index.copies is not None}
    if judged is not None:
        facts |= {"rows": len(judged.labels), "scored": judged.scored}
        binary = not judged.scored and bool(np.isin(judged.labels, (0, 1)).all())
        asked = np.repeat(np.arange(len(index.questions), dtype=np.int32), np.diff(judged.offsets))
        save_array(folder / "questions.npy", asked)
        save_array(folder / "documents.npy", judged.documents)
        save_array(folder / "labels.npy", judged.labels.astype(np.uint8) if binary else judged.labels)
        _tell(index, len(judged.labels))
    if index.copies is not None:
        save_array(folder / "copies.npy", index.copies)
    (folder / "given.json").write_text(json.dumps(facts), encoding="utf-8")


def _tell(index: PairIndex, rows: int) -> None:
    answers, questions = len(index.positives), len(index.questions)
    others = rows - answers
    log.info("the source gives %d documents besides the answers, %.1f an answer", others, others / max(answers, 1))
    if without := questions - int(np.count_nonzero(np.diff(index.positive_offsets))):
        log.warning("%d of %d questions have no document that answers them", without, questions)


def join_rows(given: Path, mined: Path, folder: Path) -> None:
    """Write given and mined rows question by question, the given first; where both hold a document the given counts."""
    first, second = _open(given), _open(mined)
    with growing_arrays(folder, dict(zip(NAMES, (np.int32, np.int32, first[2].dtype), strict=True))) as append:
        for block in whole_questions(first[0]):  # every question that was mined for has a given row: its answer
            last = first[0][block.stop - 1]
            low, high = np.searchsorted(second[0], (first[0][block.start], last + 1))
            append(*_joined(tuple(x[block] for x in first), tuple(x[low:high] for x in second)))


def _open(folder: Path) -> Rows:
    questions, documents, labels = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in NAMES)
    return questions, documents, labels


def _joined(given: tuple[Any, ...], mined: tuple[Any, ...]) -> tuple[Any, ...]:
    keys = [(np.asarray(q, np.int64) << 32) + d for q, d, _ in (given, mined)]
    new = ~np.isin(keys[1], keys[0])
    rows = [np.concatenate([a, b[new]]) for a, b in zip(given, mined, strict=True)]
    order = np.argsort(rows[0], kind="stable")
    return tuple(values[order] for values in rows)


def _write_again(given: Path, rows: Path, folder: Path) -> None:
    copies, questions = np.load(given / "copies.npy"), np.load(rows / "questions.npy", mmap_mode="r")
    blocks = [slice(at, at + ROWS_PER_BLOCK) for at in range(0, len(questions), ROWS_PER_BLOCK)]
    count = sum(int((copies[questions[block]] - 1).sum()) for block in blocks)
    with ArrayWriter(folder / "again.npy", (count,), np.int64) as again:
        for visit in range(2, copies.max(initial=0) + 1):
            for block in blocks:
                again.append(np.flatnonzero(copies[questions[block]] >= visit) + block.start)
