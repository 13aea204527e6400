"""A first stage as a TREC run with its qrels, from any retrieval toolkit."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from crossrank.errors import DataError
from crossrank.evaluation import Protocols, refuse_below_one
from crossrank.evaluation.collection import warn_of
from crossrank.evaluation.formats import read_qrels, read_ranking, read_texts
from crossrank.evaluation.reranking import OverTasks, RerankingTask
from crossrank.hub import Asset


@dataclass(frozen=True)
class TrecRun(OverTasks):
    """Reranks the first `rerank_k` documents of each query of a TREC run.

    `run` has TREC's six columns and `qrels` its four (.trec, .txt, .run or .qrels), or either is a table as in
    `Collection`. `corpus` and `queries` are tables of `_id` and `text`; of a large corpus only the documents that are
    needed are kept. The corpus must hold every candidate; a relevant document that it lacks cannot be handed to the
    model, but counts as missed under `trec`.
    """

    name: str
    run: str
    qrels: str
    corpus: str
    queries: str
    rerank_k: int = 100
    at_k: int = 10
    always_rerank_positives: bool = False
    with_titles: bool = True
    protocol: Protocols = "trec"
    relevant_from: int = 1

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"name must be a word without a slash, got {self.name!r}")
        refuse_below_one(rerank_k=self.rerank_k, at_k=self.at_k, relevant_from=self.relevant_from)

    @property
    def datasets(self) -> Sequence[str]:
        """The one name."""
        return [self.name]

    def assets(self) -> Sequence[Asset]:
        """Return nothing: the files are local."""
        return ()

    @cached_property
    def tasks(self) -> Sequence[RerankingTask]:
        """The one task.

        Raises:
            DataError: a file is missing or broken, or a candidate has no text.
        """
        queries = read_texts(Path(self.queries))
        qrels = read_qrels(Path(self.qrels), None, None)
        ranked = read_ranking(Path(self.run), queries, None)
        judged = {q: None for q in ranked if any(g >= self.relevant_from for g in qrels.get(q, {}).values())}
        warn_of(self.run, "relevant document in the qrels", [q for q in ranked if q not in judged], len(ranked))
        if not judged:
            raise DataError(f"{self.run} and {self.qrels}: no query with a relevant document is in both")
        kept = {query: ranked[query][: self.rerank_k] for query in judged}
        wanted = {d for q in judged for d in (*kept[q], *qrels[q])}
        return [
            RerankingTask(
                name=self.name,
                queries={query: queries[query] for query in judged},
                documents=read_texts(Path(self.corpus), self.with_titles, wanted),
                candidates=kept,
                qrels=qrels,
                at_k=self.at_k,
                always_rerank_positives=self.always_rerank_positives,
                protocol=self.protocol,
                relevant_from=self.relevant_from,
            )
        ]
