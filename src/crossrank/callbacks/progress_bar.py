"""The bar of a training."""

from contextlib import ExitStack

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar

from crossrank.data.progress import Advance, on_terminal, progress
from crossrank.training.module import RerankerModule


class RunProgress(ProgressBar):
    """Optimizer steps with the time left, loss, pairs/s, tokens/s and the last monitored value; none in a log."""

    def __init__(self) -> None:
        super().__init__()
        self._open = ExitStack()
        self._advance: Advance | None = None

    @property
    def shown(self) -> bool:
        """Whether a person sees it; else `Throughput` logs lines."""
        return self._advance is not None

    def disable(self) -> None:
        """Show nothing: of several processes the first alone does."""
        self._open.close()
        self._advance = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar at the step that a run goes on from, where there is a terminal."""
        if trainer.is_global_zero and on_terminal():
            bar = progress("training", trainer.max_steps, trainer.global_step, lines=False)
            self._advance = self._open.enter_context(bar)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Move on after each optimizer step."""
        assert isinstance(pl_module, RerankerModule)
        if self._advance and not (batch_idx + 1) % trainer.accumulate_grad_batches:
            self._advance(1, ", ".join(f"{name} {value}" for name, value in pl_module.progress.items()))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close the bar."""
        self.disable()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that what went wrong can be read."""
        self.disable()
