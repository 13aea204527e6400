"""One training step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from crossrank.data.batch import PairBatch
from crossrank.errors import ModelError
from crossrank.losses import Loss
from crossrank.models.cross_encoder import CrossEncoder
from crossrank.training.gradient_cache import GradientCache
from crossrank.training.layerwise import LayerwiseAdamW
from crossrank.training.optim import OptimizerFactory, Schedule, clip_norm, decay_groups
from crossrank.training.touched_rows import TouchedRows
from crossrank.training.whole_step import StepMode, WholeStep


class RerankerModule(pl.LightningModule):
    """Trains a cross-encoder on labelled pairs with a loss over their logits.

    The loss of the last micro-batch, a scalar, and its logits float32[pairs] are left in `last_loss` and `last_logits`
    on the device; nothing here waits for them. With a `mode`, a batch is one call from its loss to the update (see
    `WholeStep`), and Lightning's hooks around backward pass and optimizer step find nothing to do. With more than one
    of `pieces`, a batch is computed in so many (see `GradientCache`).
    """

    last_loss: Tensor
    last_logits: Tensor
    computed_tokens: int  # of the last micro-batch; the model's own number may be of an evaluation since

    def __init__(
        self,
        model: CrossEncoder,
        loss: Loss,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        mode: StepMode | None = None,
        pieces: int = 1,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.mode, self.pieces = model, loss, mode, pieces
        self._optimizer, self._schedule = optimizer, schedule
        self.progress: dict[str, str] = {}  # what the progress bar shows
        self.lineage: dict[str, str] = {}  # the ids of what made the data, for every checkpoint
        self.evaluation_seconds = 0.0  # spent evaluating so far, so that throughput can leave it out
        self.before_saving: Callable[[], None] | None = None  # may refuse, by raising, that a checkpoint is written
        self._words: TouchedRows | None = None
        self._whole: WholeStep | None = None
        self._cache: GradientCache | None = None
        self._base_lr = 0.0

    def on_train_start(self) -> None:
        """Check that every layer trains: transformers hands models out in evaluation mode."""
        if not all(module.training for module in self.model.modules()):
            raise ModelError("part of the model is in evaluation mode at the start of training; call model.train()")
        words = self.model.word_embedding
        if words.weight.requires_grad and self.device.type == "cpu" and self.trainer.world_size == 1:
            self._words = TouchedRows(words)
        autocast = torch.bfloat16 if self.trainer.precision == "bf16-mixed" else None
        if self.pieces > 1:
            self._cache = GradientCache(self.model, self.loss, self.pieces, autocast)
        if self.mode is not None:
            optimizer, clip = self.trainer.optimizers[0], self.trainer.gradient_clip_val
            forget = partial(self._forget, optimizer)
            self._whole = WholeStep(self.model, self.loss, optimizer, clip, forget, autocast, self.mode)

    def on_train_end(self) -> None:
        """Free what was kept between steps."""
        self._whole = self._cache = None
        if self._words is not None:
            self._words.close()
            self._words = None

    def training_step(self, batch: PairBatch, batch_index: int) -> Tensor:
        """Return the loss of one micro-batch."""
        if self._whole is not None:
            self.last_loss, self.last_logits = self._whole(batch)
            self.computed_tokens = self.model.computed_tokens
            return self.last_loss
        if self._cache is not None:
            self.last_loss, self.last_logits = self._cache.score(batch)
            self.computed_tokens = self._cache.computed_tokens
            return self.last_loss
        logits = self.model(batch)
        self.computed_tokens = self.model.computed_tokens
        loss = self.loss(logits, batch.labels, batch.query_index)
        self.last_loss, self.last_logits = loss.detach(), logits.detach()
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Ask `before_saving`, and name what made the data: no callback is asked where weights alone are written."""
        if self.before_saving is not None:
            self.before_saving()
        checkpoint["lineage"] = dict(self.lineage)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Count the micro-batches of a state in this trainer's: it may have been saved with another accumulation.

        A state is saved after a whole optimizer step, so that the count is exact.
        """
        loop = checkpoint["loops"]["fit_loop"]
        count = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        for scope in ("total", "current"):
            progress = loop["epoch_loop.batch_progress"][scope]
            loop["epoch_loop.batch_progress"][scope] = dict.fromkeys(progress, count)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute the gradients, where that is not part of a whole step."""
        if self._cache is not None:
            self._cache.backward()
        elif self._whole is None:
            super().backward(loss, *args, **kwargs)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Forget the gradients of the last step."""
        if self._whole is None:
            self._forget(optimizer)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Update the weights after the closure's gradients, or let the closure do all of it."""
        if self._whole is None:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        elif optimizer_closure is not None:
            optimizer_closure()

    def _forget(self, optimizer: Optimizer) -> None:
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
        grouped = self._optimizer.groups if isinstance(self._optimizer, LayerwiseAdamW) else decay_groups
        optimizer = self._optimizer(grouped(self.model))
        total = self.trainer.max_steps
        self._base_lr = float(optimizer.param_groups[0]["lr"])
        schedule = LambdaLR(optimizer, lambda step: self._schedule.factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def learning_rate(self, step: int) -> float:
        """Return the lr that update `step`, counted from 0, uses; the optimizer may hold it on the device."""
        return self._base_lr * self._schedule.factor(step, self.trainer.max_steps)
