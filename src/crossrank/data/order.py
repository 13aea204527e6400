"""Which pairs stand in which batch: a pure function of (seed, epoch, position).

Nothing here has a state: any batch of any epoch can be asked for at any time, on any rank, in any worker.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch


def epoch_order(rows: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the order of `rows` pairs in one epoch.

    Source: sentence-transformers' default batch sampler: torch.randperm with a generator seeded seed + epoch.
    """
    return permute(np.empty(rows, np.int64), seed, epoch)


def permute(order: npt.NDArray[np.int64], seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Fill an array, which may be a memory map, with the order of as many pairs in one epoch; see `epoch_order`."""
    generator = torch.Generator().manual_seed(seed + epoch)
    torch.randperm(len(order), generator=generator, out=torch.from_numpy(order))
    return order


@dataclass(frozen=True)
class BatchPlan:
    """How an epoch of `rows` pairs is cut into optimizer steps and micro-batches.

    `pairs_per_step` pairs make an optimizer step, over `shares` equal micro-batches (ranks x accumulation). An
    epoch's last step is smaller; it is dropped only when it cannot give every share a pair. Where a step is made of
    whole questions (`WholeQuestions`), they stand in the place of pairs.
    """

    rows: int
    pairs_per_step: int
    shares: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        full, rest = divmod(self.rows, self.pairs_per_step)
        return full + (rest >= self.shares)

    def rows_of(self, step: int, share: int, order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the rows of one share of one step of the epoch that has this order."""
        return self.rows_of_all(step, order)[share :: self.shares]

    def rows_of_all(self, step: int, order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the rows of one step; row i is of share i % `shares`."""
        start = (step % self.steps_per_epoch) * self.pairs_per_step
        return order[start : start + self.pairs_per_step]
