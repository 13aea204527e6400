"""Reranking collections on disk in the BEIR or NanoBEIR shape."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from crossrank.data.readers import SUFFIXES
from crossrank.errors import DataError
from crossrank.evaluation import Protocols, refuse_below_one
from crossrank.evaluation.formats import Ranking, bm25_run, find, read_qrels, read_ranking, read_texts
from crossrank.evaluation.reranking import OverTasks, RerankingTask
from crossrank.hub import Asset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collection(OverTasks):
    """Folders with `corpus`, `queries` and `qrels` (jsonl, jsonl.gz, csv, tsv or parquet) and, if there is one, `bm25`.

    `corpus` and `queries` have columns `_id` and `text` (a corpus may have `title`, which is put before the text
    when `with_titles`); `qrels`, or `qrels/<split>` as in BEIR, has `query-id`, `corpus-id` and, optionally, `score`:
    a grade, relevant from `relevant_from` on. `bm25` has `query-id` and `corpus-ids`, best first. Without it, the first
    stage is computed with bm25s. The first `rerank_k` candidates are reranked. A dataset is called after its folder.
    """

    paths: list[str]
    rerank_k: int = 100
    at_k: int = 10
    always_rerank_positives: bool = True
    with_titles: bool = True
    protocol: Protocols = "st"
    relevant_from: int = 1
    split: str = "test"

    def __post_init__(self) -> None:
        if not self.paths:
            raise ValueError("paths must name at least one collection folder, got none")
        refuse_below_one(rerank_k=self.rerank_k, at_k=self.at_k, relevant_from=self.relevant_from)
        names = [Path(path).name for path in self.paths]
        if len(set(names)) < len(names):
            raise ValueError(f"collections are called after their folders, which must differ, got {names}")

    @property
    def datasets(self) -> Sequence[str]:
        """The folders' names."""
        return [Path(path).name for path in self.paths]

    def assets(self) -> Sequence[Asset]:
        """Return nothing: the folders are local."""
        return ()

    @cached_property
    def tasks(self) -> Sequence[RerankingTask]:
        """One a folder.

        Raises:
            DataError: a file is missing or broken, an id is not unique or not known.
        """
        return [self._read(Path(path)) for path in self.paths]

    def _read(self, folder: Path) -> RerankingTask:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; a collection is a folder with corpus, queries and qrels")
        corpus = read_texts(_file(folder, "corpus"), self.with_titles)
        queries = read_texts(_file(folder, "queries"))
        qrels = read_qrels(_file(folder, "qrels", f"qrels/{self.split}"), queries, corpus)
        judged = {
            query: text for query, text in queries.items()
            if any(grade >= self.relevant_from for grade in qrels.get(query, {}).values())
        }  # fmt: skip
        ranked = self._first_stage(folder, corpus, queries, judged)
        warn_of(folder, "judged document", [query for query in queries if query not in judged], len(queries))
        warn_of(folder, "candidates", [query for query in judged if query not in ranked], len(queries))
        kept = {query: ids for query, ids in ranked.items() if query in judged}
        return RerankingTask(
            name=folder.name,
            queries={query: queries[query] for query in kept},
            documents=corpus,
            candidates={query: ids[: self.rerank_k] for query, ids in kept.items()},
            qrels=qrels,
            at_k=self.at_k,
            always_rerank_positives=self.always_rerank_positives,
            protocol=self.protocol,
            relevant_from=self.relevant_from,
        )

    def _first_stage(
        self, folder: Path, corpus: dict[str, str], queries: dict[str, str], judged: dict[str, str]
    ) -> Ranking:
        if file := find(folder, "bm25"):
            return read_ranking(file, queries, corpus)
        log.info("%s: no bm25 file, so the first stage is computed with bm25s", folder)
        return bm25_run(judged, corpus, self.rerank_k) if judged else {}


def warn_of(place: object, lack: str, left_out: Sequence[str], queries: int) -> None:
    """Say how many queries are left out and why."""
    if left_out:
        log.warning("%s: %d of %d queries have no %s and are left out", place, len(left_out), queries, lack)


def _file(folder: Path, *stems: str) -> Path:
    found = find(folder, *stems)
    if found is None:
        names = ", ".join(stem + suffix for stem in stems for suffix in SUFFIXES)
        raise DataError(f"{folder}: no {stems[0]} file; looked for {names}")
    return found
