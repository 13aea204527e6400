"""Runs the evaluators before the first optimizer step, every N, and after the last; keeps the best weights."""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from crossrank.data.fingerprint import file_fingerprint
from crossrank.errors import TrainingError
from crossrank.evaluation import Evaluation, Evaluator
from crossrank.evaluation.store import EvaluationStore, refuse_path
from crossrank.inference.scorer import PairScorer
from crossrank.training.checkpoints import read_checkpoint
from crossrank.training.module import RerankerModule

log = logging.getLogger(__name__)

BEST = "best.ckpt"


class PeriodicEvaluation(pl.Callback):
    """Evaluates every `every_n_steps` optimizer steps, whatever the accumulation.

    Per-query rows go to `<run_dir>/evaluations/step=NNNNNN-<evaluator>.parquet`, the scores of all pairs to
    `evaluations/scores/`, questions and texts once to `evaluations/queries/` and `evaluations/documents/`; means with
    their intervals go to the loggers. When `monitor` (a key such
    as eval/gooaq_dev/gooaq-dev/ndcg@10) rises, the weights of that very step become `<run_dir>/checkpoints/best.ckpt`;
    the evaluation before training does not compete. Matrix products are done in the run's precision, over packed
    batches of `tokens_per_batch` tokens.
    """

    def __init__(
        self,
        evaluators: dict[str, Evaluator],
        monitor: str,
        run_dir: str,
        every_n_steps: int = 4000,
        tokens_per_batch: int | None = None,
    ) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps counts optimizer steps and must be at least 1, got {every_n_steps}")
        if tokens_per_batch is not None and tokens_per_batch < 1:
            raise ValueError(f"tokens_per_batch must be at least 1, got {tokens_per_batch}")
        if not evaluators:
            raise ValueError("evaluators must name at least one, got none; remove the callback to train without")
        for name in evaluators:
            refuse_path(name)
        self.evaluators, self.monitor, self.run_dir = evaluators, monitor, Path(run_dir)
        self.every_n_steps, self.tokens_per_batch = every_n_steps, tokens_per_batch
        self.best_step, self.best_value, self.best_content = -1, float("-inf"), ""
        self._scorer: PairScorer | None = None
        self.last_step = -1

    @property
    def best_checkpoint(self) -> Path:
        """Where the weights of the best evaluated step lie."""
        return self.run_dir / "checkpoints" / BEST

    def state_dict(self) -> dict[str, Any]:
        """Return what was best so far."""
        best = {"best_step": self.best_step, "best_value": self.best_value, "best_content": self.best_content}
        return best | {"last_step": self.last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what was best so far."""
        self.best_step, self.last_step = int(state_dict["best_step"]), int(state_dict["last_step"])
        self.best_value, self.best_content = state_dict["best_value"], state_dict["best_content"]

    def steps(self, max_steps: int) -> list[int]:
        """Return the steps of a training after which it evaluates."""
        return [step for step in range(1, max_steps + 1) if self._is_due(step, max_steps)]

    def load_best(self) -> dict[str, Any]:
        """Return the weights of the best evaluated step.

        Raises:
            TrainingError: the file is gone, or is not what was written.
        """
        weights = None
        if self._best_is_there():
            with suppress(ValueError):
                weights = read_checkpoint(self.best_checkpoint).get("state_dict")
        if not isinstance(weights, dict):
            raise TrainingError(
                f"{self.best_checkpoint} is not the file that step {self.best_step} wrote; go on from an earlier state "
                f"with resume={self.run_dir} after removing the newest file of {self.best_checkpoint.parent}"
            )
        return weights

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate the untrained model, unless the run goes on from a later step.

        A better step may have been kept between the state to go on from and the end. Where numbers repeat, as on a
        CPU, it is found again; where they do not, the best of the steps to come must do.
        """
        if trainer.global_step == 0:
            self._evaluate(trainer, pl_module)
        elif self.best_step > 0 and not self._best_is_there():
            log.warning(
                "%s no longer holds the weights of step %d, the best so far: the best of the steps to come is kept",
                self.best_checkpoint, self.best_step,
            )  # fmt: skip
            self.best_step, self.best_value, self.best_content = -1, float("-inf"), ""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Evaluate when an optimizer step that is due has just been made."""
        step = trainer.global_step
        if self._is_due(step, trainer.max_steps) and step != self.last_step:
            self._evaluate(trainer, pl_module)

    def measured(self, trainer: pl.Trainer, module: RerankerModule) -> Iterator[tuple[str, Evaluation]]:
        """Evaluate the module as it is, in the run's precision: each evaluator's name and what it found."""
        scorer = self._scorer_for(trainer, module)
        for name, evaluator in self.evaluators.items():
            yield name, evaluator(scorer)

    def _is_due(self, step: int, max_steps: int) -> bool:
        return step % self.every_n_steps == 0 or step == max_steps

    def _best_is_there(self) -> bool:
        return self.best_checkpoint.is_file() and file_fingerprint(self.best_checkpoint) == self.best_content

    def _evaluate(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, RerankerModule)
        started = time.monotonic()
        step = self.last_step = trainer.global_step
        metrics: dict[str, float] = {}
        store = EvaluationStore(self.run_dir / "evaluations")
        for name, evaluation in self.measured(trainer, pl_module):
            metrics |= evaluation.metrics(name)
            if trainer.is_global_zero:
                store.write(name, step, evaluation)
                store.describe(name, self.evaluators[name].tasks)
        value = metrics[self.monitor]
        metrics["eval/seconds"] = time.monotonic() - started
        pl_module.evaluation_seconds += metrics["eval/seconds"]
        pl_module.progress["ndcg"] = f"{value:.4f}"
        trainer.callback_metrics.update({key: torch.tensor(number) for key, number in metrics.items()})
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=step)
        log.info("step %d: %s = %s (%.1f s)", step, self.monitor, self._shown(metrics), metrics["eval/seconds"])
        if step > 0 and value > self.best_value:
            self.best_step, self.best_value = step, value
            trainer.save_checkpoint(self.best_checkpoint, weights_only=True)
            self.best_content = file_fingerprint(self.best_checkpoint)

    def _shown(self, metrics: dict[str, float]) -> str:
        low, high = (metrics.get(f"{self.monitor}_{end}") for end in ("low", "high"))
        return f"{metrics[self.monitor]:.4f}" + ("" if low is None else f" [{low:.4f}, {high:.4f}]")

    def _scorer_for(self, trainer: pl.Trainer, module: RerankerModule) -> PairScorer:
        if self._scorer is None:
            autocast = torch.bfloat16 if trainer.precision == "bf16-mixed" else None
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            self._scorer = PairScorer(module.model, data.encoder, self.tokens_per_batch, autocast)
            tasks = [task for evaluator in self.evaluators.values() for task in evaluator.tasks]
            self._scorer.remember((text for task in tasks for pair in task.pairs for text in pair), data.cache_dir)
        return self._scorer


def evaluation_among(callbacks: Iterable[pl.Callback]) -> PeriodicEvaluation | None:
    """Return the callback that evaluates, if there is one."""
    return next((callback for callback in callbacks if isinstance(callback, PeriodicEvaluation)), None)
