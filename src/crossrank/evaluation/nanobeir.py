"""NanoBEIR: 50 queries of each of 13 BEIR sets with BM25's top 100, from the hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import datasets

from crossrank.errors import DataError
from crossrank.evaluation import Evaluation, Scorer
from crossrank.evaluation.reranking import RerankingTask, evaluate_tasks
from crossrank.hub import Asset, resolve

NAMES = {
    name.lower(): name
    for name in (
        "ClimateFEVER", "DBPedia", "FEVER", "FiQA2018", "HotpotQA", "MSMARCO", "NFCorpus", "NQ", "QuoraRetrieval",
        "SCIDOCS", "ArguAna", "SciFact", "Touche2020",
    )
}  # fmt: skip


@dataclass(frozen=True)
class NanoBEIR:
    """The named sets of a NanoBEIR-shaped hub data set, reranked to depth `rerank_k`, positives included.

    Source: sentence-transformers' CrossEncoderNanoBEIREvaluator 6.2, whose names (`NanoNQ_R100`) and base values it
    gives. Another language is another `path`.
    """

    names: list[str]
    path: str = "sentence-transformers/NanoBEIR-en"
    revision: str | None = None
    rerank_k: int = 100
    at_k: int = 10
    always_rerank_positives: bool = True

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name.lower() not in NAMES]
        if unknown or not self.names:
            raise ValueError(f"names must be some of {', '.join(NAMES)}, got {unknown or 'none'}")
        if self.rerank_k < 1 or self.at_k < 1:
            raise ValueError(f"rerank_k and at_k must be at least 1, got {self.rerank_k} and {self.at_k}")

    @property
    def datasets(self) -> Sequence[str]:
        """Names as sentence-transformers writes them."""
        return [f"Nano{NAMES[name.lower()]}_R{self.rerank_k}" for name in self.names]

    def assets(self) -> Sequence[Asset]:
        """Return the hub data set at its pinned revision."""
        return (Asset("dataset", self.path, self.revision),)

    def prepare(self) -> None:
        """Load the sets, fetching them where needed."""
        self._tasks  # noqa: B018 - loading is what the property does

    def __call__(self, score: Scorer) -> Evaluation:
        """Rerank every set."""
        return evaluate_tasks(self._tasks, score)

    @cached_property
    def _tasks(self) -> list[RerankingTask]:
        return [self._task(f"Nano{NAMES[name.lower()]}") for name in self.names]

    def _task(self, split: str) -> RerankingTask:
        corpus = dict(self._columns("corpus", split, "_id", "text"))
        queries = dict(self._columns("queries", split, "_id", "text"))
        ranked = dict(self._columns("bm25", split, "query-id", "corpus-ids"))
        positives: dict[str, dict[str, None]] = {}  # a judgement that stands twice counts once
        for query, found in self._columns("qrels", split, "query-id", "corpus-id"):
            positives.setdefault(query, {}).update(dict.fromkeys(found if isinstance(found, list) else [found]))
        return RerankingTask(
            name=f"{split}_R{self.rerank_k}",
            queries={query: queries[query] for query in ranked},
            candidates={query: [corpus[d] for d in ids[: self.rerank_k]] for query, ids in ranked.items()},
            positives={query: [corpus[d] for d in positives.get(query, ())] for query in ranked},
            at_k=self.at_k,
            always_rerank_positives=self.always_rerank_positives,
        )

    def _columns(self, subset: str, split: str, key: str, value: str) -> "zip[tuple[str, Any]]":
        table = datasets.load_dataset(str(resolve(self.assets()[0])), subset, split=split)
        if not {key, value} <= set(table.column_names):
            raise DataError(
                f"{self.path}, {subset}: columns {key!r} and {value!r} are wanted, got {table.column_names}"
            )
        return zip(table[key][:], table[value][:], strict=True)
