"""What a stronger model thinks of a pool's candidates: asked once, kept beside the pool, read by the policy."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from crossrank.data.cache import write_rows_in_blocks
from crossrank.data.mining import Pool
from crossrank.data.pairs import PairIndex
from crossrank.data.policy import Policy
from crossrank.errors import DataError
from crossrank.hub import Asset

log = logging.getLogger(__name__)

QUESTIONS_PER_BLOCK = 256
NOT_OF_THE_FILTERS = ("negatives", "sampling", "fresh", "seed", "denoise", "teacher_above")


class Teacher(Protocol):
    """A model that says how likely a document is to answer a question."""

    candidates: int  # how many of a question's surviving candidates it is asked about, from the best on

    def assets(self) -> Sequence[Asset]:
        """Return what may have to be fetched."""
        ...

    def fingerprint(self) -> str:
        """Return an id of everything its answers depend on but the texts."""
        ...

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """Return for each (question, document) the probability that the document is relevant, float32[pairs]."""
        ...


def filters_of(policy: Policy) -> dict[str, object]:
    """Return the settings of a policy that decide which candidates survive, and so what a teacher is asked."""
    return {name: value for name, value in dataclasses.asdict(policy).items() if name not in NOT_OF_THE_FILTERS}


def ask(teacher: Teacher, pool: Pool, policy: Policy, index: PairIndex, folder: Path) -> None:
    """Write `teacher.npy` into `folder`: float32[questions, depth], NaN where the teacher was not asked.

    It is asked about each question's best `teacher.candidates` of those that survive the policy. What an interrupted
    call left in `folder` is gone on with.

    Raises:
        DataError: it gave something else than a probability.
    """
    policy = dataclasses.replace(policy, negatives=1, sampling="top", fresh=False)
    write_rows_in_blocks(
        folder / "teacher.npy",
        (len(pool), pool.candidates.shape[1]),
        QUESTIONS_PER_BLOCK,
        "asking the teacher",
        lambda start, stop: _answers(teacher, pool, policy, index, np.arange(start, stop)),
    )


def _answers(
    teacher: Teacher, pool: Pool, policy: Policy, index: PairIndex, block: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Return float32[block, depth]."""
    answers = np.full((len(block), pool.candidates.shape[1]), np.nan, np.float32)
    alive = policy.surviving(pool, block)
    rows, columns = np.nonzero(alive & (np.cumsum(alive, axis=1) <= teacher.candidates))
    documents = pool.candidates[block[rows], columns]
    pairs = [(index.questions[block[row]], index.documents[d]) for row, d in zip(rows, documents, strict=True)]
    found = teacher.probabilities(pairs)
    if not ((found >= 0) & (found <= 1)).all():
        raise DataError(
            f"{type(teacher).__name__} gave {found[~((found >= 0) & (found <= 1))][0]} for a pair near question "
            f"{block[0]}; a probability between 0 and 1 is wanted"
        )
    answers[rows, columns] = found
    return answers
