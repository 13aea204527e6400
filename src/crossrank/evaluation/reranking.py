"""Reranks the candidates of a first stage and compares with it, query by query."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from crossrank.errors import DataError
from crossrank.evaluation import Evaluation, Protocols, Scorer, metric_names
from crossrank.evaluation.metrics import RankingMetrics, check_finite, st_metrics, trec_metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Lists:
    """What is scored, list after list; `lengths` [queries] is 0 where nothing can be gained."""

    pairs: list[tuple[str, str]]
    query: npt.NDArray[np.int64]  # [pairs], the place of its query
    document_ids: list[str]
    first_stage_rank: npt.NDArray[np.int64]
    relevant: npt.NDArray[np.int64]
    grades: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]


@dataclass(frozen=True)
class RerankingTask:
    """Queries with ranked candidates and judgements.

    `candidates[q]` are the first stage's documents, best first; a document that stands there twice is reranked twice
    under `st`, as sentence-transformers does, and counts at its first place under `trec`. `qrels[q]` are grades; one
    of at least `relevant_from` is relevant. Of a relevant document the text may be unknown: it counts under `trec`.

    Under `st`, texts are compared by equality, as sentence-transformers does, and with `always_rerank_positives` the
    scorer also sees the relevant documents that the first stage missed; trec's metrics come from the same scores. Under
    `trec`, only candidates are scored. Lists that no first stage ranked (`ranked=False`) have no base values.
    """

    name: str
    queries: Mapping[str, str]  # query id -> text
    documents: Mapping[str, str]  # document id -> text
    candidates: Mapping[str, Sequence[str]]  # query id -> document ids
    qrels: Mapping[str, Mapping[str, int]]  # query id -> document id -> grade
    at_k: int = 10
    always_rerank_positives: bool = True
    protocol: Protocols = "st"
    relevant_from: int = 1
    ranked: bool = True

    def __post_init__(self) -> None:
        if not self.queries:
            raise DataError(f"{self.name}: no query to evaluate on")
        missing = [d for q in self.queries for d in self.candidates[q] if d not in self.documents]
        if missing:
            raise DataError(f"{self.name}: {len(missing)} candidates have no text, the first is {missing[0]!r}")
        found = sum(any(self._relevance(q, self.candidates[q])) for q in self.queries)
        if not found:
            raise DataError(
                f"{self.name}: no query has a relevant document among its candidates, so nothing can be reranked; "
                "check that the judgements and the first stage are of the same collection"
            )
        missed = len(self.queries) - found
        if missed:
            told = "%s: the first stage finds no relevant document for %d of %d queries"
            log.info(told, self.name, missed, len(self.queries))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What a scorer is given: (question, document) texts."""
        return self._lists.pairs

    @property
    def first_stage_ndcg(self) -> float:
        """The first stage's mean NDCG under the protocol, NaN where there is no first stage."""
        return float(self._bounds[0][0].ndcg.mean())

    def evaluate(self, score: Scorer) -> Evaluation:
        """Score every list in one call and return the metrics of each query beside the first stage's.

        Raises:
            DataError: the scorer did not return one finite number a pair.
        """
        return evaluate_tasks([self], score)

    def evaluated(self, scores: npt.NDArray[np.generic], cut: npt.NDArray[np.bool_] | None) -> Evaluation:
        """Return the metrics of given scores [pairs]; `cut` [pairs] says which pairs were cut, if that is known."""
        lists = self._lists
        truncated = np.full(len(self.queries), np.nan)
        if cut is not None:
            share = np.bincount(lists.query, cut, minlength=len(self.queries))
            truncated = np.where(lists.lengths > 0, share / np.maximum(lists.lengths, 1), np.nan)
        frame = pd.DataFrame(
            {
                "dataset": self.name, "query_id": np.asarray(list(self.queries), object)[lists.query],
                "document_id": lists.document_ids, "first_stage_rank": lists.first_stage_rank,
                "score": scores.astype(np.float32), "grade": lists.grades, "relevant": lists.relevant.astype(bool),
            }
        )  # fmt: skip
        return Evaluation(self._rows(self._measure(scores), truncated), frame)

    def _rows(self, found: list[RankingMetrics], truncated: npt.NDArray[np.float64]) -> pd.DataFrame:
        names = metric_names(self.at_k, self.protocol)
        base, best = self._bounds

        def spread(metrics: list[RankingMetrics], ranks: bool) -> npt.NDArray[np.float64]:
            columns = [m.first_rank if ranks else column for m in metrics for column in m[:3]]
            return np.stack(columns, axis=1).ravel()  # query by query

        return pd.DataFrame(
            {
                "dataset": self.name,
                "query_id": np.repeat(np.asarray(list(self.queries), object), len(names)),
                "metric": np.tile(np.asarray(names, object), len(self.queries)),
                "value": spread(found, False),
                "base_value": spread(base, False),
                "ceiling": spread(best, False),
                "first_rank": spread(found, True),
                "base_rank": spread(base, True),
                "truncated": np.repeat(truncated, len(names)),
            }
        )

    def _measure(self, scores: npt.NDArray[np.generic]) -> list[RankingMetrics]:
        """Return st's and trec's metrics, or trec's alone, of scored lists."""
        lists, runs = self._lists, {}
        starts = np.cumsum(lists.lengths) - lists.lengths
        for query, start, size in zip(self.queries, starts, lists.lengths, strict=True):
            texts = (text for _, text in lists.pairs[start : start + size])
            by_text = dict(zip(texts, scores[start : start + size].tolist(), strict=True))
            runs[query] = {d: by_text[self.documents[d]] for d in self.candidates[query]} if size else {}
        found = [self._trec(runs)]
        if self.protocol == "st":
            found.insert(0, st_metrics(lists.relevant, scores, lists.lengths, self.at_k))
        return found

    @cached_property
    def _bounds(self) -> tuple[list[RankingMetrics], list[RankingMetrics]]:
        """The first stage's metrics and those of the best order of the same lists."""
        lists, best, base = self._lists, [], []
        if self.protocol == "st":
            best.append(st_metrics(lists.relevant, lists.relevant, lists.lengths, self.at_k))
            base.append(self._st_first_stage())
        grades = {q: {d: float(self.qrels.get(q, {}).get(d, 0)) for d in self.candidates[q]} for q in self.queries}
        ranks = {q: {d: -float(i) for i, d in enumerate(dict.fromkeys(self.candidates[q]))} for q in self.queries}
        best.append(self._trec(grades))
        base.append(self._trec(ranks))
        if not self.ranked:
            base = [RankingMetrics(*np.full((4, len(self.queries)), np.nan))] * len(best)
        return base, best

    def _st_first_stage(self) -> RankingMetrics:
        """Positives that the first stage missed count as ranked last, if it found any."""
        labels, sizes = [], []
        for query in self.queries:
            found = self._relevance(query, self.candidates[query])
            missed = [1] * (len(self._positives(query)) - sum(found))
            labels += (ranked := [*found, *missed] if any(found) else [])
            sizes.append(len(ranked))
        order = np.concatenate([[], *(np.arange(size, 0, -1) for size in sizes)])
        return st_metrics(labels, order, sizes, self.at_k)

    def _trec(self, runs: Mapping[str, Mapping[str, float]]) -> RankingMetrics:
        return trec_metrics({q: self.qrels.get(q, {}) for q in self.queries}, runs, self.at_k, self.relevant_from)

    @cached_property
    def _lists(self) -> _Lists:
        found: dict[str, list[str]] = {query: self._list(query) for query in self.queries}
        queries, counts = list(found), [len(ids) for ids in found.values()]
        flat = [(q, d) for q, ids in found.items() for d in ids]
        ranks = {q: {self.documents[d]: i for i, d in reversed(list(enumerate(self.candidates[q], 1)))} for q in found}
        return _Lists(
            pairs=[(self.queries[q], self.documents[d]) for q, d in flat],
            query=np.repeat(np.arange(len(queries)), counts),
            document_ids=[d for _, d in flat],
            first_stage_rank=np.asarray([ranks[q].get(self.documents[d], 0) for q, d in flat], np.int64),
            relevant=np.asarray([x for q, ids in found.items() for x in self._relevance(q, ids)], np.int64),
            grades=np.asarray([self.qrels.get(q, {}).get(d, 0) for q, d in flat], np.int64),
            lengths=np.asarray(counts, np.int64),
        )

    def _list(self, query: str) -> list[str]:
        """Return the documents to score; none where neither protocol could find anything among them."""
        candidates, positives = list(self.candidates[query]), self._positives(query)
        if self.protocol == "st" and self.always_rerank_positives:
            relevant = {self.documents[d] for d in positives}
            candidates = [*positives, *(d for d in candidates if self.documents[d] not in relevant)]
        elif self.protocol == "trec":
            candidates = list(dict.fromkeys(candidates))
        grades = self.qrels.get(query, {})
        worth = any(self._relevance(query, candidates)) or any(grades.get(d, 0) > 0 for d in candidates)
        return candidates if worth else []

    def _positives(self, query: str) -> list[str]:
        grades = self.qrels.get(query, {})
        return [d for d, grade in grades.items() if grade >= self.relevant_from and d in self.documents]

    def _relevance(self, query: str, ids: Sequence[str]) -> list[int]:
        """Return which documents are relevant: under `st` by their text, under `trec` by their id."""
        positives = set(self._positives(query))
        if self.protocol == "trec":
            return [int(d in positives) for d in ids]
        texts = {self.documents[d] for d in positives}
        return [int(self.documents[d] in texts) for d in ids]


