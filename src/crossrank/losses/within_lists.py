"""What losses over lists share: which pairs are of one list, and where each stands in it.

A list is the pairs of one question in a batch. Everything is a matrix [pairs, pairs] of the batch, masked to the pairs
of the same list: no padding, no sorting and no shape that depends on the values, so that nothing waits for the device
and a sum does not change from run to run. A batch of 1,000 pairs takes 4 MB a matrix.
"""

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Return half precision and integers as float32; float64 stays."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def same_list(query_index: Tensor) -> Tensor:
    """Return bool[pairs, pairs]: whether i and j are of the same question; each is with itself."""
    return query_index[:, None] == query_index


def before(values: Tensor, same: Tensor, tied: Tensor | None = None) -> Tensor:
    """Return bool[pairs, pairs]: j stands before i in their list.

    Larger `values` stand first; of equal ones the smaller of `tied`; of pairs that are alike in both, the first of the
    batch.
    """
    larger, equal = values > values[:, None], values == values[:, None]
    place = torch.arange(len(values), device=values.device)
    earlier = place < place[:, None]
    if tied is not None:
        earlier = (tied < tied[:, None]) | ((tied == tied[:, None]) & earlier)
    return same & (larger | (equal & earlier))


def ranks(logits: Tensor, labels: Tensor, same: Tensor) -> Tensor:
    """Return int64[pairs]: the place from 1 that the logits give each pair in its list.

    Of equal logits the lower label stands first: the loss is that of the worse order.
    """
    return 1 + before(logits.detach(), same, labels).sum(1)


def masked_logsumexp(logits: Tensor, mask: Tensor, log_weights: Tensor | None = None) -> Tensor:
    """Return log sum_j w_ij exp(z_j) over the j of each row's mask, [pairs]; no row may be empty."""
    values = logits if log_weights is None else logits + log_weights
    return values.expand_as(mask).masked_fill(~mask, -torch.inf).logsumexp(1)


def mean_over_lists(terms: Tensor, same: Tensor) -> Tensor:
    """Return the mean over lists of the sum of their pairs' terms."""
    lists = (1 / same.sum(1).to(terms.dtype)).sum()
    return terms.sum() / lists.round()


def mean_where(terms: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the terms that a mask chooses, 0 where it chooses none."""
    return torch.where(mask, terms, 0.0).sum() / mask.sum().clamp(min=1)
