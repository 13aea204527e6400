"""Random numbers of a step that depend on nothing but the seed and the step."""

import lightning.pytorch as pl
import torch


class StepKeyedRNG(pl.Callback):
    """Reseeds before every micro-batch, so that dropout after a resume is dropout without one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Reseed from (seed, micro-batch, rank)."""
        position = trainer.fit_loop.epoch_loop.total_batch_idx
        torch.manual_seed((self.seed * 1_000_003 + position) * 64 + trainer.global_rank)
