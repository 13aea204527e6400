"""Bad collections: one clear DataError that names the file and the row."""

import json

import pytest
from test_collection import QUERIES, collection, write

from crossrank.errors import DataError
from crossrank.evaluation.collection import Collection


def prepare(folder):
    Collection([str(folder)]).prepare()


def check(error, *parts):
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


def test_missing_folder(tmp_path):
    with pytest.raises(DataError) as error:
        prepare(tmp_path / "nowhere")
    check(error, tmp_path / "nowhere", "no such folder")


@pytest.mark.parametrize("stem", ["corpus", "queries", "qrels"])
def test_missing_file(tmp_path, stem):
    folder = collection(tmp_path / "c")
    (folder / f"{stem}.jsonl").unlink()
    with pytest.raises(DataError) as error:
        prepare(folder)
    check(error, folder, f"no {stem} file", f"{stem}.parquet")


BAD_ROWS = {
    "a document twice": ("corpus", {"_id": "d2", "text": "again"}, ["row 5", "'d2'", "unique"]),
    "a query's id twice": ("queries", {"_id": "q1", "text": "again"}, ["row 3", "'q1'", "unique"]),
    "a document without text": ("corpus", {"_id": "d9", "text": " ", "title": ""}, ["row 5", "'d9'", "empty"]),
    "a query without text": ("queries", {"_id": "q9", "text": ""}, ["row 3", "'q9'", "empty"]),
    "a document with null": ("corpus", {"_id": "d9", "text": None}, ["row 5", "no 'text'"]),
    "a wrong column": ("queries", {"id": "q9", "text": "x"}, ["row 3", "no '_id'", "id, text"]),
    "an unknown document": ("qrels", {"query-id": "q1", "corpus-id": "d77", "score": 1}, ["row 4", "document 'd77'"]),
    "an unknown query": ("qrels", {"query-id": "q77", "corpus-id": "d1", "score": 1}, ["row 4", "query 'q77'"]),
    "a judgement of nothing": ("qrels", {"query-id": "q1", "score": 1}, ["row 4", "no 'corpus-id'"]),
    "a score in words": ("qrels", {"query-id": "q1", "corpus-id": "d1", "score": "high"}, ["row 4", "'high'"]),
    "a run of no list": ("bm25", {"query-id": "q2", "corpus-ids": "d1"}, ["row 3", "must be a list", "'d1'"]),
    "a run of an empty list": ("bm25", {"query-id": "q2", "corpus-ids": []}, ["row 3", "must be a list"]),
    "a run without a list": ("bm25", {"query-id": "q2"}, ["row 3", "must be a list"]),
    "a run of a query twice": ("bm25", {"query-id": "q2", "corpus-ids": ["d1"]}, ["row 3", "'q2'", "second time"]),
    "a run of an unknown document": ("bm25", {"query-id": "q3", "corpus-ids": ["d77"]}, ["row 3", "document 'd77'"]),
    "a run of an unknown query": ("bm25", {"query-id": "q77", "corpus-ids": ["d1"]}, ["row 3", "query 'q77'"]),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_row_is_named_by_file_and_number(tmp_path, case):
    stem, row, parts = BAD_ROWS[case]
    folder = collection(tmp_path / "c")
    write(folder, "queries", [*QUERIES, {"_id": "q3", "text": "not in the run yet"}] if stem == "bm25" else QUERIES)
    with (folder / f"{stem}.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")
    with pytest.raises(DataError) as error:
        prepare(folder)
    check(error, folder / f"{stem}.jsonl", *parts)


@pytest.mark.parametrize("stem", ["corpus", "queries", "qrels", "bm25"])
def test_bytes_that_are_not_utf8(tmp_path, stem):
    folder = collection(tmp_path / "c")
    with (folder / f"{stem}.jsonl").open("ab") as stream:
        stream.write('{"_id": "é", "text": "x"}\n'.encode("latin-1"))
    with pytest.raises(DataError) as error:
        prepare(folder)
    check(error, folder / f"{stem}.jsonl", "not UTF-8", "row ")


def test_truncated_gz(tmp_path):
    folder = collection(tmp_path / "c", "jsonl.gz")
    file = folder / "corpus.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(DataError) as error:
        prepare(folder)
    check(error, file, "truncated", "row ")


@pytest.mark.parametrize("stem", ["corpus", "queries", "qrels", "bm25"])
def test_empty_file(tmp_path, stem):
    folder = collection(tmp_path / "c")
    (folder / f"{stem}.jsonl").write_text("")
    with pytest.raises(DataError) as error:
        prepare(folder)
    check(error, folder / f"{stem}.jsonl", "no rows")


def test_line_that_is_not_json(tmp_path):
    folder = collection(tmp_path / "c")
    with (folder / "corpus.jsonl").open("a") as stream:
        stream.write("{oops\n")
    with pytest.raises(DataError) as error:
        prepare(folder)
    check(error, folder / "corpus.jsonl", "row 5", "cannot be parsed")


def test_candidates_without_any_positive(tmp_path):
    run = [{"query-id": "q1", "corpus-ids": ["d3"]}, {"query-id": "q2", "corpus-ids": ["d3", "d1"]}]
    with pytest.raises(DataError) as error:
        prepare(collection(tmp_path / "c", bm25=run))
    check(error, "c:", "no query has a relevant document among its candidates")


def test_qrels_of_nothing_but_0(tmp_path):
    with pytest.raises(DataError) as error:
        prepare(collection(tmp_path / "c", qrels=[{"query-id": "q1", "corpus-id": "d1", "score": 0}]))
    check(error, "c:", "no query")
