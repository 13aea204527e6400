"""ListNet: the cross-entropy between the distributions that labels and logits make of a list."""

import torch
from torch import Tensor, nn

from crossrank.losses.within_lists import at_least_float32, masked_logsumexp, mean_over_lists, same_list


class ListNet(nn.Module):
    """mean over lists of -sum_j softmax(y / t)_j log softmax(z)_j, t = `temperature`.

    With t = 1 an answer among five others that are labelled 0 is to have a probability of only 0.35: a lower t asks for
    more. A teacher's scores need none.

    Source: Cao et al., Learning to Rank: From Pairwise Approach to Listwise Approach, ICML 2007, the top-one
    probabilities; sentence-transformers' ListNetLoss has t = 1.
    """

    listwise = True

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature divides the labels and must be above 0, got {temperature}")
        self.temperature = temperature

    def forward(self, logits: Tensor, labels: Tensor, query_index: Tensor) -> Tensor:
        """Return the mean loss of the lists; that of a list of one is 0."""
        logits = at_least_float32(logits)
        same = same_list(query_index)
        wanted = labels.to(logits.dtype) / self.temperature
        shares = torch.exp(wanted - masked_logsumexp(wanted, same))
        return mean_over_lists(shares * (masked_logsumexp(logits, same) - logits), same)
