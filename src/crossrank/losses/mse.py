"""Mean squared error to a teacher's scores."""

import torch.nn.functional as F
from torch import Tensor, nn

from crossrank.losses.within_lists import at_least_float32


class MSE(nn.Module):
    """mean_i (z_i - y_i)^2: the logits are to be the labels, which are a teacher's logits as they stand.

    Source: sentence-transformers' MSELoss; Hinton et al., Distilling the Knowledge in a Neural Network, 2015,
    section 2.1.
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, logits: Tensor, labels: Tensor, query_index: Tensor) -> Tensor:
        """Return the mean loss of the pairs; `query_index` is ignored."""
        logits = at_least_float32(logits)
        return F.mse_loss(logits, labels.to(logits.dtype))
