"""MAP, MRR@k and NDCG@k of one ranked list, as sentence-transformers computes them.

Ties are broken as it breaks them: NDCG averages over a tie, average precision takes a tie as one step, and the
reciprocal rank reads numpy's ascending order backwards.

Source: sentence_transformers.cross_encoder.evaluation.CrossEncoderRerankingEvaluator.compute_metrics, 6.2.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, ndcg_score

from crossrank.errors import DataError


class RankingMetrics(NamedTuple):
    """The three numbers of one query, each from 0 to 1."""

    map: float
    mrr: float
    ndcg: float


NOTHING_FOUND = RankingMetrics(0.0, 0.0, 0.0)


def ranking_metrics(relevant: npt.ArrayLike, scores: npt.ArrayLike, k: int) -> RankingMetrics:
    """Return MAP (over the whole list), MRR@k and NDCG@k of one query.

    `relevant` is 0/1 [documents], `scores` is [documents], higher is better. All three are 0 where nothing is
    relevant. A list of one relevant document is perfect.

    Raises:
        DataError: a score is NaN or infinite.
    """
    relevance = np.asarray(relevant, np.int64)
    values = np.asarray(scores)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise DataError(f"{bad} of {len(values)} scores are NaN or infinite; the model is broken")
    if not relevance.any():
        return NOTHING_FOUND
    if len(relevance) == 1:
        return RankingMetrics(1.0, 1.0, 1.0)
    first = np.nonzero(relevance[np.argsort(values)[::-1][:k]])[0]
    return RankingMetrics(
        map=float(average_precision_score(relevance, values)),
        mrr=1.0 / (first[0] + 1) if len(first) else 0.0,
        ndcg=float(ndcg_score([relevance], [values], k=k)),
    )
