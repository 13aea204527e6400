"""TREC files against ir-measures' readers; BEIR's own layout; what is broken is named by file and row."""

import gzip
import json

import ir_measures
import numpy as np
import pytest

from crossrank.errors import DataError
from crossrank.evaluation.collection import Collection
from crossrank.evaluation.formats import read_qrels, read_ranking, read_texts

RUN = """\
q1 Q0 d3 1 9.5 bm25
q1 Q0 d1 3 2.25 bm25
q1\tQ0\td2\t2\t2.25\tbm25
q2 Q0 d1 1 -1 bm25
"""
QRELS = "q1 0 d1 2\nq1 0 d9 0\n\nq2 0 d1 1\nq2 0 d2 -1\n"


def write(file, content):
    raw = content.encode()
    file.write_bytes(gzip.compress(raw) if file.suffix == ".gz" else raw)
    return file


@pytest.mark.parametrize("name", ["a.trec", "a.txt", "a.run", "a.run.gz"])
def test_a_trec_run_is_ordered_by_score_whatever_its_rank_column_says(tmp_path, name):
    """d2 stands before d1: their scores tie, and trec_eval takes the higher id first."""
    file = write(tmp_path / name, RUN)
    assert read_ranking(file, None, None) == {"q1": ["d3", "d2", "d1"], "q2": ["d1"]}


def test_trec_files_are_read_as_ir_measures_reads_them(tmp_path):
    draws = np.random.default_rng(0)
    lines = [f"q{q} Q0 d{d} 0 {draws.normal():.6f} x" for q in range(4) for d in draws.permutation(30)[:20]]
    file = write(tmp_path / "a.run", "\n".join(lines))
    expected = {}
    for found in ir_measures.read_trec_run(str(file)):
        expected.setdefault(found.query_id, []).append((found.score, found.doc_id))
    ours = read_ranking(file, None, None)
    assert ours == {q: [d for _, d in sorted(found, reverse=True)] for q, found in expected.items()}
    qrels = write(tmp_path / "a.qrels", QRELS)
    assert [(q, d, grade) for q, grades in read_qrels(qrels, None, None).items() for d, grade in grades.items()] == [
        (found.query_id, found.doc_id, found.relevance) for found in ir_measures.read_trec_qrels(str(qrels))
    ]


def test_ties_are_those_of_single_precision(tmp_path):
    """trec_eval holds scores as floats: these two are one score there, so d2 stands first."""
    file = write(tmp_path / "a.run", "q Q0 d1 1 1.00000001 x\nq Q0 d2 2 1.0 x\n")
    assert read_ranking(file, None, None) == {"q": ["d2", "d1"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("q1 Q0 d1 1 2.0\n", "row 1: 6 columns are wanted (query, Q0, document, rank, score, tag), got 5"),
        ("q1 Q0 d1 1 2 x\nq1 Q0 d1 2 1 x\n", "row 2: ranks the document 'd1' of query 'q1' a second time"),
        ("q1 Q0 d1 1 high x\n", "row 1: 'score' must be a number, got 'high'"),
        ("q1 Q0 d1 1 nan x\n", "row 1: 'score' must be a number, got 'nan'"),
        ("q7 Q0 d1 1 1 x\n", "row 1: names the query 'q7', which is not in the collection"),
        ("q1 Q0 d7 1 1 x\n", "row 1: names the document 'd7', which is not in the collection"),
        ("\n", "the file holds no rows"),
    ],
)
def test_a_broken_run_is_named_by_file_and_row(tmp_path, content, message):
    file = write(tmp_path / "a.run", content)
    with pytest.raises(DataError) as caught:
        read_ranking(file, ["q1"], ["d1"])
    assert str(caught.value).startswith(str(file))
    assert message in str(caught.value)


@pytest.mark.parametrize(("grade", "message"), [("1.5", "whole number, got '1.5'"), ("x", "must be a number")])
def test_a_grade_is_a_whole_number(tmp_path, grade, message):
    for file, content in (("a.qrels", f"q 0 d {grade}\n"), ("a.tsv", f"query-id\tcorpus-id\tscore\nq\td\t{grade}\n")):
        with pytest.raises(DataError, match=message):
            read_qrels(write(tmp_path / file, content), None, None)


def test_of_a_large_corpus_only_what_is_wanted_is_kept(tmp_path):
    file = write(
        tmp_path / "corpus.jsonl", "".join(json.dumps({"_id": str(i), "text": f"t{i}"}) + "\n" for i in range(9))
    )
    assert read_texts(file, wanted={"3", "7"}) == {"3": "t3", "7": "t7"}


def test_beirs_own_layout(tmp_path):
    """corpus.jsonl, queries.jsonl and qrels/test.tsv; the first stage is computed for judged queries."""
    folder = tmp_path / "scifact"
    (folder / "qrels").mkdir(parents=True)
    texts = {"d1": "salt of the sea", "d2": "rust on iron", "d3": "bread and yeast", "d4": "wood burns"}
    write(
        folder / "corpus.jsonl",
        "".join(json.dumps({"_id": d, "title": "", "text": t}) + "\n" for d, t in texts.items()),
    )
    queries = {"1": "why is the sea salt", "2": "what is rust", "3": "a train query"}
    write(folder / "queries.jsonl", "".join(json.dumps({"_id": q, "text": t}) + "\n" for q, t in queries.items()))
    write(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\n1\td1\t1\n2\td2\t2\n")
    write(folder / "qrels" / "train.tsv", "query-id\tcorpus-id\tscore\n3\td3\t1\n")
    (task,) = Collection([str(folder)], rerank_k=2).tasks
    assert list(task.queries) == ["1", "2"]
    assert task.qrels == {"1": {"d1": 1}, "2": {"d2": 2}}
    assert [ids[0] for ids in task.candidates.values()] == ["d1", "d2"]
    (train,) = Collection([str(folder)], split="train").tasks
    assert list(train.queries) == ["3"]
    with pytest.raises(DataError, match=r"no qrels file; looked for qrels.jsonl.*qrels/dev.tsv"):
        Collection([str(folder)], split="dev").prepare()
