"""Whether a training is healthy: what its scores, losses and gradients look like, every N optimizer steps."""

import logging
import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from crossrank.callbacks.health_metrics import Scored, health_metrics, on_host
from crossrank.data.batch import PairBatch
from crossrank.errors import TrainingError
from crossrank.training.module import RerankerModule

log = logging.getLogger(__name__)

COLLAPSED = 1e-6  # a spread of scores, relative to their size: what rounding leaves of equal ones in float32
CONSTANT = 1e-2  # a relative spread that bfloat16, which has 8 bits, hardly sees
ENOUGH_PAIRS = 100  # fewer say too little for a warning

# name: when it is given, by the metrics and the mean `size` of the scores (at least 1), and its sentence
WARNINGS: dict[str, tuple[Callable[[Mapping[str, float]], bool], str]] = {
    "constant": (lambda m: m["score_std"] < CONSTANT * m["size"],
        "scores hardly differ between pairs (standard deviation {score_std:.2g}, mean size {size:.2g}); raise "
        "optimizer.lr if the loss stands still, lower it if the loss has jumped"),
    "order": (lambda m: m["pair_accuracy"] <= 0.5 and m["score_std"] >= CONSTANT * m["size"],
        "positives do not score above negatives (pair accuracy {pair_accuracy:.3f}, by chance 0.5); check the labels, "
        "then optimizer.lr"),
    "saturated": (lambda m: m["saturated_share"] > 0.5,
        "{saturated_share:.0%} of the scores are beyond +-12, where the sigmoid is flat; lower optimizer.lr or raise "
        "optimizer.weight_decay"),
    "wrong": (lambda m: m["wrong_and_sure_share"] > 0.05,
        "{wrong_and_sure_share:.0%} of the scores are beyond +-12 on the wrong side; look for answers among the "
        "negatives (policy.margin drops the likeliest) or lower optimizer.lr"),
    "balance": (lambda m: abs(m["gradient_share_of_positives"] - 0.5) > 0.48,
        "positives give {gradient_share_of_positives:.1%} of the gradient; change their weight in the loss, or "
        "policy.negatives, so that both sides count"),
}  # fmt: skip


def last_good_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """Return the newest readable `*.ckpt` of a folder whose weights and optimizer state are finite, and its step."""
    files = [file for file in folder.glob("*.ckpt") if file.is_file()]
    for file in sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        try:
            saved = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            states = [state for optimizer in saved.get("optimizer_states", ()) for state in optimizer["state"].values()]
            values = [value for state in (saved["state_dict"], *states) for value in state.values()]
            if all(bool(value.isfinite().all()) for value in values if isinstance(value, Tensor)):
                return file, int(saved["global_step"])
        except Exception:  # a damaged or foreign file may raise anything; nothing in it was executed
            continue
    return None


