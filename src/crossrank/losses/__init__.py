"""One loss, one file: a function of (logits, labels, query_index) to a scalar."""

from typing import Protocol

from torch import Tensor


class Loss(Protocol):
    """What a reranker is trained on; pointwise losses ignore `query_index`, listwise ones group by it."""

    def __call__(self, logits: Tensor, labels: Tensor, query_index: Tensor) -> Tensor:
        """Return a scalar from logits float32[pairs], labels float32[pairs] and query_index int64[pairs]."""
        ...
