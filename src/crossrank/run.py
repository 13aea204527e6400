"""A whole run, from components to an exported model and a result a person can read."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from filelock import FileLock, Timeout
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from crossrank.analysis.probabilities import CalibrationMethod
from crossrank.analysis.run_view import RunView
from crossrank.callbacks.averaging import Averaging
from crossrank.callbacks.evaluation import PeriodicEvaluation, evaluation_among
from crossrank.callbacks.provenance import changed_since
from crossrank.callbacks.pruning import Pruning
from crossrank.callbacks.step_rng import StepKeyedRNG
from crossrank.callbacks.verdicts import Verdict, best_of, judge, keep_better
from crossrank.data.cache import replace_text
from crossrank.data.datamodule import Batching, PairDataModule
from crossrank.data.description import RECORD as RECORD_OF_DATA
from crossrank.data.description import described
from crossrank.data.lineage import Lineage
from crossrank.data.lineage_record import RECORD, LineageRecord, differences
from crossrank.data.mining import Miner
from crossrank.data.pairs import Source
from crossrank.data.policy import Policy
from crossrank.data.splits import training_texts
from crossrank.data.teacher import Teacher
from crossrank.errors import ConfigError, CrossrankError, ResumeError
from crossrank.exports import export_checked
from crossrank.faults import left_behind, noted, told
from crossrank.hub import Asset, require
from crossrank.losses import Loss, refuse_labels
from crossrank.models.backbones import Backbone
from crossrank.models.lora import Adapter
from crossrank.outcome import Result, Trained, write_metrics, write_outcome
from crossrank.reports import write_run_report
from crossrank.resume import refuse_or_warn
from crossrank.training.checkpoints import SavedState, newest_whole_state
from crossrank.training.module import RerankerModule
from crossrank.training.optim import OptimizerFactory, Schedule
from crossrank.training.processes import rank, told_by
from crossrank.training.tracking import Guarded, JsonlLogger, forget_after
from crossrank.training.trainer import TrainerSpec
from crossrank.training.wandb_logger import finish_wandb

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
    teacher: Teacher | None = None
    adapter: Adapter | None = None
    calibration: CalibrationMethod = "platt"
    resumed: bool = False  # it goes on where `run_dir` stopped
    resume_anyway: bool = False  # even where code, packages or data are not what they were
    config: str = ""  # what it was built from, as YAML

    @property
    def evaluation(self) -> PeriodicEvaluation | None:
        """The callback that evaluates, if there is one."""
        return evaluation_among(self.callbacks.values())

    def assets(self) -> list[Asset]:
        """Return everything that may have to be fetched."""
        evaluators = self.evaluation.evaluators.values() if self.evaluation else ()
        parts = (self.source, self.miner, self.model, *evaluators, *((self.teacher,) if self.teacher else ()))
        return [asset for part in parts for asset in part.assets()]


@contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Hold the run's lock, so that it is not trained twice at once."""
    lock = FileLock(run_dir / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ResumeError(
            f"{run_dir} is being trained by another process; wait for it, or name another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def execute(run: TrainingRun) -> Result:
    """Fetch, mine, tokenise, train, evaluate, keep the best, export it and write the report.

    Raises:
        CrossrankError: something that was given is wrong; nothing half-written is left behind.
    """
    if rank() > 0 and run.trainer.processes == 1:  # it would train and write nothing
        problem = f"this is process {rank()} of several, says {told_by()}; unset that, or give their number"
        raise ConfigError([f"trainer.devices: 1, and {problem}"])
    require(run.assets())
    if rank() > 0:  # the first process writes, and goes on alone once the training ends
        logging.getLogger("crossrank").setLevel(logging.WARNING)
        with told(run.run_dir), _tracked(run) as loggers:
            _train(run, loggers)
        raise SystemExit(0)
    run.run_dir.mkdir(parents=True, exist_ok=True)
    with _alone(run.run_dir), noted(run.run_dir), told(run.run_dir):
        if not run.resumed or run.resume_anyway:
            replace_text(run.run_dir / "config.yaml", run.config)
        return _execute(run)


@contextmanager
def _tracked(run: TrainingRun) -> Iterator[list[JsonlLogger | Guarded]]:
    """Open the loggers, and close W&B's run whatever happens, so that the next job of a sweep gets its own."""
    record, exit_code = JsonlLogger(run.run_dir), 1
    try:
        others = [Guarded(name, build) for name, build in run.loggers.items() if rank() == 0]
        yield [record, *others]
        exit_code = 0
    except SystemExit as stopped:  # by a signal
        exit_code = stopped.code if isinstance(stopped.code, int) else 1
        raise
    finally:
        if exit_code and rank() == 0 and record.file.is_file():
            with suppress(OSError, CrossrankError):  # what ended the run matters more
                write_metrics(run.run_dir)
        finish_wandb(exit_code)


def _execute(run: TrainingRun) -> Result:
    started = time.monotonic()
    with _tracked(run) as loggers:
        result, view = _finish(run, *_train(run, loggers), loggers, started)
        left_behind(lambda: write_run_report(view), f"python -m src.report {run.run_dir}")
        for logger in loggers:
            logger.publish(run.run_dir)
    return result


def _finish(
    run: TrainingRun, module: RerankerModule, data: PairDataModule, verdicts: list[Verdict],
    loggers: Sequence[Logger], started: float,
) -> tuple[Result, RunView]:  # fmt: skip
    best_step = keep_better(verdicts, run.evaluation, loggers, module) if run.evaluation else data.max_steps
    folder = export_checked(module.model, data.encoder, run.run_dir)
    documents = training_texts(data.rows.lineage.folders(run.cache_dir)["texts"])
    kept = best_of(verdicts)
    seconds = time.monotonic() - started
    result = Result(run.run_dir, folder, best_step, documents, seconds, kept.name if kept else None)
    weight = float(getattr(run.loss, "pos_weight", 1.0))
    pruned = next((c.pruned_at for c in run.callbacks.values() if isinstance(c, Pruning)), None)
    trained = Trained(run.name, run.evaluation, run.calibration, weight, pruned, verdicts)
    view = write_outcome(trained, result, data.rows)
    return replace(result, rows=view.rows), view


def _train(
    run: TrainingRun, loggers: Sequence[JsonlLogger | Guarded]
) -> tuple[RerankerModule, PairDataModule, list[Verdict]]:
    data = PairDataModule(
        run.source, run.miner, run.policy, run.model.encoder(), run.data, run.cache_dir, run.seed,
        run.trainer.accumulate_grad_batches, run.trainer.multiple, run.resume_anyway, run.trainer.processes,
        run.teacher, run.trainer.batches_stay,
    )  # fmt: skip
    for evaluator in run.evaluation.evaluators.values() if run.evaluation else ():
        evaluator.prepare()
    data.prepare_data()
    _record_lineage(run, data.rows.lineage)
    if rank() == 0:
        facts = described(data.rows, run.cache_dir, data.encoder) | {"steps_per_epoch": data.plan.steps_per_epoch}
        replace_text(run.run_dir / RECORD_OF_DATA, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    refuse_labels(run.loss, data.rows.labels)
    model = run.model.build(run.seed)
    if run.adapter is not None:
        model = run.adapter.adapt(model, run.seed)
    module = RerankerModule(
        model, run.loss, run.optimizer, run.schedule, run.trainer.step_mode, run.trainer.gradient_cache
    )
    module.lineage = data.rows.lineage.ids
    trainer = _fit(run, module, data, loggers)
    averages = {name: callback for name, callback in run.callbacks.items() if isinstance(callback, Averaging)}
    judged = judge(averages, run.evaluation, trainer, module) if averages and run.evaluation else []
    return module, data, judged


def _record_lineage(run: TrainingRun, made: Lineage) -> None:
    """Write down what the data is made of, unless a run that goes on was made of something else."""
    if run.resumed and (run.run_dir / RECORD).is_file():
        changed = differences(LineageRecord.read(run.run_dir).lineage, made)
        said = [f"{step}: {', '.join(words)}" for step, words in changed.items()]
        refuse_or_warn(run.run_dir, "data", said, run.resume_anyway)
    if rank() == 0:
        LineageRecord.of(made, run.cache_dir).write(run.run_dir)


def _fit(
    run: TrainingRun, module: RerankerModule, data: PairDataModule, loggers: Sequence[JsonlLogger | Guarded]
) -> pl.Trainer:
    callbacks = [StepKeyedRNG(run.seed), *run.callbacks.values()]
    settings: Any = OmegaConf.to_container(OmegaConf.create(run.config))
    for logger in loggers:
        logger.log_hyperparams(settings | {"lineage": module.lineage})
    trainer = run.trainer.build(data.max_steps, callbacks, loggers, run.run_dir)
    plan = data.plan
    log.info(
        "training %s steps of %d %s (%d in all, %d steps an epoch), %s",
        f"{data.max_steps:,}", plan.pairs_per_step, run.data.unit, plan.rows, plan.steps_per_epoch, trainer.precision,
    )  # fmt: skip
    state = _go_on_from(run)
    trainer.fit(module, datamodule=data, ckpt_path=state and state.file, weights_only=True)
    return trainer


def _go_on_from(run: TrainingRun) -> SavedState | None:
    """Return the state to go on from; what was recorded after it will be recorded again."""
    if not run.resumed:
        return None
    refuse_or_warn(run.run_dir, "code", changed_since(run.run_dir), run.resume_anyway)
    state = newest_whole_state(run.run_dir / "checkpoints")
    step = -1 if state is None else state.step
    begun = (run.run_dir / "metrics.jsonl").is_file()
    if rank() == 0:
        forget_after(run.run_dir, step)
    if begun:
        log.info("going on with %s %s", run.run_dir, "from its start" if state is None else f"after step {step}")
    return state