class TrainingHealth(pl.Callback):
    """Logs `health/...` (see `health_metrics`), warns of what looks wrong, and stops a training that is dead.

    It looks every `every_n_steps` optimizer steps and after the last, at the micro-batches of the `window` steps before
    that point; only then does the host wait for the device. A warning is one sentence, given once until what it warns
    of has gone; none is given in the first `grace` of all steps, nor on fewer than 100 pairs.

    A training is dead when a loss, a logit or a weight is not finite, or when all scores are the same at `patience`
    points in a row. On the CPU every loss is looked at, elsewhere those since the last point, and the weights whenever
    a checkpoint is about to be written: none of a dead model replaces a good one. TrainingError then says what died
    at which step and where under `<run_dir>/checkpoints` the last good checkpoint lies.
    """

    def __init__(
        self, run_dir: str, every_n_steps: int = 100, window: int = 20, grace: float = 0.1, patience: int = 3
    ) -> None:
        for name, value in (("every_n_steps", every_n_steps), ("window", window), ("patience", patience)):
            if value < 1:
                raise ValueError(f"{name} is a count and must be at least 1, got {value}")
        if not 0 <= grace < 1:
            raise ValueError(f"grace is a share of all steps, from 0 to below 1, got {grace}")
        self.run_dir, self.every_n_steps, self.window = Path(run_dir), every_n_steps, window
        self.grace, self.patience = grace, patience
        self._batches: deque[Scored] = deque()  # as long as a window once training starts
        self._losses: list[Tensor] = []  # since the last point, on the device
        self._warned: set[str] = set()
        self._collapsed = 0  # points in a row
        self._last_step = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what has been seen, so that what is said next does not depend on a stop."""
        batches = [tuple(batch) for batch in self._batches]
        return {"batches": batches, "warned": sorted(self._warned), "collapsed": self._collapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what had been seen."""
        self._batches.extend(Scored(*batch) for batch in state_dict["batches"])
        self._warned, self._collapsed = set(state_dict["warned"]), state_dict["collapsed"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Have the weights looked at before a checkpoint is written."""
        assert isinstance(pl_module, RerankerModule)
        self._last_step = trainer.global_step
        self._batches = deque(self._batches, maxlen=self.window * trainer.accumulate_grad_batches)
        self._losses = []
        pl_module.before_saving = partial(self._check_weights, trainer, pl_module)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let go of the module."""
        pl_module.before_saving = None  # type: ignore[assignment]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Keep what the batch was scored, and look when it is time."""
        assert isinstance(pl_module, RerankerModule)
        assert isinstance(batch, PairBatch)
        self._losses.append(pl_module.last_loss)
        self._batches.append(Scored(pl_module.last_logits, batch.labels, batch.query_index, batch.ranks))
        step = trainer.global_step
        due = (step % self.every_n_steps == 0 or step == trainer.max_steps) and step != self._last_step
        if due or pl_module.last_loss.device.type == "cpu":  # there it waits for nothing
            self._check_losses(trainer, pl_module, batch_idx)
        if due:
            self._last_step = step
            self._check_weights(trainer, pl_module)
            self._look(trainer, pl_module, step)

    def _check_losses(self, trainer: pl.Trainer, module: RerankerModule, batch_idx: int) -> None:
        values = torch.stack(self._losses).tolist()
        self._losses.clear()
        first = next((i for i, value in enumerate(values) if not math.isfinite(value)), None)
        if first is not None:
            step = (batch_idx + 1 - len(values) + first) // trainer.accumulate_grad_batches + 1
            raise self._dead(trainer, module, f"the loss is {values[first]} at step {step}")

    def _check_weights(self, trainer: pl.Trainer, module: RerankerModule) -> None:
        names, weights = zip(*module.named_parameters(), strict=True)
        finite = torch.stack([weight.detach().sum() for weight in weights]).isfinite().tolist()
        if not all(finite):
            first = names[finite.index(False)].removeprefix("model.classifier.")
            what = f"{finite.count(False)} of {len(names)} weights are not finite, the first of them {first}"
            raise self._dead(trainer, module, f"{what}, after step {trainer.global_step}")

    def _look(self, trainer: pl.Trainer, module: RerankerModule, step: int) -> None:
        scores = on_host(batch.logits for batch in self._batches)
        if not np.isfinite(scores).all():
            count = int((~np.isfinite(scores)).sum())
            raise self._dead(trainer, module, f"{count} of the last {len(scores)} scores are not finite at step {step}")
        device = self._batches[0].logits.device  # a graph's batch has stayed on the host
        batches = [Scored(*(None if x is None else x.to(device) for x in batch)) for batch in self._batches]  # type: ignore[arg-type]
        metrics = health_metrics(batches, module.loss)
        for logger in trainer.loggers:
            logger.log_metrics({f"health/{name}": value for name, value in metrics.items()}, step=step)
        if step > self.grace * trainer.max_steps:
            size = max(1.0, float(np.abs(scores).mean()))
            if len(scores) >= ENOUGH_PAIRS:
                self._warn(step, defaultdict(lambda: math.nan, metrics, size=size))  # nothing is true of NaN
            same = metrics.get("score_std", math.inf) < COLLAPSED * size and "separation" in metrics
            self._collapsed = self._collapsed + 1 if same else 0
        if self._collapsed >= self.patience:
            what = f"the scores of a batch are all the same at {self._collapsed} points in a row"
            raise self._dead(trainer, module, f"{what} (about {scores.mean():.4g}), the last at step {step}")

    def _warn(self, step: int, metrics: Mapping[str, float]) -> None:
        now = {name for name, (wrong, _) in WARNINGS.items() if wrong(metrics)}
        for name in sorted(now - self._warned):
            log.warning("health, step %d: %s", step, WARNINGS[name][1].format_map(metrics))
        self._warned = now

    def _dead(self, trainer: pl.Trainer, module: RerankerModule, what: str) -> TrainingError:
        good = last_good_checkpoint(self.run_dir / "checkpoints")
        where = f"the last good checkpoint is {good[0]} (step {good[1]})" if good else "no good checkpoint was written"
        rate = module.learning_rate(max(trainer.global_step - 1, 0))
        return TrainingError(
            f"training stopped: {what} of {trainer.max_steps}; {where}; "
            f"lower optimizer.lr (the rate was {rate:.3g}), lengthen the warm-up or train in float32"
        )
