"""One training step."""

from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from crossrank.data.batch import PairBatch
from crossrank.errors import ModelError
from crossrank.losses import Loss
from crossrank.models.cross_encoder import CrossEncoder
from crossrank.training.optim import OptimizerFactory, Schedule, clip_norm, decay_groups
from crossrank.training.touched_rows import TouchedRows


class RerankerModule(pl.LightningModule):
    """Trains a cross-encoder on labelled pairs with a loss over their logits.

    The loss of the last step is left in `last_loss` on the device; nothing here waits for it.
    """

    last_loss: Tensor

    def __init__(self, model: CrossEncoder, loss: Loss, optimizer: OptimizerFactory, schedule: Schedule) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self._optimizer, self._schedule = optimizer, schedule
        self.progress: dict[str, str] = {}  # what the progress bar shows
        self.evaluation_seconds = 0.0  # spent evaluating so far, so that throughput can leave it out
        self._words: TouchedRows | None = None

    def on_train_start(self) -> None:
        """Check that every layer trains: transformers hands models out in evaluation mode."""
        if not all(module.training for module in self.model.modules()):
            raise ModelError("part of the model is in evaluation mode at the start of training; call model.train()")
        words = self.model.word_embedding
        if words.weight.requires_grad and self.device.type == "cpu" and self.trainer.world_size == 1:
            self._words = TouchedRows(words)

    def on_train_end(self) -> None:
        """Free what was kept between steps."""
        if self._words is not None:
            self._words.close()
            self._words = None

    def training_step(self, batch: PairBatch, batch_index: int) -> Tensor:
        """Return the loss of one micro-batch."""
        loss = self.loss(self.model(batch), batch.labels, batch.query_index)
        self.last_loss = loss.detach()
        return loss

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Forget the gradients of the last step."""
        optimizer.zero_grad()
        if self._words is not None:
            self._words.clear()

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the norm of all gradients.

        Lightning's own clipping refuses a fused optimizer under mixed precision, because it may unscale gradients
        itself; bfloat16 has no scale.
        """
        if gradient_clip_val:
            clip_norm(optimizer, gradient_clip_val)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule over `trainer.max_steps` updates."""
        optimizer = self._optimizer(decay_groups(self.model))
        total = self.trainer.max_steps
        schedule = LambdaLR(optimizer, lambda step: self._schedule.factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
