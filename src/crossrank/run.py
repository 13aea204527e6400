"""A whole run, from components to an exported model and a result a person can read."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger

from crossrank.analysis.report import CalibrationMethod, calibrated, run_report
from crossrank.analysis.runs import RunFolder
from crossrank.analysis.summary import SummaryRow, as_markdown, summary
from crossrank.callbacks.evaluation import PeriodicEvaluation
from crossrank.callbacks.step_rng import StepKeyedRNG
from crossrank.data.datamodule import Batching, PairDataModule
from crossrank.data.mining import Miner, Policy
from crossrank.data.pairs import Source
from crossrank.evaluation.calibration import Calibration
from crossrank.hub import Asset, require
from crossrank.losses import Loss
from crossrank.models.backbones import Backbone
from crossrank.models.card import write_card
from crossrank.models.export import export
from crossrank.training.module import RerankerModule
from crossrank.training.optim import OptimizerFactory, Schedule
from crossrank.training.tracking import JsonlLogger, finish_wandb
from crossrank.training.trainer import TrainerSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRun:
    """The components of a run, checked and built, before anything has been computed."""

    name: str
    seed: int
    run_dir: Path
    cache_dir: Path
    source: Source
    miner: Miner
    policy: Policy
    data: Batching
    model: Backbone
    loss: Loss
    optimizer: OptimizerFactory
    schedule: Schedule
    trainer: TrainerSpec
    callbacks: Mapping[str, pl.Callback] = field(default_factory=dict)
    loggers: Mapping[str, Callable[[], Logger]] = field(default_factory=dict)
    calibration: CalibrationMethod = "platt"

    @property
    def evaluation(self) -> PeriodicEvaluation | None:
        """The callback that evaluates, if there is one."""
        return next((c for c in self.callbacks.values() if isinstance(c, PeriodicEvaluation)), None)

    def assets(self) -> list[Asset]:
        """Return everything that may have to be fetched."""
        evaluators = self.evaluation.evaluators.values() if self.evaluation else ()
        return [asset for part in (self.source, self.miner, self.model, *evaluators) for asset in part.assets()]


@dataclass(frozen=True)
class Result:
    """What a run ended with."""

    run_dir: Path
    export: Path
    best_step: int
    rows: list[SummaryRow]
    documents: Path  # the source's training pairs as parquet, whose answers can be ranked
    seconds: float


def execute(run: TrainingRun) -> Result:
    """Fetch, mine, tokenise, train, evaluate, keep the best, export it and write the report.

    Raises:
        CrossrankError: something that was given is wrong; nothing half-written is left behind.
    """
    started = time.monotonic()
    require(run.assets())
    encoder = run.model.encoder()
    data = PairDataModule(
        run.source, run.miner, run.policy, encoder, run.data, run.cache_dir, run.seed,
        run.trainer.accumulate_grad_batches, run.trainer.multiple,
    )  # fmt: skip
    evaluators = run.evaluation.evaluators if run.evaluation else {}
    for evaluator in evaluators.values():
        evaluator.prepare()
    data.prepare_data()
    module = RerankerModule(run.model.build(run.seed), run.loss, run.optimizer, run.schedule, run.trainer.step_mode)
    _fit(run, module, data)
    best_step = _load_best(run, module, data.max_steps)
    folder = export(module.model, encoder, run.run_dir / "export")
    rows = summary(RunFolder(run.run_dir), best_step) if evaluators else []
    documents = run.cache_dir / "sources" / run.source.fingerprint() / "train.parquet"
    result = Result(run.run_dir, folder, best_step, rows, documents, time.monotonic() - started)
    _write_result(run, result, len(data.rows))
    return result


def _fit(run: TrainingRun, module: RerankerModule, data: PairDataModule) -> None:
    callbacks = [StepKeyedRNG(run.seed), *run.callbacks.values()]
    failed = True
    try:
        loggers = [JsonlLogger(run.run_dir), *(build() for build in run.loggers.values())]
        trainer = run.trainer.build(data.max_steps, callbacks, loggers, run.run_dir)
        plan = data.plan
        log.info(
            "training %s steps of %d pairs (%d pairs in all, %d steps an epoch), %s",
            f"{data.max_steps:,}", plan.pairs_per_step, plan.rows, plan.steps_per_epoch, trainer.precision,
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        failed = False
    finally:
        finish_wandb(failed)


def _load_best(run: TrainingRun, module: RerankerModule, last_step: int) -> int:
    """Put the best weights back into the module and return the step they are from."""
    if run.evaluation is None:
        return last_step
    checkpoint = torch.load(run.evaluation.best_checkpoint, map_location=module.device, weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    return run.evaluation.best_step


def _write_result(run: TrainingRun, result: Result, pairs: int) -> None:
    facts = {"name": run.name, "best_step": result.best_step, "export": "export", "seconds": round(result.seconds, 1)}
    table, report = "Nothing was evaluated.", f"# {run.name}\n\nNothing was evaluated.\n"
    if run.evaluation:
        monitor = run.evaluation.monitor
        facts |= {"monitor": monitor, "best_value": run.evaluation.best_value}
        folder = RunFolder(run.run_dir)
        calibration = _calibrate(run, folder, result, monitor.split("/")[1])
        table = as_markdown(result.rows)
        report = run_report(folder, run.name, result.best_step, result.rows, monitor, calibration)
    (run.run_dir / "result.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    write_card(result.export, run.name, result.best_step, pairs, run.model.assets()[0], table)
    (run.run_dir / "report.md").write_text(report, encoding="utf-8")


def _calibrate(run: TrainingRun, folder: RunFolder, result: Result, evaluator: str) -> Calibration:
    """Fit on the scores of the set that chose the step, and write what was found beside the exported weights."""
    scores = folder.scores(result.best_step)
    found = calibrated(
        scores[scores["evaluator"] == evaluator], float(getattr(run.loss, "pos_weight", 1.0)), run.calibration
    )
    content = {"calibration": found.to_dict(), "method": run.calibration, "fitted_on": evaluator}
    (result.export / "calibration.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return found
