"""MAP, MRR@k and NDCG@k of ranked lists under two protocols, for all queries at once.

`st`: as sentence-transformers computes them. Relevance is binary; NDCG averages over a tie, average precision takes a
tie as one step, the reciprocal rank reads numpy's ascending order backwards. Source:
sentence_transformers.cross_encoder.evaluation.CrossEncoderRerankingEvaluator.compute_metrics, 6.2.

`trec`: as trec_eval computes them (by pytrec_eval). Gains are graded, ties are broken by document id, and a relevant
document that was not retrieved counts as missed.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytrec_eval

from crossrank.errors import DataError

Floats = npt.NDArray[np.float64]


class RankingMetrics(NamedTuple):
    """Of each query, [queries]: the metrics, from 0 to 1, and the rank of its first relevant document (NaN: none)."""

    map: Floats
    mrr: Floats
    ndcg: Floats
    first_rank: Floats


def st_metrics(relevant: npt.ArrayLike, scores: npt.ArrayLike, lengths: npt.ArrayLike, k: int) -> RankingMetrics:
    """Return MAP (over the whole list), MRR@k and NDCG@k under sentence-transformers' protocol.

    The lists stand one after the other: `relevant` is 0/1 [documents], `scores` is [documents], higher is better,
    `lengths` is [queries]. All three are 0 where nothing is relevant or the list is empty; a list of one relevant
    document is perfect.

    Raises:
        DataError: a score is NaN or infinite.
    """
    relevance, values, sizes = np.asarray(relevant, np.float64), np.asarray(scores), np.asarray(lengths, np.int64)
    check_finite(values)
    starts = np.cumsum(sizes) - sizes
    query = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((-values, query))
    relevance_by_rank, values_by_rank = relevance[order], values[order]
    rank = np.arange(len(order)) - starts[query] + 1
    discount = np.where(rank <= k, 1 / np.log2(rank + 1), 0.0)
    positives = _sums(relevance, query, len(sizes))

    opens_tie = (rank == 1) | (np.diff(values_by_rank, prepend=np.nan) != 0)
    tie = np.cumsum(opens_tie) - 1
    tied = np.bincount(tie)
    found = _sums(relevance_by_rank, tie, len(tied))
    owner = query[opens_tie]
    gained = _sums(found / tied * _sums(discount, tie, len(tied)), owner, len(sizes))
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    so_far = np.cumsum(found) - (np.cumsum(positives) - positives)[owner]  # relevant down to the end of the tie
    last_rank = rank[opens_tie] + tied - 1
    precision = _sums(found * so_far / last_rank, owner, len(sizes))

    first = _first_ranks(relevance, values, starts, sizes)
    some = np.maximum(positives, 1)
    return RankingMetrics(
        map=precision / some,
        mrr=np.where(first <= k, 1 / first, 0.0),
        ndcg=gained / ideal[np.minimum(some, k).astype(int)],
        first_rank=first,
    )


def trec_metrics(
    qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]], k: int, relevant_from: int = 1
) -> RankingMetrics:
    """Return AP, the reciprocal rank within the first k, and nDCG@k of the queries of `qrels`, in their order.

    `qrels` are grades and `run` scores, by query id and document id. AP and the reciprocal rank call a grade of at
    least `relevant_from` relevant; NDCG takes the grades as gains. A query without a ranking has 0.

    The reciprocal rank is trec_eval's `recip_rank`, 0 below rank k. ir-measures' `RR@k` agrees but for ties, which the
    provider it asks breaks another way than trec_eval does.
    """
    ndcg = f"ndcg_cut_{k}"
    evaluator = pytrec_eval.RelevanceEvaluator(
        {query: dict(grades) for query, grades in qrels.items()},
        {"map", "recip_rank", f"ndcg_cut.{k}"},
        relevance_level=relevant_from,
    )
    found = evaluator.evaluate({query: dict(ranked) for query, ranked in run.items() if ranked})
    nothing = {"map": 0.0, "recip_rank": 0.0, ndcg: 0.0}
    rows = [found.get(query, nothing) for query in qrels]
    reciprocal = np.asarray([row["recip_rank"] for row in rows])
    with np.errstate(divide="ignore"):
        first = np.where(reciprocal > 0, np.rint(1 / reciprocal), np.nan)
    return RankingMetrics(
        map=np.asarray([row["map"] for row in rows]),
        mrr=np.where(first <= k, reciprocal, 0.0),
        ndcg=np.asarray([row[ndcg] for row in rows]),
        first_rank=first,
    )


def check_finite(scores: npt.NDArray[np.generic]) -> None:
    """Refuse scores that rank nothing.

    Raises:
        DataError: a score is NaN or infinite.
    """
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        raise DataError(f"{bad} of {len(scores)} scores are NaN or infinite; the model is broken")


def _sums(values: npt.ArrayLike, group: npt.NDArray[np.int64], groups: int) -> Floats:
    return np.bincount(group, np.asarray(values, np.float64), minlength=groups).astype(np.float64)


def _first_ranks(
    relevance: Floats, values: npt.NDArray[np.generic], starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> Floats:
    """Sort list by list: how numpy's unstable order breaks a tie depends on the length of what it sorts."""
    first = np.full(len(sizes), np.nan)
    for i, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        hits = np.nonzero(relevance[start : start + size][np.argsort(values[start : start + size])[::-1]])[0]
        if len(hits):
            first[i] = hits[0] + 1
    return first
