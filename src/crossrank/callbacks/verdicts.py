"""Whether averaged weights are better than the best step's, and which of them a run keeps."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import pandas as pd
from lightning.pytorch.loggers import Logger
from torch import Tensor

from crossrank.callbacks.averaging import Averaging
from crossrank.callbacks.evaluation import PeriodicEvaluation
from crossrank.evaluation import Evaluation
from crossrank.evaluation.paired import Paired, paired
from crossrank.evaluation.store import EvaluationStore
from crossrank.training.checkpoints import AtomicCheckpointIO
from crossrank.training.module import RerankerModule

log = logging.getLogger(__name__)

AVERAGED = "averaged"  # the folder in evaluations/ that holds one of each average
KEPT = "averaged.ckpt"  # the weights of the average that is exported


@dataclass(frozen=True)
class Verdict:
    """What became of one average: how it compares with the best step on the set that chose that step.

    `step` is the number under which its evaluation is kept, one past the last step, which no step of the training has.
    """

    name: str
    rule: str
    updates: int
    step: int
    best_step: int
    found: Paired
    weights: Mapping[str, Tensor] = field(repr=False, compare=False)
    evaluations: Mapping[str, Evaluation] = field(repr=False, compare=False)

    @property
    def better(self) -> bool:
        """Whether its monitored metric is higher."""
        return self.found.value > self.found.against

    def facts(self) -> dict[str, Any]:
        """Return it for another program."""
        known = {"name": self.name, "rule": self.rule, "updates": self.updates, "against_step": self.best_step}
        return known | self.found.facts()

    def words(self) -> str:
        """Return it as a sentence."""
        mean, low, high = self.found.difference
        return (
            f"{self.name} ({self.rule}, {self.updates:,} updates) has {self.found.value:.4f}, step {self.best_step} "
            f"{self.found.against:.4f}: {mean:+.4f} [{low:+.4f}, {high:+.4f}], p = {self.found.p:.3g}, of "
            f"{self.found.queries:,} queries"
        )


def judge(
    averages: Mapping[str, Averaging], evaluation: PeriodicEvaluation, trainer: pl.Trainer, module: RerankerModule
) -> list[Verdict]:
    """Evaluate each average after the training, and compare it with the best step by the paired test.

    Every process has to call it, and the first alone is told. The module is left with other weights than before, and
    where Lightning leaves it after a training. An average that nothing has gone into is left out with a warning.
    """
    verdicts: list[Verdict] = []
    if evaluation.best_step < 0:  # nothing was better than not a number, as loading the best will say
        return verdicts
    module.to(trainer.strategy.root_device)
    for name, callback in averages.items():
        average = callback.average
        if not average.updates:
            log.warning("%s: the training ended before the first of the steps that it averages", name)
            continue
        module.load_state_dict(average.weights, strict=False)
        evaluations = dict(evaluation.measured(trainer, module))
        if trainer.is_global_zero:
            step = trainer.global_step + 1
            store = EvaluationStore(evaluation.run_dir / "evaluations" / AVERAGED / name)
            for evaluator, measured in evaluations.items():
                store.write(evaluator, step, measured)
            found = _against_best(evaluations, evaluation)
            rule = str(callback.rule)
            best = evaluation.best_step
            verdicts.append(Verdict(name, rule, average.updates, step, best, found, average.weights, evaluations))
    module.cpu()
    return verdicts


def best_of(verdicts: Sequence[Verdict]) -> Verdict | None:
    """Return the average that is kept in place of the best step: the best of those that are better, if any is."""
    return max((v for v in verdicts if v.better), key=lambda v: v.found.value, default=None)


def keep_better(
    verdicts: Sequence[Verdict], evaluation: PeriodicEvaluation, loggers: Sequence[Logger], module: RerankerModule
) -> int:
    """Load the best step's weights, or an average whose monitored metric is higher still; return the step they have.

    The evaluation of an average that is kept joins those of the steps, under its own number, and its weights become
    `<run_dir>/checkpoints/averaged.ckpt`, from which it is exported again.
    """
    module.load_state_dict(evaluation.load_best())
    best = best_of(verdicts)
    for verdict in verdicts:
        kept = "the average is exported" if verdict is best else "it is not exported"
        log.info("averaged weights: %s; %s", verdict.words(), kept)
    if best is None:
        return evaluation.best_step
    module.load_state_dict(best.weights, strict=False)
    state = {"state_dict": module.state_dict(), "global_step": best.step, "lineage": dict(module.lineage)}
    AtomicCheckpointIO().save_checkpoint(state, evaluation.run_dir / "checkpoints" / KEPT)
    store = EvaluationStore(evaluation.run_dir / "evaluations")
    metrics: dict[str, float] = {}
    for name, measured in best.evaluations.items():
        metrics |= measured.metrics(name)
        store.write(name, best.step, measured)
    for logger in loggers:
        logger.log_metrics(metrics, step=best.step)
        logger.save()  # Lightning has closed them with the training
    evaluation.best_step, evaluation.best_value = best.step, metrics[evaluation.monitor]
    return best.step


def _against_best(evaluations: Mapping[str, Evaluation], evaluation: PeriodicEvaluation) -> Paired:
    _, evaluator, *dataset, metric = evaluation.monitor.split("/")
    best = evaluation.run_dir / "evaluations" / f"step={evaluation.best_step:06d}-{evaluator}.parquet"
    return paired(evaluations[evaluator].rows, pd.read_parquet(best), "/".join(dataset), metric)
