"""The LightningDataModule over pool, tokens, rows and order.

The whole training is one long epoch of `max_steps * accumulate` micro-batches, and micro-batch k is a pure function
of (seed, k): the position, which is in every checkpoint, is all there is to resume.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Sampler

from crossrank.data.batch import PairBatch
from crossrank.data.in_batch_negatives import InBatchNegatives
from crossrank.data.micro_batches import MicroBatches
from crossrank.data.mining import Miner
from crossrank.data.order import BatchPlan
from crossrank.data.pairs import Source
from crossrank.data.policy import Policy
from crossrank.data.teacher import Teacher
from crossrank.data.tokens import PairEncoder
from crossrank.data.training_rows import TrainingRows, prepare_rows
from crossrank.data.whole_questions import WholeQuestions
from crossrank.errors import DataError

log = logging.getLogger(__name__)


class FromPosition(Sampler[int]):
    """The positions from `start` on; its length is the whole, which Lightning compares with its own counter."""

    def __init__(self, start: int, total: int) -> None:
        self.start, self.total = start, total

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.total))


@dataclass(frozen=True)
class Batching:
    """How long a training is and how its pairs are batched.

    `pairs_per_step` pairs make one optimizer step, whatever the accumulation; or, where given, `questions_per_step`
    questions with all their rows, which is what a loss over lists needs, and each with `in_batch_negatives` documents
    of the step's other questions besides (see `InBatchNegatives`). The length is `max_steps` optimizer steps where
    given, otherwise `epochs` passes. `pool_depth` candidates are mined a question (by default as many as the policy
    looks at), so that other policies can be tried on the same pool. `workers` processes collate.
    """

    pairs_per_step: int = 16
    epochs: float = 1.0
    max_steps: int | None = None
    workers: int = 0
    pool_depth: int | None = None
    questions_per_step: int | None = None
    in_batch_negatives: int = 0

    def __post_init__(self) -> None:
        if self.per_step < 1:
            raise ValueError(
                f"{self.unit}_per_step must be at least 1, got {self.per_step}: steps per epoch would be 0"
            )
        if self.epochs <= 0 or (self.max_steps is not None and self.max_steps < 1):
            raise ValueError(
                f"a training needs epochs > 0 and max_steps >= 1, got epochs={self.epochs}, max_steps={self.max_steps}"
            )
        if self.workers < 0:
            raise ValueError(f"workers counts processes and must be at least 0, got {self.workers}")
        if self.pool_depth is not None and self.pool_depth < 1:
            raise ValueError(f"pool_depth counts candidates a question and must be at least 1, got {self.pool_depth}")
        if self.in_batch_negatives < 0:
            raise ValueError(f"in_batch_negatives counts documents from 0, got {self.in_batch_negatives}")
        if self.in_batch_negatives and (self.questions_per_step or 0) < 2:
            raise ValueError(
                "in_batch_negatives takes documents of a step's other questions and needs questions_per_step to be at "
                f"least 2, got {self.questions_per_step}"
            )

    @property
    def unit(self) -> str:
        """What a step has a fixed number of: pairs or questions."""
        return "pairs" if self.questions_per_step is None else "questions"

    @property
    def per_step(self) -> int:
        """How many of them."""
        return self.pairs_per_step if self.questions_per_step is None else self.questions_per_step


class PairDataModule(pl.LightningDataModule):
    """Mines, tokenises and streams labelled pairs; `accumulate` micro-batches of each process make an optimizer step.

    With a `multiple`, a batch's tokens are rounded up to a multiple of it (see `PairBatch.of_few_shapes`). Such batches
    and those that are to `stay` wait on the host for what trains on them.
    """

    def __init__(
        self,
        source: Source,
        miner: Miner,
        policy: Policy,
        encoder: PairEncoder,
        batching: Batching,
        cache_dir: Path,
        seed: int,
        accumulate: int = 1,
        multiple: int | None = None,
        resume_anyway: bool = False,
        processes: int = 1,
        teacher: Teacher | None = None,
        stay: bool = False,
    ) -> None:
        super().__init__()
        self.stay = stay
        self.resume_anyway, self.processes, self.teacher = resume_anyway, processes, teacher
        self.source, self.miner, self.policy, self.encoder, self.batching = source, miner, policy, encoder, batching
        self.cache_dir, self.seed, self.accumulate, self.multiple = cache_dir, seed, accumulate, multiple
        self._rows: TrainingRows | None = None
        self._start = 0

    def prepare_data(self) -> None:
        """Build what is not cached."""
        self.rows  # noqa: B018 - building is what the property does

    @property
    def rows(self) -> TrainingRows:
        """The training rows, built on first use.

        Raises:
            DataError: the rows do not fill one optimizer step.
        """
        if self._rows is None:
            rows = prepare_rows(
                self.source,
                self.miner,
                self.policy,
                self.encoder,
                self.cache_dir,
                self.batching.pool_depth,
                self.teacher,
                signed=self.batching.in_batch_negatives > 0,
            )
            if self._plan_of(rows).steps_per_epoch == 0:
                shares = self.accumulate * self.processes
                count = self._plan_of(rows).rows
                raise DataError(f"steps per epoch are 0: {count} {self.batching.unit} for {shares} micro-batches")
            self._rows = rows
        return self._rows

    @property
    def plan(self) -> BatchPlan:
        """How an epoch is cut into steps."""
        return self._plan_of(self.rows)

    @property
    def max_steps(self) -> int:
        """Optimizer steps of the whole training."""
        if self.batching.max_steps is not None:
            return self.batching.max_steps
        return max(1, round(self.batching.epochs * self.plan.steps_per_epoch))

    def train_dataloader(self) -> DataLoader[PairBatch]:
        """Return the micro-batches from the restored position on; collating happens in the workers."""
        whole, drawn = self._whole_questions(self.rows), self.batching.in_batch_negatives
        rank = self.trainer.global_rank if self.trainer else 0
        batches = MicroBatches(
            self.rows, self.plan, self.encoder, self.max_steps, self.accumulate, self.seed, self.multiple, rank,
            self.processes, whole, InBatchNegatives(drawn, self.seed, whole, rank > 0) if drawn and whole else None,
        )  # fmt: skip
        return DataLoader(
            batches,
            batch_size=None,
            sampler=FromPosition(self._start, len(batches)),
            num_workers=self.batching.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.batching.workers > 0,  # which has Lightning end them, also after an error
            prefetch_factor=4 if self.batching.workers else None,
        )

    def transfer_batch_to_device(self, batch: PairBatch, device: torch.device, dataloader_idx: int) -> PairBatch:
        """Copy the batch without waiting for it, unless it is to stay."""
        return batch if self.multiple or self.stay else batch.to(device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the position and what gives it its meaning."""
        consumed = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready if self.trainer else 0
        return {"steps": consumed // self.accumulate, **self._meaning()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at a saved position.

        Raises:
            DataError: the position was saved under other data, another order or another batch size, and the run is not
                to go on all the same.
        """
        changed = {k: (state_dict.get(k), v) for k, v in self._meaning().items() if state_dict.get(k) != v}
        if changed:
            told = f"the checkpoint's position means something else here: {changed} (saved, now)"
            if not self.resume_anyway:
                raise DataError(told)
            log.warning("%s", told)
        self._start = state_dict["steps"] * self.accumulate

    def _plan_of(self, rows: TrainingRows) -> BatchPlan:
        whole, shares = self._whole_questions(rows), self.accumulate * self.processes
        return BatchPlan(len(rows if whole is None else whole), self.batching.per_step, shares)

    def _whole_questions(self, rows: TrainingRows) -> WholeQuestions | None:
        return None if self.batching.questions_per_step is None else WholeQuestions(rows)

    def _meaning(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            f"{self.batching.unit}_per_step": self.batching.per_step,
            "in_batch_negatives": self.batching.in_batch_negatives or None,  # states from before there were any lack it
            "rows": self.rows.fingerprints["rows"],
            "tokens": self.rows.fingerprints["tokens"],
        }
