"""Reranking collections on disk in the BEIR or NanoBEIR shape."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from crossrank.data.miners.bm25 import BM25Miner
from crossrank.data.readers import SUFFIXES, Row, read_rows
from crossrank.errors import DataError
from crossrank.evaluation import Evaluation, Scorer
from crossrank.evaluation.reranking import RerankingTask, evaluate_tasks
from crossrank.hub import Asset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collection:
    """Folders with `corpus`, `queries` and `qrels` (jsonl, jsonl.gz, csv or parquet) and, if there is one, `bm25`.

    `corpus` and `queries` have columns `_id` and `text` (a corpus may have `title`, which is put before the text
    when `with_titles`); `qrels` has `query-id`, `corpus-id` and, optionally, `score` (rows of 0 are not relevant);
    `bm25` has `query-id` and `corpus-ids`, best first. Without it, the first stage is computed with bm25s. The first
    `rerank_k` candidates are reranked. A dataset is called after its folder.
    """

    paths: list[str]
    rerank_k: int = 100
    at_k: int = 10
    always_rerank_positives: bool = True
    with_titles: bool = True

    def __post_init__(self) -> None:
        if not self.paths:
            raise ValueError("paths must name at least one collection folder, got none")
        if self.rerank_k < 1 or self.at_k < 1:
            raise ValueError(f"rerank_k and at_k must be at least 1, got {self.rerank_k} and {self.at_k}")
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

    def prepare(self) -> None:
        """Read the folders.

        Raises:
            DataError: a file is missing or broken, an id is not unique or not known.
        """
        self._tasks  # noqa: B018 - reading is what the property does

    def __call__(self, score: Scorer) -> Evaluation:
        """Rerank every folder."""
        return evaluate_tasks(self._tasks, score)

    @cached_property
    def _tasks(self) -> list[RerankingTask]:
        return [self._read(Path(path)) for path in self.paths]

    def _read(self, folder: Path) -> RerankingTask:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; a collection is a folder with corpus, queries and qrels")
        corpus = _texts(_file(folder, "corpus"), self.with_titles)
        queries = _texts(_file(folder, "queries"), False)
        judged = _judgements(_file(folder, "qrels"), corpus, queries)
        ranked = self._first_stage(folder, corpus, queries)
        kept = [query for query in ranked if judged.get(query)]
        _warn_of(folder, "judged document", [query for query in queries if not judged.get(query)], len(queries))
        _warn_of(folder, "candidates", [query for query in judged if query not in ranked], len(queries))
        return RerankingTask(
            name=folder.name,
            queries={query: queries[query] for query in kept},
            candidates={query: [corpus[d] for d in ranked[query][: self.rerank_k]] for query in kept},
            positives={query: [corpus[d] for d in judged[query]] for query in kept},
            at_k=self.at_k,
            always_rerank_positives=self.always_rerank_positives,
        )

    def _first_stage(self, folder: Path, corpus: dict[str, str], queries: dict[str, str]) -> dict[str, list[str]]:
        if _find(folder, "bm25") is not None:
            return _run(_file(folder, "bm25"), corpus, queries)
        log.info("%s: no bm25 file, so the first stage is computed with bm25s", folder)
        return bm25_run(queries, corpus, self.rerank_k)


def _warn_of(folder: Path, lack: str, left_out: Sequence[str], queries: int) -> None:
    if left_out:
        log.warning("%s: %d of %d queries have no %s and are left out", folder, len(left_out), queries, lack)


def bm25_run(queries: dict[str, str], corpus: dict[str, str], depth: int) -> dict[str, list[str]]:
    """Return the ids of the best `depth` documents of each query under BM25, best first."""
    ids, none = list(corpus), [np.zeros(0, np.int32)] * len(queries)
    blocks = BM25Miner().search(list(queries.values()), list(corpus.values()), depth, none)
    found = np.concatenate([block.ids for block in blocks])
    return {query: [ids[d] for d in row if d >= 0] for query, row in zip(queries, found, strict=True)}


def _find(folder: Path, stem: str) -> Path | None:
    return next((folder / f"{stem}{suffix}" for suffix in SUFFIXES if (folder / f"{stem}{suffix}").is_file()), None)


def _file(folder: Path, stem: str) -> Path:
    found = _find(folder, stem)
    if found is None:
        raise DataError(f"{folder}: no {stem} file; looked for {', '.join(stem + suffix for suffix in SUFFIXES)}")
    return found


def _value(row: Row, column: str, file: Path, number: int) -> str:
    if row.get(column) is None:
        raise DataError(f"{file}, row {number}: no {column!r}; the columns are: {', '.join(map(str, row))}")
    return str(row[column])


def _texts(file: Path, with_titles: bool) -> dict[str, str]:
    texts: dict[str, str] = {}
    for number, row in read_rows(file):
        key, text = _value(row, "_id", file, number), _value(row, "text", file, number)
        if key in texts:
            raise DataError(f"{file}, row {number}: the id {key!r} stands here a second time; ids must be unique")
        title = str(row.get("title") or "") if with_titles else ""
        texts[key] = f"{title} {text}".strip()
        if not texts[key]:
            raise DataError(f"{file}, row {number}: the text of {key!r} is empty")
    return texts


def _judgements(file: Path, corpus: dict[str, str], queries: dict[str, str]) -> dict[str, list[str]]:
    judged: dict[str, dict[str, None]] = {}  # a judgement that stands twice counts once
    for number, row in read_rows(file):
        query = _value(row, "query-id", file, number)
        documents = row.get("corpus-id")
        for document in documents if isinstance(documents, list) else [_value(row, "corpus-id", file, number)]:
            _known(query, queries, "query", file, number)
            _known(str(document), corpus, "document", file, number)
            if _is_relevant(row, file, number):
                judged.setdefault(query, {})[str(document)] = None
    return {query: list(documents) for query, documents in judged.items()}


def _is_relevant(row: Row, file: Path, number: int) -> bool:
    score = row.get("score")
    try:
        return score in (None, "") or float(score) > 0
    except (TypeError, ValueError):
        raise DataError(f"{file}, row {number}: 'score' must be a number, got {score!r}") from None


def _run(file: Path, corpus: dict[str, str], queries: dict[str, str]) -> dict[str, list[str]]:
    ranked: dict[str, list[str]] = {}
    for number, row in read_rows(file):
        query, documents = _value(row, "query-id", file, number), row.get("corpus-ids")
        _known(query, queries, "query", file, number)
        if not isinstance(documents, list) or not documents:
            raise DataError(f"{file}, row {number}: 'corpus-ids' must be a list of document ids, got {documents!r}")
        if query in ranked:
            raise DataError(f"{file}, row {number}: the query {query!r} stands here a second time")
        for document in documents:
            _known(str(document), corpus, "document", file, number)
        ranked[query] = list(map(str, documents))
    return ranked


def _known(key: str, known: Iterable[str], kind: str, file: Path, number: int) -> None:
    if key not in known:
        raise DataError(f"{file}, row {number}: names the {kind} {key!r}, which is not in the collection")
