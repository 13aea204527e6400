"""AdamW whose learning rate falls from the head to the embeddings."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from crossrank.errors import ModelError
from crossrank.training.optim import decay_groups

LAYER = re.compile(r"\.layers?\.(\d+)\.")


@dataclass(frozen=True)
class LayerwiseAdamW:
    """`torch.optim.AdamW` with lr * `layer_decay`^(L + 1 - l) for layer l of 1 to L.

    The head has l = L + 1 and so the full `lr`, which is what is logged; with it goes whatever stands between the last
    layer and the logit. Embeddings have l = 0. The schedule scales all of them alike. Weight decay is left out where
    `decay_groups` leaves it out.

    Source: Clark et al., ELECTRA, ICLR 2020, appendix A.2, where embeddings stand below the first layer too.
    """

    lr: float = 2e-5
    layer_decay: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    fused: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"layer_decay is what a layer's lr is of the next one's, above 0 to 1, got {self.layer_decay}"
            )

    def __call__(self, params: Iterable[Any]) -> torch.optim.AdamW:
        """Return the optimizer of `groups`, or of parameters that all have the same rate."""
        return torch.optim.AdamW(
            params, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay, fused=self.fused
        )

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return the trained parameters by layer, the head's first, each layer's as `decay_groups` parts them.

        Raises:
            ModelError: the names of the parameters tell of no layers.
        """
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        top = max((int(found[1]) + 1 for name in names.values() if (found := LAYER.search(name))), default=0)
        if not top:
            raise ModelError(
                f"the parameters of {type(model).__name__} stand in no numbered layers; use optimizer=adamw"
            )
        parts: dict[tuple[int, int], dict[str, Any]] = {}
        for part, group in enumerate(decay_groups(model)):
            for parameter in group["params"]:
                below = top + 1 - layer_of(names[id(parameter)], top)
                rate = {"lr": self.lr * self.layer_decay**below}
                parts.setdefault((below, part), {**group, "params": [], **rate})["params"].append(parameter)
        return [parts[key] for key in sorted(parts)]


def layer_of(name: str, top: int) -> int:
    """Return the layer of a parameter by its name: 0 of embeddings, from 1 to `top`, `top` + 1 of the head."""
    if found := LAYER.search(name):
        return int(found[1]) + 1
    return 0 if ".embeddings" in f".{name}" else top + 1
