"""Documents of a step's other questions as further negatives of each."""

import logging

import numpy as np
import numpy.typing as npt
import torch

from crossrank.data.lineage import NEAR
from crossrank.data.policy import hashed
from crossrank.data.whole_questions import WholeQuestions

log = logging.getLogger(__name__)

Ids = npt.NDArray[np.int64]
Documents = npt.NDArray[np.int32]
NEVER = np.iinfo(np.uint64).max


class InBatchNegatives:
    """Draws `count` documents of a step's other questions for each of its questions, at random and each once.

    Any document that stands in the step can be drawn, an answer or a negative, but for the question's own and for
    those that are equal or near-equal to one of its answers (`NEAR`). The draw is a pure function of (seed, epoch,
    step) over the whole step, whoever trains on which part of it. Where there are too few documents all of them are
    taken, which is said once, unless it is to be `quiet`.

    Source: sentence-transformers' MultipleNegativesRankingLoss, which draws from the whole batch by torch.multinomial.
    """

    def __init__(self, count: int, seed: int, whole: WholeQuestions, quiet: bool = False) -> None:
        self.count, self.seed, self.whole = count, seed, whole
        self._told = torch.tensor(quiet)
        self._told.share_memory_()  # type: ignore[no-untyped-call]  # any of the workers may tell

    def draw(self, visits: Ids, step: int, epoch: int) -> tuple[Ids, Documents]:
        """Return for a step's visits, which `WholeQuestions` numbers, which of them each document is for, from 0.

        Both are [drawn] and ordered by visit.
        """
        rows, visit = self.whole.rows_of(visits)
        _, documents, labels = self.whole.rows.at(rows, epoch)
        distinct, column = np.unique(documents, return_inverse=True)
        barred = np.zeros((len(visits), len(distinct)), bool)
        barred[visit, column] = True
        self._bar_twins(barred, distinct, visit[labels > 0], column[labels > 0])
        keys = hashed(self.seed, step, np.arange(len(visits)), np.broadcast_to(distinct, barred.shape))
        keys[barred] = NEVER
        drawn = np.argsort(keys, axis=1, kind="stable")[:, : self.count]
        which, place = np.nonzero(np.take_along_axis(keys, drawn, axis=1) < NEVER)
        self._tell(step, len(visits), which)
        return which, distinct[drawn[which, place]]

    def _bar_twins(self, barred: npt.NDArray[np.bool_], distinct: Documents, visit: Ids, answer: Ids) -> None:
        """Bar what is near-equal to an answer, `distinct[answer]`, from being drawn for its visit."""
        signatures = self.whole.rows.signatures
        assert signatures is not None
        signed = signatures[distinct]
        for one in np.unique(answer):
            barred[visit[answer == one]] |= NEAR.near(signed[one], signed)

    def _tell(self, step: int, visits: int, which: Ids) -> None:
        found = np.bincount(which, minlength=visits)
        if found.min() < self.count and not self._told:
            self._told.fill_(True)
            log.warning(
                "step %d has only %d documents of other questions for one of its %d questions, and "
                "data.in_batch_negatives=%d: in such a step as many are drawn as there are",
                step + 1, found.min(), visits, self.count,
            )  # fmt: skip
