"""Position-aware ListMLE: the first places of a list count most."""

from torch import Tensor, nn

from crossrank.losses.listmle import left_at_each_place
from crossrank.losses.within_lists import at_least_float32, before, mean_over_lists, same_list


class PListMLE(nn.Module):
    """mean over lists of sum_r w_r [log sum_(s >= r) exp(z_s) - z_r], w_r = (2^(n - r) - 1) / sum_s (2^(n - s) - 1).

    r from 1 to n are the places of a list in the order of its labels. Equal labels have no order: see `ListMLE`; the
    logit of each has the mean weight of their places.

    Source: Lan et al., Position-Aware ListMLE: A Sequential Learning Process for Ranking, UAI 2014;
    sentence-transformers' PListMLELoss, which takes ties in the order of the input.
    """

    listwise = True

    def __init__(self) -> None:
        super().__init__()

    def forward(self, logits: Tensor, labels: Tensor, query_index: Tensor) -> Tensor:
        """Return the mean loss of the lists; that of a list of one is 0."""
        logits = at_least_float32(logits)
        same = same_list(query_index)
        tied = (same & (labels == labels[:, None])).to(logits.dtype)
        weights = _weights(before(labels, same).sum(1) + 1, same, logits)
        of_label = tied @ weights / tied.sum(1)
        return mean_over_lists(weights * left_at_each_place(logits, labels, same) - of_label * logits, same)


def _weights(places: Tensor, same: Tensor, logits: Tensor) -> Tensor:
    """Return w, times 2^-n above and below the line, or else long lists would overflow."""
    exponents = places.to(logits.dtype)
    raw = (-exponents).exp2() - (-same.sum(1).to(logits.dtype)).exp2()
    return raw / (same.to(logits.dtype) @ raw).clamp(min=1e-30)
