"""A job of a sweep: done once, taken up again where it stopped, and no reason to end the sweep when it fails."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from crossrank.analysis.command_line import quoted
from crossrank.analysis.runs import stored
from crossrank.analysis.sweeps import JOB
from crossrank.callbacks.provenance import changed_since
from crossrank.config import build_training_run, write_origin
from crossrank.data.cache import replace_text
from crossrank.errors import CrossrankError
from crossrank.faults import note_failure
from crossrank.process import prepare_process
from crossrank.resume import FAILURE, RESULT
from crossrank.run import TrainingRun, execute
from crossrank.training.processes import run_apart, told_by

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One config of a sweep, in the folder that is called after it."""

    folder: Path
    overrides: Sequence[str]  # the words that tell it from the default config
    program: Sequence[str]  # the command that trains, without arguments

    def run(self, cfg: DictConfig) -> float | None:
        """Train unless that is done; return the best value of the monitored metric, None where there is none.

        A job that has finished is not run again, nor, unless `retry_failed`, one that failed; one that was killed goes
        on. The training is a process of its own: whatever ends it, and whatever it leaves behind in a process, the next
        job starts afresh. Under something that starts the processes itself, such as SLURM, it is this process.

        Raises:
            SystemExit: the sweep was asked to stop; the job has saved its state.
        """
        write_origin(cfg, self.overrides, self.folder)
        replace_text(self.folder / JOB, json.dumps({"asked": time.time()}) + "\n")
        if (self.folder / RESULT).is_file():
            log.info("job %s was done before%s", self.folder.name, self._since())
        elif (failure := stored(self.folder / FAILURE)) and not cfg.retry_failed:
            log.warning("job %s failed before and waits for retry_failed=true: %s", self.folder.name, failure["error"])
        else:
            (self.folder / FAILURE).unlink(missing_ok=True)
            self._train(cfg)
        value: Any = stored(self.folder / RESULT).get("best_value")
        return None if value is None else float(value)

    def _since(self) -> str:
        try:
            changed = changed_since(self.folder)
        except CrossrankError as error:
            changed = [str(error)]
        return f", when {'; '.join(changed)}; to do it again remove {self.folder}" if changed else ""

    def _train(self, cfg: DictConfig) -> None:
        try:
            self._start(build_training_run(cfg))
        except CrossrankError as error:  # a sentence, which needs no stack trace
            self._note(error)
            log.error("job %s failed: %s", self.folder.name, error)
        except Exception as error:
            self._note(error)
            log.exception("job %s failed", self.folder.name)

    def _start(self, run: TrainingRun) -> None:
        if told_by() and run.trainer.processes == 1:
            prepare_process()
            execute(replace(run, resumed=(self.folder / "metrics.jsonl").is_file()))
            return
        words = [f"resume={quoted(str(self.folder))}", f"cache_dir={quoted(str(run.cache_dir))}"]
        if run.resume_anyway:
            words.append("resume_anyway=true")
        run_apart(self.program, self.folder, run.config, run.trainer.num_nodes, words)

    def _note(self, error: Exception) -> None:
        """Write down what the training could not, such as that it was killed."""
        if not (self.folder / FAILURE).is_file():
            note_failure(self.folder, error)
