"""What a smaller rerank depth would give, from the scores of one full evaluation."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from crossrank.errors import DataError
from crossrank.evaluation import metric_names
from crossrank.evaluation.metrics import RankingMetrics, st_metrics, trec_metrics
from crossrank.evaluation.reranking import RerankingTask
from crossrank.evaluation.significance import mean_intervals

CandidateScores = dict[str, dict[str, float]]  # query id -> document id -> score, in the first stage's order


def candidate_scores(task: RerankingTask, scores: pd.DataFrame) -> CandidateScores:
    """Return what each candidate was scored, from `Evaluation.scores`; a query that was not scored is not there.

    A candidate whose text was scored under another id has that text's score.

    Raises:
        DataError: the scores are not those of an evaluation of the same lists.
    """
    found: CandidateScores = {}
    for query, rows in scores[scores["dataset"] == task.name].groupby("query_id", sort=False):
        try:
            texts = (task.documents[d] for d in rows["document_id"])
            by_text = dict(zip(texts, rows["score"].tolist(), strict=True))
            found[str(query)] = {d: by_text[task.documents[d]] for d in task.candidates[str(query)]}
        except KeyError as error:
            raise DataError(
                f"{task.name}: nothing is known of {error} among the scores of query {query!r}; give the scores of an "
                "evaluation of the same lists"
            ) from error
    return found


def depth_metrics(task: RerankingTask, scores: pd.DataFrame, depth: int) -> RankingMetrics:
    """Return the metrics, under the task's protocol, of lists whose first `depth` candidates alone are reranked.

    The others follow in the first stage's order, and relevant documents that it missed come last, so depth 0 has the
    base values. The whole depth has the values of `RerankingTask.evaluate` under `trec`; under `st` too, unless the
    first stage missed relevant documents: `always_rerank_positives` hands those to the scorer, which no rerank depth
    does, and without it sentence-transformers leaves them out of the ideal.

    Raises:
        DataError: the lists have no first stage, or the scores are not those of an evaluation of them.
        ValueError: the depth is negative.
    """
    if not task.ranked:
        raise DataError(f"{task.name}: its lists have no first stage, so no rerank depth can be chosen")
    if depth < 0:
        raise ValueError(f"a rerank depth is at least 0, got {depth}")
    known = candidate_scores(task, scores)
    if task.protocol == "trec":
        runs = {query: _trec_run(found, depth) for query, found in known.items()}
        qrels = {query: task.qrels.get(query, {}) for query in task.queries}
        return trec_metrics(qrels, runs, task.at_k, task.relevant_from)
    relevant: list[int] = []
    orders, sizes = [], []
    for query in task.queries:
        labels = _st_labels(task, query) if query in known else []
        found = [known[query][d] for d in task.candidates[query][:depth]] if labels else []
        orders.append(_order(found, len(labels)))
        sizes.append(len(labels))
        relevant += labels
    return st_metrics(relevant, np.concatenate(orders), sizes, task.at_k)


def depth_curve(tasks: Sequence[RerankingTask], scores: pd.DataFrame, depths: Sequence[int]) -> pd.DataFrame:
    """Return NDCG by dataset and depth: dataset, depth, metric, value, low, high (the 95 % interval; NaN if unknown).

    The dataset `mean` is the unweighted mean over datasets.
    """
    metric = metric_names(tasks[0].at_k, tasks[0].protocol)[2]
    tables = {t.name: np.stack([depth_metrics(t, scores, depth).ndcg for depth in depths], axis=1) for t in tasks}
    frames = []
    for name, strata in [*((name, [table]) for name, table in tables.items()), ("mean", list(tables.values()))]:
        low, high = mean_intervals(strata)
        value = np.mean([table.mean(axis=0) for table in strata], axis=0)
        frames.append(
            pd.DataFrame({"dataset": name, "depth": depths, "metric": metric, "value": value, "low": low, "high": high})
        )
    return pd.concat(frames, ignore_index=True)


def _st_labels(task: RerankingTask, query: str) -> list[int]:
    """Relevance of the candidates, by text, then of what the first stage missed; empty if it found nothing."""
    grades = task.qrels.get(query, {})
    positives = [
        task.documents[d] for d, grade in grades.items() if grade >= task.relevant_from and d in task.documents
    ]
    labels = [int(task.documents[d] in set(positives)) for d in task.candidates[query]]
    return labels + [1] * (len(positives) - sum(labels)) if any(labels) else []


def _trec_run(found: dict[str, float], depth: int) -> dict[str, float]:
    order = _order(list(found.values())[:depth], len(found))
    return dict(zip(found, order.tolist(), strict=True))


def _order(reranked: list[float], size: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """Return numbers that sort a list of `size`: its head by the scores given, ties kept, the rest as it stands."""
    order = -np.arange(size, dtype=np.float32)
    order[: len(reranked)] = 1 + np.unique(np.asarray(reranked), return_inverse=True)[1]
    return order
