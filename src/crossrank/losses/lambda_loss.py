"""LambdaLoss: RankNet's pairs, weighted by what their order means to NDCG."""

from typing import Literal

import torch
from torch import Tensor, nn

from crossrank.losses.ranknet import Log, in_first, logistic, refuse
from crossrank.losses.within_lists import at_least_float32, before, mean_where, ranks, same_list

Weighting = Literal["none", "ndcg1", "ndcg2", "lambdarank", "ndcg2++"]


class LambdaLoss(nn.Module):
    """mean over (i, j) of one list of w_ij log(1 + exp(-sigma (z_i - z_j))).

    With G the gain (2^y - 1) / maxDCG, r the place from 1 by the logit, D(r) = log2(1 + r) and d = |r_i - r_j|:

    - `none`: w = 1, over y_i > y_j; `RankNet`.
    - `ndcg1`: w = G_i / D(r_i), over all (i, j), also of equal labels and i = j.
    - `ndcg2`: w = |1/D(d) - 1/D(d + 1)| |G_i - G_j|, over y_i > y_j.
    - `lambdarank`: w = |1/D(r_i) - 1/D(r_j)| |G_i - G_j|, over y_i > y_j.
    - `ndcg2++`: mu times the weight of `ndcg2` plus that of `lambdarank`.

    With `k`, only pairs of which at least one stands in the first k places, and maxDCG is that of k places; it is at
    least `eps`. Of equal logits the lower label stands first. No gradient flows through the places. The mean is over
    the pairs (i, j) of all lists.

    Source: Wang et al., The LambdaLoss Framework for Ranking Metric Optimization, CIKM 2018, which sums where
    sentence-transformers' LambdaLoss, and so this, takes the mean.
    """

    listwise = True
    label_range = (0.0, 100.0)  # 2^128 is no float32

    def __init__(
        self,
        weighting: Weighting = "ndcg2++",
        k: int | None = None,
        sigma: float = 1.0,
        mu: float = 10.0,
        eps: float = 1e-10,
        reduction_log: Log = "binary",
    ) -> None:
        super().__init__()
        refuse(sigma, k)
        if mu < 0 or eps <= 0:
            raise ValueError(f"mu is a weight of at least 0 and eps is above 0, got mu={mu}, eps={eps}")
        self.weighting, self.k, self.sigma, self.mu, self.eps = weighting, k, sigma, mu, eps
        self.reduction_log = reduction_log

    def forward(self, logits: Tensor, labels: Tensor, query_index: Tensor) -> Tensor:
        """Return the mean loss; 0 where no list has labels that differ (`ndcg1`: labels above 0)."""
        logits, same = at_least_float32(logits), same_list(query_index)
        labels = labels.to(logits.dtype)
        places = ranks(logits, labels, same)
        chosen = same if self.weighting == "ndcg1" else same & (labels[:, None] > labels)
        if self.k is not None:
            chosen = chosen & in_first(self.k, places)
        losses = logistic(logits, self.sigma, self.reduction_log)
        return mean_where(self._weights(labels, places, same) * losses, chosen)

    def _weights(self, labels: Tensor, places: Tensor, same: Tensor) -> Tensor:
        """Return w, which broadcasts to [pairs, pairs]."""
        if self.weighting == "none":
            return torch.ones_like(labels)
        gains, shares = self._gains(labels, same), 1 / discount(places, labels.dtype)
        if self.weighting == "ndcg1":
            return (gains * shares)[:, None]
        swapped = (gains[:, None] - gains).abs()
        lambdarank = (shares[:, None] - shares).abs() * swapped
        if self.weighting == "lambdarank":
            return lambdarank
        apart = (places[:, None] - places).abs().clamp(min=1)  # 0 is of i = j alone, or of two lists
        ndcg2 = (1 / discount(apart, labels.dtype) - 1 / discount(apart + 1, labels.dtype)) * swapped
        return ndcg2 if self.weighting == "ndcg2" else self.mu * ndcg2 + lambdarank

    def _gains(self, labels: Tensor, same: Tensor) -> Tensor:
        """Return G, [pairs]."""
        gains = labels.exp2() - 1
        best = before(labels, same).sum(1) + 1
        ideal = gains / discount(best, labels.dtype)
        if self.k is not None:
            ideal = torch.where(best <= self.k, ideal, 0.0)
        return gains / (same.to(labels.dtype) @ ideal).clamp(min=self.eps)


def discount(places: Tensor, dtype: torch.dtype) -> Tensor:
    """Return log2(1 + r) of places from 1."""
    return torch.log2(1 + places.to(dtype))
