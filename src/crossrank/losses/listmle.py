"""ListMLE: the likelihood of the order of the labels when documents are drawn by their logits."""

import torch
from torch import Tensor, nn

from crossrank.losses.within_lists import at_least_float32, before, masked_logsumexp, mean_over_lists, same_list


class ListMLE(nn.Module):
    """mean over lists of sum_r [log sum_(s >= r) exp(z_s) - z_r], the places r of a list in the order of its labels.

    Labels that are equal have no order. The sum over those that are left is then its mean over all orders of them
    (Efron's way with ties in Cox's partial likelihood, which is this likelihood): log(rest + (1 - l/m) tied) for
    the l-th of m, from 0. It is what ListMLE is where no labels are equal.

    Sources: Xia et al., Listwise Approach to Learning to Rank, ICML 2008; Efron, The Efficiency of Cox's Likelihood
    Function for Censored Data, JASA 1977. sentence-transformers' ListMLELoss takes ties in the order of the input,
    which makes the first negative better than the second.
    """

    listwise = True

    def __init__(self) -> None:
        super().__init__()

    def forward(self, logits: Tensor, labels: Tensor, query_index: Tensor) -> Tensor:
        """Return the mean loss of the lists; that of a list of one is 0."""
        logits = at_least_float32(logits)
        same = same_list(query_index)
        return mean_over_lists(left_at_each_place(logits, labels, same) - logits, same)


def left_at_each_place(logits: Tensor, labels: Tensor, same: Tensor) -> Tensor:
    """Return float[pairs], the log of what is left to draw from at each place of a list.

    Every pair has one of the places of its label; which of them it is, among equal labels, means nothing.
    """
    tied = same & (labels == labels[:, None])
    drawn = (before(labels, same) & tied).sum(1) / tied.sum(1)
    left = torch.where(tied, torch.log1p(-drawn.to(logits.dtype))[:, None], 0.0)
    return masked_logsumexp(logits, same & (labels <= labels[:, None]), left)
