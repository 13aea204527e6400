"""Reranks the candidates of a first stage and compares with it, query by query."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from crossrank.errors import DataError
from crossrank.evaluation import Evaluation, Scorer, metric_names
from crossrank.evaluation.metrics import NOTHING_FOUND, RankingMetrics, ranking_metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RerankingTask:
    """Queries with ranked candidates and judgements; texts are compared by equality, as sentence-transformers does.

    `candidates[q]` are the first stage's documents, best first; `positives[q]` are the relevant ones. With
    `always_rerank_positives` the scorer also sees the positives that the first stage missed.
    """

    name: str
    queries: Mapping[str, str]  # query id -> text
    candidates: Mapping[str, Sequence[str]]  # query id -> document texts
    positives: Mapping[str, Sequence[str]]
    at_k: int = 10
    always_rerank_positives: bool = True

    def __post_init__(self) -> None:
        if not self.queries:
            raise DataError(f"{self.name}: no query to evaluate on")
        found = sum(any(text in set(self.positives[q]) for text in self.candidates[q]) for q in self.queries)
        if not found:
            raise DataError(
                f"{self.name}: no query has a relevant document among its candidates, so nothing can be reranked; "
                "check that the judgements and the first stage are of the same collection"
            )
        if found < len(self.queries):
            missed = len(self.queries) - found
            log.info(
                "%s: the first stage finds no relevant document for %d of %d queries",
                self.name,
                missed,
                len(self.queries),
            )

    def evaluate(self, score: Scorer) -> Evaluation:
        """Score every list in one call and return the metrics of each query beside the first stage's."""
        lists = {query: self._list(query) for query in self.queries}
        pairs = [(self.queries[q], text) for q, (texts, relevant) in lists.items() if any(relevant) for text in texts]
        scores = np.asarray(score(pairs))
        if scores.shape != (len(pairs),):
            raise DataError(
                f"the scorer returned shape {scores.shape} for {len(pairs)} pairs; one score a pair is wanted"
            )
        rows, start = [], 0
        for query, (texts, relevant) in lists.items():
            metrics = NOTHING_FOUND
            if any(relevant):
                metrics = ranking_metrics(relevant, scores[start : start + len(texts)], self.at_k)
                start += len(texts)
            base = self._first_stage(query)
            for name, value, base_value in zip(metric_names(self.at_k), metrics, base, strict=True):
                rows.append((self.name, query, name, value, base_value))
        return Evaluation(pd.DataFrame(rows, columns=["dataset", "query_id", "metric", "value", "base_value"]))

    def _list(self, query: str) -> tuple[list[str], list[int]]:
        positives, candidates = self.positives[query], self.candidates[query]
        relevant = set(positives)
        if self.always_rerank_positives:
            rest = [text for text in candidates if text not in relevant]
            return [*positives, *rest], [1] * len(positives) + [0] * len(rest)
        return list(candidates), [int(text in relevant) for text in candidates]

    def _first_stage(self, query: str) -> RankingMetrics:
        """Return the first stage's metrics; positives it missed count as ranked last, if it found any."""
        positives = self.positives[query]
        found = [int(text in set(positives)) for text in self.candidates[query]]
        if not any(found):
            return NOTHING_FOUND
        found += [1] * (len(positives) - sum(found))
        return ranking_metrics(found, np.arange(len(found), 0, -1), self.at_k)


def evaluate_tasks(tasks: Sequence[RerankingTask], score: Scorer) -> Evaluation:
    """Evaluate several tasks one after the other."""
    return Evaluation(pd.concat([task.evaluate(score).rows for task in tasks], ignore_index=True))
