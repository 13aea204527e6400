"""Softmax cross-entropy of each positive among the negatives of its own question."""

import torch
from torch import Tensor, nn

from crossrank.losses.within_lists import at_least_float32, masked_logsumexp, mean_where, same_list


class MultipleNegatives(nn.Module):
    """mean over positives p of -log(exp(a_p) / (exp(a_p) + sum_n exp(a_n))), n the negatives of p's question.

    a = z / `temperature`, or with `sigmoid` s(z) / `temperature`: sentence-transformers' defaults are the sigmoid and
    0.1. A positive has a label of 0.5 or more. Other positives of its question are left out of its sum, and one
    without negatives counts as 0. Negatives are the question's own rows, to which `data.in_batch_negatives` adds
    documents of the step's other questions.

    Sources: van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018 (InfoNCE);
    sentence-transformers' MultipleNegativesRankingLoss.
    """

    listwise = True
    label_range = (0.0, 1.0)

    def __init__(self, temperature: float = 1.0, sigmoid: bool = False) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature divides the logits and must be above 0, got {temperature}")
        self.temperature, self.sigmoid = temperature, sigmoid

    def forward(self, logits: Tensor, labels: Tensor, query_index: Tensor) -> Tensor:
        """Return the mean loss of the positives; 0 where there are none."""
        logits = at_least_float32(logits)
        scores = (logits.sigmoid() if self.sigmoid else logits) / self.temperature
        positive = labels >= 0.5
        rivals = (same_list(query_index) & ~positive) | torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        return mean_where(masked_logsumexp(scores, rivals) - scores, positive)
