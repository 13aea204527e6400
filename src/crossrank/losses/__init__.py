"""One loss, one file: a function of (logits, labels, query_index) to a scalar."""

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from crossrank.errors import DataError


class Loss(Protocol):
    """What a reranker is trained on; pointwise losses ignore `query_index`, listwise ones group by it.

    A listwise loss says so by `listwise = True`, and is only trained on batches of whole questions. A `label_range`
    says what labels it takes, both ends included.
    """

    def __call__(self, logits: Tensor, labels: Tensor, query_index: Tensor) -> Tensor:
        """Return a scalar from logits float32[pairs], labels float32[pairs] and query_index int64[pairs]."""
        ...


def refuse_labels(loss: Loss, labels: npt.NDArray[Any]) -> None:
    """Refuse scores and grades that a loss, which says what it takes by its `label_range`, cannot take.

    Raises:
        DataError: a label lies outside.
    """
    low, high = getattr(loss, "label_range", (-math.inf, math.inf))
    if labels.dtype == np.float32 and not (low <= labels.min() and labels.max() <= high):
        raise DataError(
            f"the labels run from {labels.min():g} to {labels.max():g} and {type(loss).__name__} takes {low:g} to "
            f"{high:g}; source.rescale=sigmoid or largest brings them there"
        )
