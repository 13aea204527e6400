"""RankNet: the logistic loss of every two documents of a question whose labels differ."""

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from crossrank.losses.within_lists import at_least_float32, mean_where, ranks, same_list

Log = Literal["natural", "binary"]


class RankNet(nn.Module):
    """mean over (i, j) of one list with y_i > y_j of log(1 + exp(-sigma (z_i - z_j))).

    With `k`, only pairs of which at least one stands in the first k places by its logit; the logarithm is to the base 2
    or natural. The mean is over the pairs (i, j) of all lists.

    Source: Burges et al., Learning to Rank Using Gradient Descent, ICML 2005; sentence-transformers' RankNetLoss, whose
    logarithm is binary.
    """

    listwise = True

    def __init__(self, sigma: float = 1.0, k: int | None = None, reduction_log: Log = "binary") -> None:
        super().__init__()
        refuse(sigma, k)
        self.sigma, self.k, self.reduction_log = sigma, k, reduction_log

    def forward(self, logits: Tensor, labels: Tensor, query_index: Tensor) -> Tensor:
        """Return the mean loss; 0 where no list has labels that differ."""
        logits, same = at_least_float32(logits), same_list(query_index)
        chosen = same & (labels[:, None] > labels)
        if self.k is not None:
            chosen &= in_first(self.k, ranks(logits, labels, same))
        return mean_where(logistic(logits, self.sigma, self.reduction_log), chosen)


def logistic(logits: Tensor, sigma: float, log: Log) -> Tensor:
    """Return [pairs, pairs], log(1 + exp(-sigma (z_i - z_j))), to the base 2 or natural."""
    losses = F.softplus(-sigma * (logits[:, None] - logits))
    return losses / math.log(2) if log == "binary" else losses


def in_first(k: int, places: Tensor) -> Tensor:
    """Return bool[pairs, pairs]: i or j stands in the first k places."""
    first = places <= k
    return first[:, None] | first


def refuse(sigma: float, k: int | None) -> None:
    """Refuse a slope or a cutoff that makes no sense.

    Raises:
        ValueError: sigma is not above 0, or k below 1.
    """
    if sigma <= 0:
        raise ValueError(f"sigma multiplies differences of logits and must be above 0, got {sigma}")
    if k is not None and k < 1:
        raise ValueError(f"k counts places from the top and must be at least 1, or null for all, got {k}")
