"""Binary cross-entropy with a weight on the positives."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WeightedBCE(nn.Module):
    """mean_i -(w y_i log s(z_i) + (1 - y_i) log(1 - s(z_i))), s the sigmoid, w = `pos_weight`.

    The mean is over pairs and not divided by the weights. With w = 1 it is
    `torch.nn.functional.binary_cross_entropy_with_logits`. With `label_smoothing` e, y_i is drawn towards 1/2:
    (1 - e) y_i + e / 2, so that no logit has to grow for ever.

    Sources: sentence-transformers' BinaryCrossEntropyLoss; its GooAQ recipe sets w to the negatives of a question.
    Smoothing: Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, of two classes.
    """

    label_range = (0.0, 1.0)  # what labels may be
    pos_weight: Tensor

    def __init__(self, pos_weight: float = 1.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if pos_weight <= 0:
            raise ValueError(f"pos_weight multiplies the loss of positives and must be above 0, got {pos_weight}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is a share of the label, from 0 to below 1, got {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.register_buffer("pos_weight", torch.tensor(float(pos_weight)), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, query_index: Tensor) -> Tensor:
        """Return the mean loss of the pairs; `query_index` is ignored."""
        labels = labels.float()
        if self.label_smoothing:
            labels = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits.float(), labels, pos_weight=self.pos_weight)
