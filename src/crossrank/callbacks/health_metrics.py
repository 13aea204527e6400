"""What the scores, losses and gradients of a training's last batches look like."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crossrank.losses import Loss

SURE = 12.0  # beyond it a logit's sigmoid has a slope below 1e-5
RANKS = {"0": (0, 0), "1": (1, 1), "2": (2, 2), "3_to_5": (3, 5), "from_6": (6, 255)}


class Scored(NamedTuple):
    """One micro-batch with the logits, float32[pairs], that the model gave it in training."""

    logits: Tensor
    labels: Tensor  # float32[pairs]
    query_index: Tensor  # int64[pairs]
    ranks: Tensor | None  # int64[pairs]; -1 for a document of another question


def health_metrics(batches: Sequence[Scored], loss: Loss) -> dict[str, float]:
    """Return what scores, losses and gradients look like; what the batches do not define is left out.

    - `positive_score`, `negative_score`: mean logits; `separation`: the first minus the second.
    - `pair_accuracy`, 0 to 1: the share of the (positive, negative) pairs of one batch in which the positive scores
      higher, a tie counting half: the area under the ROC curve, see `sklearn.metrics.roc_auc_score`.
    - `score_std`: the standard deviation of logits around the mean of their own batch, so that weights that move
      between batches do not count.
    - `saturated_share`, 0 to 1: pairs whose logit is beyond +-12, where the sigmoid is flat; `wrong_and_sure_share`:
      those among all pairs that are on the wrong side too.
    - `gradient_share_of_positives`, 0 to 1: the sum of |d loss / d logit| over positives by that over all pairs.
    - `loss_of_rank_N`: mean binary cross-entropy, without weights, whatever the loss of the training: softplus(-z) of
      positives (N = 0), softplus(z) of the negatives that stand at place N, or in that range, of their question's.
      `loss_of_other_questions`: that of the negatives that are documents of other questions.
    """
    scores, positive = on_host(batch.logits for batch in batches), on_host(batch.labels for batch in batches) >= 0.5
    metrics = _score_metrics(scores, positive, [len(batch.logits) for batch in batches])
    gradients = np.abs(on_host(_gradients(batches, loss)))
    if gradients.any():
        metrics["gradient_share_of_positives"] = float(gradients[positive].sum() / gradients.sum())
    ranks = [batch.ranks for batch in batches if batch.ranks is not None]
    if len(ranks) == len(batches):
        losses, places = np.logaddexp(0, np.where(positive, -scores, scores)), on_host(ranks)
        for name, (low, high) in RANKS.items():
            metrics[f"loss_of_rank_{name}"] = _mean(losses, (places >= low) & (places <= high))
        metrics["loss_of_other_questions"] = _mean(losses, places < 0)
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def _gradients(batches: Sequence[Scored], loss: Loss) -> tuple[Tensor, ...]:
    """Return d loss / d logit of each batch's pairs; a logit is in the loss of its own batch alone."""
    with torch.enable_grad():
        leaves = [batch.logits.detach().requires_grad_() for batch in batches]
        losses = [loss(z, batch.labels, batch.query_index) for z, batch in zip(leaves, batches, strict=True)]
        return torch.autograd.grad(torch.stack(losses).sum(), leaves)


def _score_metrics(scores: npt.NDArray[Any], positive: npt.NDArray[np.bool_], sizes: list[int]) -> dict[str, float]:
    above = compared = squares = 0.0
    for start, stop in pairwise(np.cumsum([0, *sizes])):
        z, y = scores[start:stop], positive[start:stop]
        squares += float(np.square(z - z.mean()).sum())
        gaps = z[y][:, None] - z[~y]
        above += float(np.count_nonzero(gaps > 0) + np.count_nonzero(gaps == 0) / 2)
        compared += gaps.size
    freedom = len(scores) - len(sizes)
    sure = np.abs(scores) > SURE
    high, low = _mean(scores, positive), _mean(scores, ~positive)
    return {
        "positive_score": high,
        "negative_score": low,
        "separation": high - low,
        "pair_accuracy": above / compared if compared else math.nan,
        "score_std": math.sqrt(squares / freedom) if freedom else math.nan,
        "saturated_share": float(sure.mean()),
        "wrong_and_sure_share": float((sure & ((scores > 0) != positive)).mean()),
    }


def _mean(values: npt.NDArray[Any], chosen: npt.NDArray[np.bool_]) -> float:
    return float(values[chosen].mean()) if chosen.any() else math.nan


def on_host(parts: Iterable[Tensor]) -> npt.NDArray[np.float64]:
    """Return the values of several tensors, one after the other; this waits for the device."""
    joined: npt.NDArray[np.float64] = torch.cat(list(parts)).cpu().numpy().astype(np.float64)
    return joined
