"""Loss, learning rate and speed, every N optimizer steps; the progress bar and the log lines read from here."""

import logging
import time
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from crossrank.callbacks.progress_bar import RunProgress
from crossrank.data.batch import PairBatch
from crossrank.models.flops import useful_flops
from crossrank.training.module import RerankerModule

log = logging.getLogger(__name__)


class Throughput(pl.Callback):
    """Logs what training did since it last logged, without the time of evaluations.

    The mean loss, the lr just used, pairs and tokens a second, useful operations a second (`train/tflops`), the share
    of time that the step waited for its data, the share of tokens that only fill a kernel's shape
    (`train/padding_share`), and the share of the whole run spent evaluating so far; of several processes, what all of
    them did. It does so after the first
    optimizer step, every `every_n_steps` and after the last. Only then does the host wait for the device.
    """

    def __init__(self, every_n_steps: int = 1000) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps counts optimizer steps and must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._loss: Tensor | None = None  # summed over pairs, on the device; nothing waits for it
        self._pairs = self._tokens = self._token_pairs = self._padded = 0
        self._before = 0, 0, 0  # pairs, tokens and token pairs summed before a restart: their time is not known
        self._restored: list[float] | None = None
        self._trainer: pl.Trainer | None = None
        self._waited = 0.0
        self._begun = self._started = self._idle_since = 0.0
        self._last_step = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what all processes summed since the last point, so that the next loss does not depend on a stop."""
        return {"sums": self._sums().tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the sums; rates are of the time since the restart."""
        self._restored = state_dict["sums"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clocks."""
        assert isinstance(pl_module, RerankerModule)
        self._last_step = trainer.global_step
        self._begun = self._training_clock(pl_module)
        self._reset(pl_module)
        self._trainer = trainer
        if self._restored is not None and trainer.is_global_zero:
            loss, *counts, _, _, _ = self._restored
            self._loss = torch.tensor(loss, dtype=torch.float32, device=pl_module.device)
            self._pairs, self._tokens, self._token_pairs, self._padded = map(int, counts)
            self._before = self._pairs, self._tokens, self._token_pairs

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Note how long the data of this step took."""
        assert isinstance(pl_module, RerankerModule)
        self._waited += self._training_clock(pl_module) - self._idle_since

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Count the batch and log when it is time."""
        assert isinstance(pl_module, RerankerModule)
        assert isinstance(batch, PairBatch)
        pairs = len(batch)
        if self._loss is None:
            self._loss = torch.zeros_like(pl_module.last_loss)
        self._loss.add_(pl_module.last_loss, alpha=pairs)
        self._pairs += pairs
        self._tokens += batch.tokens
        self._token_pairs += batch.token_pairs
        self._padded += pl_module.computed_tokens
        step = trainer.global_step
        due = step % self.every_n_steps == 0 or step in (1, trainer.max_steps)
        if due and step != self._last_step:
            self._last_step = step
            self._log(trainer, pl_module, step)
            self._reset(pl_module)
        self._idle_since = self._training_clock(pl_module)

    def _log(self, trainer: pl.Trainer, module: RerankerModule, step: int) -> None:
        seconds = self._training_clock(module) - self._started
        loss, all_pairs, all_tokens, all_token_pairs, padded, *before = self._sums().tolist()
        pairs, tokens, token_pairs = all_pairs - before[0], all_tokens - before[1], all_token_pairs - before[2]
        flops = useful_flops(module.model.config, tokens, token_pairs, passes=3, frozen=module.model.adapted)
        metrics = {
            "train/loss": loss / all_pairs,
            "train/lr": module.learning_rate(step - 1),
            "train/pairs_per_second": pairs / seconds,
            "train/tokens_per_second": tokens / seconds,
            "train/tflops": flops / seconds / 1e12,
            "train/data_wait_share": self._waited / seconds,
            "train/padding_share": 1 - all_tokens / padded,
            "train/evaluation_share": module.evaluation_seconds / (time.monotonic() - self._begun),
        }
        module.progress |= {
            "loss": f"{metrics['train/loss']:.4f}",
            "pairs/s": f"{metrics['train/pairs_per_second']:.0f}",
            "tokens/s": f"{metrics['train/tokens_per_second']:.0f}",
        }
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=step)
        bar = trainer.progress_bar_callback
        if not (isinstance(bar, RunProgress) and bar.shown):
            log.info(
                "step %d of %d: loss %s, %s pairs/s, %s tokens/s",
                step, trainer.max_steps, *(module.progress[name] for name in ("loss", "pairs/s", "tokens/s")),
            )  # fmt: skip

    def _sums(self) -> Tensor:
        """Return loss, pairs, tokens, token pairs, computed tokens, then the three of before a restart: float64[8]."""
        loss = 0.0 if self._loss is None else float(self._loss)
        counts = (self._pairs, self._tokens, self._token_pairs, self._padded, *self._before)
        sums = torch.tensor([loss, *counts], dtype=torch.float64)
        if self._trainer is None or self._trainer.world_size == 1:
            return sums
        device = self._trainer.strategy.root_device
        summed: Tensor = self._trainer.strategy.reduce(sums.to(device), reduce_op="sum")
        return summed.cpu()

    def _reset(self, module: RerankerModule) -> None:
        self._loss = None
        self._before = 0, 0, 0
        self._pairs = self._tokens = self._token_pairs = self._padded = 0
        self._waited = 0.0
        self._started = self._idle_since = self._training_clock(module)

    @staticmethod
    def _training_clock(module: RerankerModule) -> float:
        """Seconds that stand still during evaluations."""
        return time.monotonic() - module.evaluation_seconds
