"""Mean squared error to a teacher's margins."""

from torch import Tensor, nn

from crossrank.losses.within_lists import at_least_float32, mean_where, same_list


class MarginMSE(nn.Module):
    """mean over (b, j) of ((z_b - z_j) - (y_b - y_j))^2, b the best-labelled of a list, j each that is labelled lower.

    Labels are a teacher's scores as they stand: only their differences count, so that the student's zero may lie
    elsewhere. Where several share the best label each stands against all lower ones. The mean is over the pairs (b, j)
    of all lists.

    Source: Hofstätter et al., Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
    Distillation, 2020; with several negatives as sentence-transformers' MarginMSELoss.
    """

    listwise = True

    def __init__(self) -> None:
        super().__init__()

    def forward(self, logits: Tensor, labels: Tensor, query_index: Tensor) -> Tensor:
        """Return the mean loss; 0 where no list has labels that differ."""
        logits = at_least_float32(logits)
        labels = labels.to(logits.dtype)
        same = same_list(query_index)
        best = ~(same & (labels > labels[:, None])).any(1)
        margins = labels[:, None] - labels
        off = (logits[:, None] - logits) - margins
        return mean_where(off.square(), same & best[:, None] & (margins > 0))
