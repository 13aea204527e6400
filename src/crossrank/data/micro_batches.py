"""The batches of a training, each a pure function of its position."""

from collections.abc import Sized
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from crossrank.data.batch import PairBatch, collate
from crossrank.data.in_batch_negatives import InBatchNegatives
from crossrank.data.order import BatchPlan
from crossrank.data.tokens import PairEncoder
from crossrank.data.training_rows import TrainingRows
from crossrank.data.whole_questions import WholeQuestions

Columns = tuple[npt.NDArray[Any], ...]  # of rows: their questions, documents, labels, lists and ranks
BATCHES_RESIDENT = 16  # after so many, what they were read from leaves the process's memory


class MicroBatches(Dataset[PairBatch], Sized):
    """All micro-batches of one process, in order; `batches[k]` is the same whenever and wherever it is asked for.

    The `processes` of a training share each step's pairs, and the process of this `rank` splits its own over
    `accumulate` micro-batches. With `whole` they share its questions instead, each with all its rows and the documents
    that `others` draws for it. With a `multiple` batches are of few shapes, see `PairBatch.of_few_shapes`.
    """

    def __init__(
        self,
        rows: TrainingRows,
        plan: BatchPlan,
        encoder: PairEncoder,
        steps: int,
        accumulate: int,
        seed: int,
        multiple: int | None = None,
        rank: int = 0,
        processes: int = 1,
        whole: WholeQuestions | None = None,
        others: InBatchNegatives | None = None,
    ) -> None:
        self.rows, self.plan, self.encoder, self.steps, self.accumulate, self.seed, self.multiple = (
            rows, plan, encoder, steps, accumulate, seed, multiple,
        )  # fmt: skip
        self.rank, self.processes, self.whole, self.others = rank, processes, whole, others
        self._ranks = rows.ranks  # made here, once, for all workers
        self._epoch = -1
        self._order: Any = None
        self._served = 0

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __getitem__(self, position: int) -> PairBatch:
        step, share = divmod(position, self.accumulate)
        epoch = step // self.plan.steps_per_epoch
        if epoch != self._epoch:
            visited = self.rows if self.whole is None else self.whole
            self._epoch, self._order = epoch, visited.order(self.seed, epoch)
        questions, documents, labels, lists, ranks = self._rows_of(step, share * self.processes + self.rank, epoch)
        pairs = [
            (self.rows.question_tokens[q], self.rows.document_tokens[d])
            for q, d in zip(questions, documents, strict=True)
        ]
        batch = collate(self.encoder, pairs, labels, lists, ranks)
        self._served += 1
        if self._served % BATCHES_RESIDENT == 0:
            self.rows.let_go(self._order)
        return batch.of_few_shapes(self.multiple) if self.multiple else batch

    def _rows_of(self, step: int, share: int, epoch: int) -> Columns:
        """Return the rows of a share of a step, a list of its own for each visit of a question."""
        chosen, lists = self.plan.rows_of(step, share, self._order), None
        if self.whole is not None:
            chosen, lists = self.whole.rows_of(chosen)
        questions, documents, labels = self.rows.at(chosen, epoch)
        if lists is None:
            return questions, documents, labels, questions, self._ranks[chosen]
        columns = questions, documents, labels, lists, self._ranks[chosen]
        if self.others is None:
            return columns
        visits, drawn = self.others.draw(self.plan.rows_of_all(step, self._order), step, epoch)
        mine = visits % self.plan.shares == share
        return _with(columns, visits[mine] // self.plan.shares, drawn[mine])


def _with(columns: Columns, lists: npt.NDArray[np.int64], documents: npt.NDArray[np.int32]) -> Columns:
    """Return the rows with negatives of some lists, each behind its list's own rows, without a rank."""
    asked = columns[0][np.searchsorted(columns[3], lists)]
    nothing = np.zeros(len(lists), columns[2].dtype)
    more: Columns = asked, documents, nothing, lists, np.full(len(lists), -1)
    order = np.argsort(np.concatenate([columns[3], lists]), kind="stable")
    return tuple(np.concatenate(both)[order] for both in zip(columns, more, strict=True))
