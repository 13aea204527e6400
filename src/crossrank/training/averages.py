"""Averages of a training's weights: kept beside the weights, updated after optimizer steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AverageRule(Protocol):
    """Which share of an average each step's weights get."""

    def share(self, updates: int, step: int, evaluated: Sequence[int]) -> float | None:
        """Return the share of the weights after `step` in an average that has seen `updates`; None leaves them out.

        `evaluated` are the steps after which the run is evaluated, in their order, without step 0.
        """
        ...


@dataclass(frozen=True)
class Ema:
    """An exponential moving average over every optimizer step.

    average = d * average + (1 - d) * weights, where d is `decay`, but (1 + n) / (10 + n) after n updates as long as
    that is less: else the average of a short training would be mostly its first steps. The first weights are taken as
    they are. Source: the `num_updates` of TensorFlow's `tf.train.ExponentialMovingAverage`.
    """

    decay: float = 0.999

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ValueError(f"decay is the share of the average that stays, between 0 and 1, got {self.decay}")

    def share(self, updates: int, step: int, evaluated: Sequence[int]) -> float:
        """Return 1 - d, and 1 for the first weights."""
        return 1 - min(self.decay, (1 + updates) / (10 + updates)) if updates else 1.0


@dataclass(frozen=True)
class LastEvaluations:
    """The mean of the weights after the last `count` evaluated steps of the training, or of all where there are fewer.

    Source: the averaged checkpoints of Vaswani et al., Attention is all you need, NeurIPS 2017, section 6.1.
    """

    count: int = 3

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ValueError(f"count is how many evaluated steps are averaged, at least 2, got {self.count}")

    def share(self, updates: int, step: int, evaluated: Sequence[int]) -> float | None:
        """Return 1 / (n + 1) for the n-th of the last evaluated steps, counted from 0."""
        return 1 / (updates + 1) if step in evaluated[-self.count :] else None


class WeightAverage:
    """The average of a module's trained parameters: one copy of them, on their device, and how often it was updated.

    What is not trained, such as the matrices beside LoRA's adapters, is not copied.
    """

    def __init__(self) -> None:
        self.updates = 0
        self.weights: dict[str, Tensor] = {}

    def update(self, module: nn.Module, share: float) -> None:
        """Give the module's weights a share of the average."""
        current = {name: parameter.detach() for name, parameter in module.named_parameters() if parameter.requires_grad}
        if self.updates == 0:
            self.weights = {name: torch.empty_like(weight).copy_(weight) for name, weight in current.items()}
        else:
            blend = get_ema_multi_avg_fn(1 - share)  # type: ignore[no-untyped-call]
            blend([self.weights[name] for name in current], list(current.values()), self.updates)
        self.updates += 1

    def to(self, device: torch.device) -> None:
        """Move the average, where one was read from a file, to the device of the weights."""
        self.weights = {name: weight.to(device) for name, weight in self.weights.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return all of it."""
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore all of it."""
        self.updates, self.weights = int(state["updates"]), dict(state["weights"])