class OverTasks:
    """What an evaluator does with its `tasks`, whatever they were read from."""

    @property
    def tasks(self) -> Sequence[RerankingTask]:
        """One task a dataset; a subclass reads it once."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Load the tasks.

        Raises:
            CrossrankError: something in them is missing or wrong.
        """
        self.tasks  # noqa: B018 - loading is what the property does

    def __call__(self, score: Scorer) -> Evaluation:
        """Rerank the candidates of every dataset."""
        return evaluate_tasks(self.tasks, score)


def evaluate_tasks(tasks: Sequence[RerankingTask], score: Scorer) -> Evaluation:
    """Evaluate several tasks in one call of the scorer, which can so sort all their pairs by length.

    Raises:
        DataError: the scorer did not return one finite number a pair.
    """
    pairs = [pair for task in tasks for pair in task.pairs]
    scores = np.asarray(score(pairs))
    if scores.shape != (len(pairs),):
        raise DataError(f"the scorer returned shape {scores.shape} for {len(pairs)} pairs; one score a pair is wanted")
    check_finite(scores)
    cut = getattr(score, "truncated", lambda _: None)(pairs)
    found, start = [], 0
    for task in tasks:
        mine = slice(start, start := start + len(task.pairs))
        found.append(task.evaluated(scores[mine], None if cut is None else cut[mine]))
    rows, lists = ([getattr(one, name) for one in found] for name in ("rows", "scores"))
    return Evaluation(pd.concat(rows, ignore_index=True), pd.concat(lists, ignore_index=True))
