"""Parameter groups and learning-rate schedules, all in optimizer steps."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Adam, Optimizer

OptimizerFactory = Callable[[Iterable[dict[str, Any]]], Optimizer]


class Schedule(Protocol):
    """The learning rate of update k of N, as a factor on the optimizer's lr."""

    def factor(self, step: int, total: int) -> float:
        """Return the factor of update `step`, counted from 0, of `total`."""
        ...


@dataclass(frozen=True)
class LinearWarmup:
    """From 0 up over the first `warmup_ratio` of all updates, then linearly down to 0 after the last.

    Update k has k / w below w = ceil(warmup_ratio * N), and (N - k) / (N - w) from there: the first update has factor
    0. Source: transformers' `get_linear_schedule_with_warmup` with `warmup_ratio`.
    """

    warmup_ratio: float = 0.1

    def __post_init__(self) -> None:
        _refuse_no_share(self.warmup_ratio)

    def factor(self, step: int, total: int) -> float:
        """Return the factor of update `step`, counted from 0, of `total`."""
        warmup = math.ceil(self.warmup_ratio * total)
        if step < warmup:
            return step / warmup
        return max(0.0, (total - step) / max(1, total - warmup))


@dataclass(frozen=True)
class CosineWarmup:
    """From 0 up over the first `warmup_ratio` of all updates, then down half a cosine to 0 after the last.

    Update k has k / w below w = ceil(warmup_ratio * N), and (1 + cos(pi (k - w) / (N - w))) / 2 from there. Source:
    transformers' `get_cosine_schedule_with_warmup` with `warmup_ratio`.
    """

    warmup_ratio: float = 0.1

    def __post_init__(self) -> None:
        _refuse_no_share(self.warmup_ratio)

    def factor(self, step: int, total: int) -> float:
        """Return the factor of update `step`, counted from 0, of `total`; 0 after the last."""
        warmup = math.ceil(self.warmup_ratio * total)
        if step < warmup:
            return step / warmup
        passed = min(1.0, (step - warmup) / max(1, total - warmup))
        return (1 + math.cos(math.pi * passed)) / 2


@dataclass(frozen=True)
class Constant:
    """The optimizer's lr at every update."""

    def factor(self, step: int, total: int) -> float:
        """Return 1."""
        return 1.0


def _refuse_no_share(warmup_ratio: float) -> None:
    if not 0 <= warmup_ratio < 1:
        raise ValueError(f"warmup_ratio is a share of all steps, from 0 to below 1, got {warmup_ratio}")


def clip_norm(optimizer: Optimizer, limit: float) -> None:
    """Clip the joint norm of all gradients to `limit`, as `torch.nn.utils.clip_grad_norm_` does.

    A fused Adam divides the gradients while it reads them, which saves a pass over all of them: they themselves are
    then left as they were.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = _total_norm(gradients)
    if isinstance(optimizer, Adam) and optimizer.defaults["fused"]:
        optimizer.grad_scale = ((norm + 1e-6) / limit).clamp(min=1.0)  # type: ignore[attr-defined]
    else:
        clip_grads_with_norm_((p for group in optimizer.param_groups for p in group["params"]), limit, norm)


def _total_norm(gradients: list[Tensor]) -> Tensor:
    """Return the joint norm; on the CPU by dot products, which take half as long as torch's norm."""
    if all(gradient.device.type == "cpu" and gradient.is_contiguous() for gradient in gradients):
        return torch.stack([torch.dot(flat, flat) for flat in (g.view(-1) for g in gradients)]).sum().sqrt()
    return get_total_norm(gradients)


def decay_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Split the trained parameters: weight decay (the optimizer's own) for matrices, none for biases and norms."""
    norms = {
        f"{name}.{parameter}" if name else parameter
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        for parameter, _ in module.named_parameters(recurse=False)
    }
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if name in norms or name.endswith("bias") else decayed).append(parameter)
    return [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
