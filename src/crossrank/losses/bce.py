"""Binary cross-entropy with a weight on the positives."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WeightedBCE(nn.Module):
    """mean_i -(w y_i log s(z_i) + (1 - y_i) log(1 - s(z_i))), s the sigmoid, w = `pos_weight`.

    The mean is over pairs and not divided by the weights. With w = 1 it is
    `torch.nn.functional.binary_cross_entropy_with_logits`.

    Source: sentence-transformers' BinaryCrossEntropyLoss; its GooAQ recipe sets w to the negatives of a question.
    """

    label_range = (0.0, 1.0)  # what labels may be
    pos_weight: Tensor

    def __init__(self, pos_weight: float = 1.0) -> None:
        super().__init__()
        if pos_weight <= 0:
            raise ValueError(f"pos_weight multiplies the loss of positives and must be above 0, got {pos_weight}")
        self.register_buffer("pos_weight", torch.tensor(float(pos_weight)), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, query_index: Tensor) -> Tensor:
        """Return the mean loss of the pairs; `query_index` is ignored."""
        return F.binary_cross_entropy_with_logits(logits.float(), labels.float(), pos_weight=self.pos_weight)
