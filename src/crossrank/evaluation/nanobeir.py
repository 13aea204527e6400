"""NanoBEIR: 50 queries of each of 13 BEIR sets with BM25's top 100, from the hub."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import datasets

from crossrank.errors import DataError
from crossrank.evaluation import Protocols, refuse_below_one
from crossrank.evaluation.reranking import OverTasks, RerankingTask
from crossrank.hub import Asset, resolve

NAMES = {
    name.lower(): name
    for name in (
        "ClimateFEVER", "DBPedia", "FEVER", "FiQA2018", "HotpotQA", "MSMARCO", "NFCorpus", "NQ", "QuoraRetrieval",
        "SCIDOCS", "ArguAna", "SciFact", "Touche2020",
    )
}  # fmt: skip
ENGLISH = "sentence-transformers/NanoBEIR-en"
PUBLISHED = {"NanoMSMARCO": 0.5404, "NanoNFCorpus": 0.3250, "NanoNQ": 0.5006}  # BM25's NDCG@10 of the first 100

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NanoBEIR(OverTasks):
    """The named sets of a NanoBEIR-shaped hub data set, reranked to depth `rerank_k`, positives included.

    Source: sentence-transformers' CrossEncoderNanoBEIREvaluator 6.2, whose names (`NanoNQ_R100`) and base values it
    gives; where its documentation tells a set's base NDCG@10, a differing one is warned of. Another language is another
    `path`.
    """

    names: list[str]
    path: str = ENGLISH
    revision: str | None = None
    rerank_k: int = 100
    at_k: int = 10
    always_rerank_positives: bool = True
    protocol: Protocols = "st"

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name.lower() not in NAMES]
        if unknown or not self.names:
            raise ValueError(f"names must be some of {', '.join(NAMES)}, got {unknown or 'none'}")
        refuse_below_one(rerank_k=self.rerank_k, at_k=self.at_k)

    @property
    def datasets(self) -> Sequence[str]:
        """Names as sentence-transformers writes them."""
        return [f"Nano{NAMES[name.lower()]}_R{self.rerank_k}" for name in self.names]

    def assets(self) -> Sequence[Asset]:
        """Return the hub data set at its pinned revision."""
        return (Asset("dataset", self.path, self.revision),)

    @cached_property
    def tasks(self) -> Sequence[RerankingTask]:
        """One a set, fetched where needed.

        Raises:
            DataError: a subset, a set or a column is not there.
        """
        tasks = {split: self._task(split) for split in (f"Nano{NAMES[name.lower()]}" for name in self.names)}
        if self.path == ENGLISH and (self.rerank_k, self.at_k) == (100, 10):
            for split in tasks.keys() & PUBLISHED.keys():
                _compare(split, tasks[split])
        return list(tasks.values())

    def _task(self, split: str) -> RerankingTask:
        corpus = dict(self._columns("corpus", split, "_id", "text"))
        queries = dict(self._columns("queries", split, "_id", "text"))
        ranked = dict(self._columns("bm25", split, "query-id", "corpus-ids"))
        qrels: dict[str, dict[str, int]] = {}  # a judgement that stands twice counts once
        for query, found in self._columns("qrels", split, "query-id", "corpus-id"):
            qrels.setdefault(query, {}).update(dict.fromkeys(found if isinstance(found, list) else [found], 1))
        return RerankingTask(
            name=f"{split}_R{self.rerank_k}",
            queries={query: queries[query] for query in ranked},
            documents=corpus,
            candidates={query: ids[: self.rerank_k] for query, ids in ranked.items()},
            qrels=qrels,
            at_k=self.at_k,
            always_rerank_positives=self.always_rerank_positives,
            protocol=self.protocol,
        )

    def _columns(self, subset: str, split: str, key: str, value: str) -> "zip[tuple[str, Any]]":
        try:
            table = datasets.load_dataset(str(resolve(self.assets()[0])), subset, split=split)
        except ValueError as error:  # no such subset or split
            raise DataError(
                f"{self.path} is not of NanoBEIR's shape, with subsets corpus, queries, qrels and bm25 and a split "
                f"{split}: {' '.join(str(error).split())}"
            ) from error
        if not {key, value} <= set(table.column_names):
            raise DataError(
                f"{self.path}, {subset}: columns {key!r} and {value!r} are wanted, got {table.column_names}"
            )
        return zip(table[key][:], table[value][:], strict=True)


def _compare(split: str, task: RerankingTask) -> None:
    found = task.first_stage_ndcg
    if abs(found - PUBLISHED[split]) > 1e-4:
        log.warning(
            "%s: BM25's NDCG@10 is %.4f, where sentence-transformers publishes %.4f: the data are not those of the "
            "published figures, which do not compare", split, found, PUBLISHED[split],
        )  # fmt: skip
