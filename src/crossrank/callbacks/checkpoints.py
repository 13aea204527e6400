"""Saves the complete state of a training, every N steps, after the last, and when it is asked to stop."""

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from crossrank.training.checkpoints import remove_leftovers, saved_states, state_name
from crossrank.training.processes import SIGNALS

log = logging.getLogger(__name__)

AGREE_EVERY = 10  # optimizer steps; on a GPU the host waits for the device whenever processes agree


class Checkpoints(Checkpoint):
    """Saves to `<run_dir>/checkpoints` every `every_n_steps` optimizer steps and after the last.

    The `keep_last` newest states are kept, and besides every state at a multiple of `keep_every` steps. Lightning calls
    this callback last, so a state holds the evaluation made at its step; the best weights are kept by the evaluation.

    SIGTERM, SIGUSR1 and Ctrl-C let the step end, save and leave the program with the exit code 128 + signal, as a shell
    would say it; a second one stops at once. Several processes stop together, whichever of them was told: at a multiple
    of 10 steps, where they ask each other, or where a state is saved anyway. Of them the first has that exit code.
    """

    def __init__(
        self, run_dir: str, every_n_steps: int = 4000, keep_last: int = 2, keep_every: int | None = None
    ) -> None:
        if every_n_steps < 1 or keep_last < 1 or (keep_every is not None and keep_every < 1):
            raise ValueError(
                "every_n_steps, keep_last and keep_every count steps and files and must be at least 1, got "
                f"{every_n_steps}, {keep_last} and {keep_every}"
            )
        self.run_dir, self.every_n_steps = Path(run_dir), every_n_steps
        self.keep_last, self.keep_every = keep_last, keep_every
        self._last_step = -1
        self._asked: int | None = None  # the signal that asked to stop
        self._handlers: dict[int, Any] = {}

    @property
    def folder(self) -> Path:
        """Where the states lie."""
        return self.run_dir / "checkpoints"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen for signals, in place of Lightning, which would stop without saving."""
        self._last_step = trainer.global_step
        if trainer.is_global_zero:
            remove_leftovers(self.folder)
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Save when it is time; between the micro-batches of a step nothing can be saved that is exact."""
        step = trainer.global_step
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        due = step % self.every_n_steps == 0 or step == trainer.max_steps
        agree = due or trainer.world_size == 1 or step % AGREE_EVERY == 0
        asked = agree and trainer.strategy.reduce_boolean_decision(self._asked is not None, all=False)
        if (due or asked) and step != self._last_step:
            self._save(trainer, step)
        if asked and step < trainer.max_steps:
            number = self._asked or signal.SIGTERM
            log.warning(
                "%s: the state after step %d is saved; go on with: python -m src.train resume=%s",
                signal.Signals(number).name, step, self.run_dir,
            )  # fmt: skip
            # Lightning kills the first process, which may still be closing its loggers, where another one fails
            raise SystemExit(128 + number if trainer.is_global_zero else 0)

    def _save(self, trainer: pl.Trainer, step: int) -> None:
        trainer.save_checkpoint(self.folder / state_name(step))
        self._last_step = step
        if not trainer.is_global_zero:
            return
        for state in saved_states(self.folder)[self.keep_last :]:
            if self.keep_every is None or state.step % self.keep_every:
                state.file.unlink(missing_ok=True)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._asked = number
