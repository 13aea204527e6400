"""A run from elsewhere: its base values are what ir-measures says of it."""

import json
import logging

import ir_measures
import numpy as np
import pytest
from conftest import SHARED, needs_shared_data
from ir_measures import AP, nDCG

from crossrank.errors import DataError
from crossrank.evaluation.trec_run import TrecRun

CORPUS = {"d1": "one", "d2": "two", "d3": "three", "d4": "four"}
QUERIES = {"q1": "first", "q2": "second", "q3": "third"}


def write(folder, qrels, run, corpus=CORPUS):
    folder.mkdir(exist_ok=True)
    for stem, texts in (("corpus", corpus), ("queries", QUERIES)):
        lines = (json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items())
        (folder / f"{stem}.jsonl").write_text("".join(lines))
    (folder / "qrels.txt").write_text("".join(f"{q} 0 {d} {grade}\n" for q, d, grade in qrels))
    (folder / "run.trec").write_text("".join(f"{q} Q0 {d} {i} {-i} x\n" for i, (q, d) in enumerate(run)))
    names = {"run": "run.trec", "qrels": "qrels.txt", "corpus": "corpus.jsonl", "queries": "queries.jsonl"}
    return {key: str(folder / name) for key, name in names.items()}


def test_base_values_are_ir_measures(tmp_path):
    files = write(
        tmp_path, [("q1", "d2", 2), ("q1", "d3", 1), ("q2", "d1", 1), ("q2", "gone", 3)],
        [("q1", "d1"), ("q1", "d2"), ("q1", "d3"), ("q2", "d4"), ("q2", "d1")],
    )  # fmt: skip
    rows = TrecRun("mine", **files)(lambda pairs: np.zeros(len(pairs), np.float32)).rows
    found = rows.pivot(index="query_id", columns="metric", values="base_value")
    qrels, run = ir_measures.read_trec_qrels(files["qrels"]), ir_measures.read_trec_run(files["run"])
    for m in ir_measures.iter_calc([AP, nDCG @ 10], list(qrels), list(run)):
        name = {AP: "trec_map", nDCG @ 10: "trec_ndcg@10"}[m.measure]
        assert found.loc[m.query_id, name] == pytest.approx(m.value, abs=1e-12)
    assert found.loc["q2", "trec_map"] < 1 / 2  # a relevant document that nobody has the text of counts as missed


def test_only_the_first_rerank_k_are_reranked_and_unjudged_queries_are_left_out(tmp_path, caplog):
    files = write(tmp_path, [("q1", "d2", 1)], [("q1", "d1"), ("q1", "d2"), ("q1", "d3"), ("q3", "d4")])
    asked = []

    def score(pairs):
        asked.extend(pairs)
        return np.zeros(len(pairs), np.float32)

    with caplog.at_level(logging.WARNING):
        TrecRun("mine", **files, rerank_k=2)(score)
    assert asked == [("first", "one"), ("first", "two")]
    assert "1 of 2 queries have no relevant document in the qrels" in caplog.text


@pytest.mark.parametrize(
    ("qrels", "run", "message"),
    [
        ([("q1", "d1", 1)], [("q1", "gone"), ("q1", "d1")], "1 candidates have no text, the first is 'gone'"),
        ([("q1", "d1", 1)], [("q9", "d1")], "names the query 'q9'"),
        ([("q1", "d1", 0)], [("q1", "d1")], "no query with a relevant document is in both"),
        ([("q2", "d1", 1)], [("q1", "d1")], "no query with a relevant document is in both"),
    ],
)
def test_what_does_not_fit_together_is_said(tmp_path, qrels, run, message):
    with pytest.raises(DataError, match=message):
        TrecRun("mine", **write(tmp_path, qrels, run)).prepare()


@pytest.mark.parametrize("options", [{"name": ""}, {"name": "a/b"}, {"rerank_k": 0}, {"at_k": 0}, {"relevant_from": 0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        TrecRun(**({"name": "x", "run": "r", "qrels": "q", "corpus": "c", "queries": "q"} | options))


@needs_shared_data
def test_dl19_with_its_grades(tmp_path):
    """BM25's run of TREC DL 2019 over the judged passages that have a text; graded gains, grade 2 is relevant."""
    import gzip

    folder = SHARED / "nano-msmarco-dl19"

    def rows(stem):
        with gzip.open(folder / f"{stem}.jsonl.gz", "rt", encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]

    run, qrels = tmp_path / "bm25.trec", tmp_path / "qrels.txt"
    ranked = [(row["query-id"], i, d) for row in rows("bm25") for i, d in enumerate(row["corpus-ids"])]
    run.write_text("".join(f"{q} Q0 {d} {i} {1000 - i} bm25\n" for q, i, d in ranked))
    qrels.write_text("".join(f"{r['query-id']} 0 {r['corpus-id']} {r['score']}\n" for r in rows("qrels_graded")))
    texts = {stem: str(folder / f"{stem}.jsonl.gz") for stem in ("corpus", "queries")}
    evaluation = TrecRun("dl19", str(run), str(qrels), relevant_from=2, **texts)(
        lambda pairs: np.asarray([len(text) % 89 for _, text in pairs], np.float32)
    )
    measures = [AP(rel=2), nDCG @ 10]
    judged, ranked = (list(read(str(file))) for read, file in (
        (ir_measures.read_trec_qrels, qrels), (ir_measures.read_trec_run, run),
    ))  # fmt: skip
    means = evaluation.means().loc["dl19"]
    expected = ir_measures.calc_aggregate(measures, judged, ranked)
    assert means.loc["trec_map", "base_value"] == pytest.approx(expected[AP(rel=2)], abs=1e-12)
    assert means.loc["trec_ndcg@10", "base_value"] == pytest.approx(expected[nDCG @ 10], abs=1e-12)
    assert means.loc["trec_ndcg@10", "value"] < means.loc["trec_ndcg@10", "ceiling"] < 1
