"""What is to be reranked: the lists of a TREC run or of a table, one question at a time, with their texts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crossrank.data.fingerprint import file_fingerprint
from crossrank.data.readers import Row, is_unicode, read_rows
from crossrank.errors import ConfigError, DataError
from crossrank.evaluation.formats import trec_lists
from crossrank.inference.text_store import UNKNOWN, TextStore, text_store

QUERIES_PER_LOOK = 1000  # after so many, what was read of the mapped texts is let go


class Asked(NamedTuple):
    """A question and its candidates, the first stage's best first."""

    query_id: str
    query: str
    ids: Sequence[str]  # of the documents
    texts: Sequence[str]


class Totals(NamedTuple):
    """How much there is to do."""

    queries: int
    pairs: int


class _Listed(NamedTuple):
    row: int
    query_id: str
    query: str | None  # where the list itself holds the text
    ids: list[str]
    texts: list[str] | None


def refuse_unless_one(**given: object) -> None:
    """Check that one thing is to be reranked, of a question, a run and a table of candidates.

    Raises:
        ConfigError: there is none, or there are several.
    """
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        got = " and ".join(names) or "none of them"
        raise ConfigError([f"one of query, run and candidates is to be reranked, got {got}"])


@dataclass(frozen=True)
class RerankInputs:
    """The lists of `run` (TREC's six columns) or of `candidates`, of which the first `rerank_k` each are taken.

    A row of `candidates` has `query`, `query_id` or both, and `documents` (texts), `ids` or both; without ids,
    documents are called by their places from 0, and a question without an id by its row. Texts that are not there are
    those of `queries` and `corpus`: a file with `_id` and `text`, or a folder in the BEIR shape. Where `queries` is not
    given, it is the folder of the corpus.

    Raises:
        ConfigError: not one of `run` and `candidates` is given, or a run's texts are not.
    """

    run: Path | None
    candidates: Path | None
    queries: Path | None
    corpus: Path | None
    rerank_k: int
    with_titles: bool
    cache_dir: Path

    def __post_init__(self) -> None:
        refuse_unless_one(run=self.run, candidates=self.candidates)
        if self.run and (self.corpus is None or (self.queries is None and not self.corpus.is_dir())):
            raise ConfigError(["run holds ids alone: give corpus=FILE and queries=FILE, or corpus=FOLDER with both"])

    @property
    def file(self) -> Path:
        """The lists."""
        return self.run or self.candidates or Path()

    def identity(self) -> dict[str, Any]:
        """Return by name what the scores depend on."""
        return {
            "run" if self.run else "candidates": file_fingerprint(self.file),
            "queries": self._queries and self._queries.name,
            "corpus": self._corpus and self._corpus.name,
            "rerank_k": self.rerank_k,
        }

    def check(self) -> Totals:
        """Go through all lists once.

        Raises:
            DataError: a file is missing or broken, an id is not known, stands twice, or has blanks, which a TREC run
                cannot hold.
        """
        pairs, seen = 0, set()
        for number, one in enumerate(self._lists()):
            if one.query_id in seen:
                raise self._error(one, f"the query {one.query_id!r} stands here a second time")
            seen.add(one.query_id)
            self._check(one)
            pairs += len(one.ids)
            if number % QUERIES_PER_LOOK == 0:
                self.let_go()
        return Totals(len(seen), pairs)

    def asked(self, done: int = 0) -> Iterator[Asked]:
        """Yield the questions after the first `done`."""
        for number, one in enumerate(self._lists()):
            if number >= done:
                query = self._queries.texts([one.query_id])[0] if one.query is None and self._queries else one.query
                texts = self._corpus.texts(one.ids) if one.texts is None and self._corpus else one.texts
                yield Asked(one.query_id, query or "", one.ids, texts or [])

    def let_go(self) -> None:
        """Take what was read of the mapped texts out of memory."""
        for store in (self._queries, self._corpus):
            if store:
                store.let_go()

    @cached_property
    def _corpus(self) -> TextStore | None:
        return text_store(self.corpus, "corpus", self.with_titles, self.cache_dir) if self.corpus else None

    @cached_property
    def _queries(self) -> TextStore | None:
        place = self.queries or (self.corpus if self.run else None)
        return text_store(place, "queries", False, self.cache_dir) if place else None

    def _lists(self) -> Iterator[_Listed]:
        if self.run:
            lists = (_Listed(row, query, None, ids, None) for row, query, ids in trec_lists(self.run))
        else:
            lists = (self._listed(number, row) for number, row in read_rows(self.file))
        for one in lists:
            kept = one.texts and one.texts[: self.rerank_k]
            yield one._replace(ids=one.ids[: self.rerank_k], texts=kept)

    def _listed(self, number: int, row: Row) -> _Listed:
        texts, ids = row.get("documents"), row.get("ids")
        found = texts if ids is None else ids
        query = row.get("query")
        one = _Listed(number, str(row.get("query_id", number)), query, [], texts)
        if query is None and row.get("query_id") is None:
            raise self._error(one, f"no 'query' and no 'query_id'; the columns are: {', '.join(map(str, row))}")
        if query is not None and not (isinstance(query, str) and query.strip() and is_unicode(query)):
            raise self._error(one, f"'query' must be a text, got {query!r:.60}")
        if not isinstance(found, list) or not found:
            raise self._error(one, f"'documents' or 'ids' must be a list that is not empty, got {found!r:.60}")
        if texts is not None and (not isinstance(texts, list) or len(texts) != len(found)):
            raise self._error(one, "'documents' and 'ids' must be lists of one length")
        bad = next((x for x in texts or [] if not isinstance(x, str) or not is_unicode(x)), None)
        if texts is not None and (bad is not None or None in texts):
            raise self._error(one, f"'documents' must be texts, got {bad!r:.60}")
        return one._replace(ids=list(map(str, range(len(found)) if ids is None else ids)))

    def _check(self, one: _Listed) -> None:
        blank = next((key for key in (one.query_id, *one.ids) if len(key.split()) != 1), None)
        if blank is not None:
            raise self._error(one, f"the id {blank!r} has blanks or is empty, which a TREC run cannot hold")
        if len(set(one.ids)) < len(one.ids):
            twice = next(key for place, key in enumerate(one.ids) if key in one.ids[:place])
            raise self._error(one, f"ranks the document {twice!r} of query {one.query_id!r} a second time")
        if one.query is None:
            self._known(one, [one.query_id], self._queries, "query", self.queries or self.corpus)
        if one.texts is None:
            self._known(one, one.ids, self._corpus, "document", self.corpus)

    def _known(self, one: _Listed, ids: list[str], store: TextStore | None, kind: str, place: Path | None) -> None:
        if store is None:
            key = "queries" if kind == "query" else "corpus"
            raise self._error(one, f"holds no text of the {kind} {ids[0]!r}; give {key}=FILE")
        missing = np.flatnonzero(store.rows(ids) == UNKNOWN)
        if len(missing):
            raise self._error(one, f"names the {kind} {ids[missing[0]]!r}, which is not in {place}")

    def _error(self, one: _Listed, what: str) -> DataError:
        return DataError(f"{self.file}, row {one.row}: {what}")
