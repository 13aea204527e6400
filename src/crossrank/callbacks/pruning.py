"""Ends a search's job whose evaluations fall behind those of the jobs before it."""

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from crossrank.callbacks.evaluation import PeriodicEvaluation, evaluation_among
from crossrank.training.study import trial_of

log = logging.getLogger(__name__)


class Pruning(pl.Callback):
    """Tells the study in the sweep's folder every evaluation's monitored value, and stops where the study says so.

    What was best up to then is exported and reported as ever; `result.json` says at which step the run was pruned. A
    run that is no job of a search, such as one of its jobs done again by itself, trains to its end.
    """

    def __init__(self, run_dir: str) -> None:
        self.run_dir = Path(run_dir)
        self.pruned_at: int | None = None
        self._told = 0  # the step of the last evaluation that the study knows
        self._trial: Any = None
        self._evaluation: PeriodicEvaluation | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the run's trial, and what evaluates it."""
        self._evaluation = evaluation_among(trainer.callbacks)  # type: ignore[attr-defined]
        self._trial = trial_of(self.run_dir) if trainer.is_global_zero else None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Tell of an evaluation that was made at this step; the evaluation's callback comes before this one."""
        evaluation = self._evaluation
        if evaluation is None or not self._told < evaluation.last_step == trainer.global_step:
            return
        self._told = evaluation.last_step
        stop = False
        if self._trial is not None:
            self._trial.report(float(trainer.callback_metrics[evaluation.monitor]), self._told)
            stop = self._trial.should_prune() and self._told < trainer.max_steps
        if trainer.strategy.reduce_boolean_decision(stop, all=False):
            self.pruned_at = self._told
            log.info("pruned after step %d: at that step it is below the median of the jobs before it", self._told)
            trainer.should_stop = True
