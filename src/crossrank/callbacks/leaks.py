"""Looks, before training, for the evaluation's queries in the training set."""

import logging
from pathlib import Path

import lightning.pytorch as pl

from crossrank.audit.findings import answers_of
from crossrank.audit.leaks import Leaks, find_leaks
from crossrank.callbacks.evaluation import evaluation_among
from crossrank.data.pair_file import open_pairs
from crossrank.data.splits import training_texts

log = logging.getLogger(__name__)

FOLDER = "leaks"  # of a run


class LeakAudit(pl.Callback):
    """Writes `<run_dir>/leaks/`: which queries of the evaluation stand in the training set (see `find_leaks`).

    More than `most_pairs` training pairs are left to `python -m src.audit`: 100,000 take 20 seconds on one core.
    """

    def __init__(self, run_dir: str, most_pairs: int = 200_000) -> None:
        if most_pairs < 0:
            raise ValueError(f"most_pairs counts training pairs and must be at least 0, got {most_pairs}")
        self.folder, self.most_pairs = Path(run_dir) / FOLDER, most_pairs

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look, unless the run has been looked at, evaluates nothing or has too many pairs."""
        evaluation = evaluation_among(trainer.callbacks)  # type: ignore[attr-defined]
        if not trainer.is_global_zero or evaluation is None or Leaks.read(self.folder) is not None:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        pairs = open_pairs(training_texts(data.rows.lineage.folders(data.cache_dir)["texts"]))
        if len(pairs) > self.most_pairs:
            log.info("leaks: %d training pairs are not looked at; python -m src.audit does", len(pairs))
            return
        tasks = {task.name: task for evaluator in evaluation.evaluators.values() for task in evaluator.tasks}
        found = find_leaks(pairs.questions, answers_of(pairs), list(tasks.values()))
        found.write(self.folder)
        if found.keys:
            log.warning(
                "leaks: %d of %d evaluated queries stand in the training set; %s names them, and the model's card "
                "tells the metrics without them",
                len(found.keys), sum(found.queries.values()), self.folder / "leaks.csv",
            )  # fmt: skip
