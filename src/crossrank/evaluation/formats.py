"""Texts, judgements and rankings in the shapes that collections come in: BEIR's, NanoBEIR's and TREC's."""

import math
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from crossrank.data.readers import SUFFIXES, Row, is_unicode, read_lines, read_rows
from crossrank.errors import DataError

TREC_SUFFIXES = tuple(name + end for name in (".trec", ".txt", ".run", ".qrels") for end in ("", ".gz"))

SINGLE, GRADE = float(np.finfo(np.float32).max), 2**31 - 1  # what trec_eval can hold of a score and of a grade

Qrels = dict[str, dict[str, int]]  # query id -> document id -> grade
Ranking = dict[str, list[str]]  # query id -> document ids, best first


def find(folder: Path, *stems: str) -> Path | None:
    """Return the first file in a folder that has one of these names and a suffix that can be read."""
    names = (f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_texts(file: Path, with_titles: bool = False, wanted: Collection[str] | None = None) -> dict[str, str]:
    """Read `_id` and `text`, with the title before the text if wished; of `wanted` ids only, if given.

    Raises:
        DataError: a column is missing, an id stands twice or a text is empty.
    """
    texts: dict[str, str] = {}
    for number, key, text in each_text(file, with_titles, wanted):
        if key in texts:
            raise stands_twice(file, number, key)
        if not text:
            raise DataError(f"{file}, row {number}: the text of {key!r} is empty")
        texts[key] = text
    return texts


def each_text(
    file: Path, with_titles: bool = False, wanted: Collection[str] | None = None
) -> Iterator[tuple[int, str, str]]:
    """Yield the row's number, `_id` and `text`, with the title before the text if wished, one after the other.

    Raises:
        DataError: a column is missing.
    """
    for number, row in read_rows(file):
        key = _value(row, "_id", file, number)
        if wanted is not None and key not in wanted:
            continue
        text = _value(row, "text", file, number)
        title = str(row.get("title") or "") if with_titles else ""
        yield number, key, f"{title} {text}".strip()


def stands_twice(file: Path, number: int, key: str) -> DataError:
    """Return the error of an id that stands in a file a second time, in this row."""
    return DataError(f"{file}, row {number}: the id {key!r} stands here a second time; ids must be unique")


def read_qrels(file: Path, queries: Collection[str] | None, documents: Collection[str] | None) -> Qrels:
    """Read judgements: rows of query-id, corpus-id (one or a list) and score (1 if absent), or TREC's four columns.

    With `queries` and `documents`, an id that is not among them is refused. A judgement that stands twice counts as
    it stood last.

    Raises:
        DataError: a row is broken, names something unknown, or has a grade that is not a whole number.
    """
    judged: Qrels = {}
    for number, query, document, grade in _trec_qrels(file) if file.name.endswith(TREC_SUFFIXES) else _qrels(file):
        _known(query, queries, "query", file, number)
        _known(document, documents, "document", file, number)
        judged.setdefault(query, {})[document] = grade
    return judged


def read_ranking(file: Path, queries: Collection[str] | None, documents: Collection[str] | None) -> Ranking:
    """Read a first stage: rows of query-id and corpus-ids, best first, or a TREC run of six columns.

    A run is ordered as trec_eval orders it: by score, whatever the rank column says, ties by falling document id.

    Raises:
        DataError: a row is broken or names something unknown, or a query (in a run, a pair) stands twice.
    """
    if file.name.endswith(TREC_SUFFIXES):
        return _trec_run(file, queries, documents)
    ranked: Ranking = {}
    for number, row in read_rows(file):
        query, found = _value(row, "query-id", file, number), row.get("corpus-ids")
        _known(query, queries, "query", file, number)
        if not isinstance(found, list) or not found:
            raise DataError(f"{file}, row {number}: 'corpus-ids' must be a list of document ids, got {found!r}")
        if query in ranked:
            raise DataError(f"{file}, row {number}: the query {query!r} stands here a second time")
        for document in found:
            _known(str(document), documents, "document", file, number)
        ranked[query] = list(map(str, found))
    return ranked


def trec_lists(file: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Yield of a TREC run a query's first row, its id and its documents as `read_ranking` orders them.

    One query's lines are in memory at a time, so they must stand together.

    Raises:
        DataError: a row is broken, ranks a document a second time, or belongs to a query that stood before.
    """
    seen: set[str] = set()
    for query, lines in groupby(_trec_lines(file), key=itemgetter(1)):
        found: dict[str, float] = {}
        first = 0
        for number, _, document, score in lines:
            first = first or number
            if query in seen:
                raise DataError(
                    f"{file}, row {number}: the lines of query {query!r} must stand together; sort the file by its "
                    "first column, as by sort -s -k1,1"
                )
            _add(found, query, document, score, file, number)
        seen.add(query)
        yield first, query, _ordered(found)


def bm25_run(queries: dict[str, str], corpus: dict[str, str], depth: int) -> Ranking:
    """Return the ids of the best `depth` documents of each query under BM25, best first."""
    from crossrank.data.miners.bm25 import BM25Miner  # brings torch, for which whoever reads a file need not wait

    ids, none = list(corpus), [np.zeros(0, np.int32)] * len(queries)
    blocks = BM25Miner().search(list(queries.values()), list(corpus.values()), depth, none)
    found = np.concatenate([block.ids for block in blocks])
    return {query: [ids[d] for d in row if d >= 0] for query, row in zip(queries, found, strict=True)}


def _qrels(file: Path) -> Iterator[tuple[int, str, str, int]]:
    for number, row in read_rows(file):
        query, documents = _value(row, "query-id", file, number), row.get("corpus-id")
        score = row.get("score")
        grade = 1 if score in (None, "") else _grade(score, file, number)
        for document in documents if isinstance(documents, list) else [_value(row, "corpus-id", file, number)]:
            yield number, query, str(document), grade


def _trec_qrels(file: Path) -> Iterator[tuple[int, str, str, int]]:
    for number, (query, _, document, grade) in _columns(file, 4, "query, 0, document, grade"):
        yield number, query, document, _grade(grade, file, number)


def _trec_run(file: Path, queries: Collection[str] | None, documents: Collection[str] | None) -> Ranking:
    scored: dict[str, dict[str, float]] = {}
    for number, query, document, score in _trec_lines(file):
        _known(query, queries, "query", file, number)
        _known(document, documents, "document", file, number)
        _add(scored.setdefault(query, {}), query, document, score, file, number)
    return {query: _ordered(found) for query, found in scored.items()}


def _trec_lines(file: Path) -> Iterator[tuple[int, str, str, float]]:
    for number, (query, _, document, _, score, _) in _columns(file, 6, "query, Q0, document, rank, score, tag"):
        yield number, query, document, _number(score, "score", file, number)


def _add(found: dict[str, float], query: str, document: str, score: float, file: Path, number: int) -> None:
    if document in found:
        raise DataError(f"{file}, row {number}: ranks the document {document!r} of query {query!r} a second time")
    found[document] = score


def _ordered(found: dict[str, float]) -> list[str]:
    """Return a query's documents in trec_eval's order: by score in single precision, ties by falling id."""
    return sorted(found, key=lambda document: (np.float32(found[document]), document), reverse=True)


def _columns(file: Path, count: int, names: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in read_lines(file):
        columns = line.split()
        if len(columns) != count:
            raise DataError(f"{file}, row {number}: {count} columns are wanted ({names}), got {len(columns)}")
        yield number, columns


def _value(row: Row, column: str, file: Path, number: int) -> str:
    if row.get(column) is None:
        raise DataError(f"{file}, row {number}: no {column!r}; the columns are: {', '.join(map(str, row))}")
    value = str(row[column])
    if not is_unicode(value):
        raise DataError(f"{file}, row {number}: {column!r} holds half a character, which is no valid Unicode")
    return value


def _number(value: object, name: str, file: Path, number: int) -> float:
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = math.nan
    except OverflowError:  # an integer of hundreds of digits
        found = math.nextafter(math.inf, 0)
    if not abs(found) <= SINGLE:
        why = ", which single precision cannot hold" if math.isfinite(found) else ""
        raise DataError(f"{file}, row {number}: {name!r} must be a number, got {_short(value)}{why}")
    return found


def _grade(value: object, file: Path, number: int) -> int:
    grade = _number(value, "score", file, number)
    if not grade.is_integer() or abs(grade) > GRADE:
        raise DataError(f"{file}, row {number}: 'score' is a grade and must be a whole number, got {_short(value)}")
    return int(grade)


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _known(key: str, known: Iterable[str] | None, kind: str, file: Path, number: int) -> None:
    if known is not None and key not in known:
        raise DataError(f"{file}, row {number}: names the {kind} {key!r}, which is not in the collection")
