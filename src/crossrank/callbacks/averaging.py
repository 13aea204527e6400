"""Keeps an average of the weights while a model trains."""

from typing import Any

import lightning.pytorch as pl

from crossrank.callbacks.evaluation import evaluation_among
from crossrank.training.averages import AverageRule, WeightAverage


class Averaging(pl.Callback):
    """Averages the trained weights by a `rule`; the training sees nothing of it.

    After the training the average is evaluated as the best step was, and exported in its place only where its monitored
    metric is higher (see `crossrank.callbacks.verdicts`). The average is part of a saved state.

    Lightning's own `WeightAveraging` is not used: it has no warm-up, leaves the average in the model unasked when
    training ends, and puts it in place of the weights in every checkpoint, so also where the best step's are to be.
    """

    def __init__(self, rule: AverageRule) -> None:
        self.rule, self.average = rule, WeightAverage()
        self._step = 0
        self._evaluated: list[int] = []

    @property
    def state_key(self) -> str:
        """A run may keep several averages."""
        return f"{type(self).__qualname__}-{self.rule}"

    def state_dict(self) -> dict[str, Any]:
        """Return the average."""
        return self.average.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the average."""
        self.average.load_state_dict(state_dict)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find out when the run is evaluated."""
        self._step = trainer.global_step
        if self._step == 0:
            self.average = WeightAverage()
        self.average.to(pl_module.device)
        evaluation = evaluation_among(trainer.callbacks)  # type: ignore[attr-defined]
        if evaluation is not None:
            self._evaluated = evaluation.steps(trainer.max_steps)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Update the average when an optimizer step has just been made."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        share = self.rule.share(self.average.updates, self._step, self._evaluated)
        if share is not None:
            self.average.update(pl_module, share)
