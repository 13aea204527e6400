"""Collections on disk: every shape, the first stage, and base values that others published."""

import csv
import gzip
import json
import logging
from itertools import product
from types import SimpleNamespace

import bm25s
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import Stemmer
from conftest import SHARED, needs_shared_data
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

from crossrank.evaluation.collection import Collection
from crossrank.evaluation.formats import bm25_run

FORMATS = ("jsonl", "jsonl.gz", "csv", "parquet")
CORPUS = [
    {"_id": "d1", "title": "Tides", "text": "The moon moves the sea twice a day."},
    {"_id": "d2", "title": "", "text": "Bread rises because yeast makes gas."},
    {"_id": "d3", "title": "Rust", "text": "Iron and water and air make rust."},
    {"_id": "d4", "title": "Sea salt", "text": "Rivers carry salt to the sea."},
]
QUERIES = [{"_id": "q1", "text": "why is the sea salty"}, {"_id": "q2", "text": "why does bread rise"}]
QRELS = [
    {"query-id": "q1", "corpus-id": "d4", "score": 2},
    {"query-id": "q1", "corpus-id": "d1", "score": 0},
    {"query-id": "q2", "corpus-id": "d2", "score": 1},
]
RUN = [{"query-id": "q1", "corpus-ids": ["d1", "d4", "d3"]}, {"query-id": "q2", "corpus-ids": ["d2", "d3"]}]


def write(folder, stem, rows, suffix="jsonl"):
    folder.mkdir(exist_ok=True)
    file = folder / f"{stem}.{suffix}"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if suffix == "jsonl":
        file.write_text(lines, encoding="utf-8")
    elif suffix == "jsonl.gz":
        file.write_bytes(gzip.compress(lines.encode()))
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return file


def collection(folder, suffix="jsonl", corpus=CORPUS, queries=QUERIES, qrels=QRELS, bm25=RUN):
    write(folder, "corpus", corpus, suffix)
    write(folder, "queries", queries, suffix)
    write(folder, "qrels", qrels, suffix)
    if bm25 is not None:
        write(folder, "bm25", bm25, "jsonl" if suffix == "csv" else suffix)  # csv has no lists
    return folder


def seen(folder, **options):
    """What the scorer is given: the documents of each question, in order."""
    asked = {}

    def score(pairs):
        for question, text in pairs:
            asked.setdefault(question, []).append(text)
        return np.zeros(len(pairs), np.float32)

    Collection([str(folder)], **({"always_rerank_positives": False} | options))(score)
    return asked


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_reads_the_same(tmp_path, suffix):
    assert seen(collection(tmp_path / "c", suffix), with_titles=False) == {
        "why is the sea salty": [CORPUS[0]["text"], CORPUS[3]["text"], CORPUS[2]["text"]],
        "why does bread rise": [CORPUS[1]["text"], CORPUS[2]["text"]],
    }


def test_titles_stand_before_the_text(tmp_path):
    documents = seen(collection(tmp_path / "c"), with_titles=True)["why is the sea salty"]
    assert documents[0] == "Tides The moon moves the sea twice a day."
    assert seen(tmp_path / "c", with_titles=True)["why does bread rise"][0] == CORPUS[1]["text"]  # an empty title


def test_only_the_first_rerank_k_candidates_are_reranked(tmp_path):
    folder = collection(tmp_path / "c")
    assert [len(documents) for documents in seen(folder, rerank_k=2).values()] == [2, 2]


def test_qrels_of_score_0_are_not_relevant_and_higher_grades_count_once(tmp_path):
    """The base ranking of q1 is d1 (score 0), d4 (score 2), d3: the first hit is at rank 2."""
    rows = Collection([str(collection(tmp_path / "c"))])(lambda pairs: np.zeros(len(pairs), np.float32)).rows
    base = rows.set_index(["query_id", "metric"])["base_value"]
    assert base["q1", "mrr@10"] == pytest.approx(1 / 2)
    assert base["q1", "ndcg@10"] == pytest.approx(1 / np.log2(3))


def test_qrels_may_have_no_score_and_lists_of_documents(tmp_path):
    qrels = [{"query-id": "q1", "corpus-id": ["d4", "d3"]}, {"query-id": "q2", "corpus-id": ["d2"]}]
    rows = Collection([str(collection(tmp_path / "c", qrels=qrels))])(lambda pairs: np.zeros(len(pairs))).rows
    base = rows.set_index(["query_id", "metric"])["base_value"]
    assert base["q1", "map"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_a_judgement_that_stands_twice_counts_once(tmp_path):
    once = Collection([str(collection(tmp_path / "once"))])
    twice = Collection([str(collection(tmp_path / "twice", qrels=[QRELS[0], *QRELS]))])
    values = [found(lambda pairs: np.zeros(len(pairs))).rows.drop(columns="dataset") for found in (once, twice)]
    assert values[0].equals(values[1])


def test_numeric_ids_are_read_as_texts(tmp_path):
    folder = tmp_path / "c"
    write(folder, "corpus", [{"_id": 1, "text": "one"}, {"_id": 2, "text": "two"}], "parquet")
    write(folder, "queries", [{"_id": 7, "text": "which"}], "parquet")
    write(folder, "qrels", [{"query-id": 7, "corpus-id": 2, "score": 1}], "csv")
    write(folder, "bm25", [{"query-id": 7, "corpus-ids": [1, 2]}], "jsonl")
    assert seen(folder) == {"which": ["one", "two"]}


def random_texts(count, words, seed):
    draws = np.random.default_rng(seed)
    vocabulary = [f"{a}{b}{c}" for a, b, c in product("bdgkt", "aeiou", ["lmx", "rnd", "sks", "zpf"])]
    sizes = draws.integers(words // 2, 2 * words, count)  # of different lengths, so that few scores tie
    return [" ".join(vocabulary[i % len(vocabulary)] for i in draws.zipf(1.3, size)) for size in sizes]


def test_without_bm25_file_the_first_stage_is_bm25s_top_k(tmp_path):
    documents, questions, k = random_texts(300, 25, seed=0), random_texts(20, 4, seed=1), 12
    ids = [f"d{i}" for i in range(len(documents))]
    stemmer = Stemmer.Stemmer("english")
    index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    index.index(bm25s.tokenize(documents, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False)
    asked = bm25s.tokenize(questions, stopwords="en", stemmer=stemmer, show_progress=False)
    expected, scores = index.retrieve(asked, k=k + 1, show_progress=False)
    found = bm25_run(dict(enumerate(questions)), dict(zip(ids, documents, strict=True)), k)
    compared = 0
    for q, ranked in found.items():
        assert len(ranked) == k
        untied = [r for r in range(k) if np.sum(np.isclose(scores[q], scores[q][r])) == 1]
        assert [ranked[r] for r in untied] == [ids[expected[q][r]] for r in untied]
        compared += len(untied)
    assert compared > 150  # of 240; the order of ties is bm25s's own affair

    corpus = [{"_id": i, "text": text} for i, text in zip(ids, documents, strict=True)]
    queries = [{"_id": f"q{i}", "text": text} for i, text in enumerate(questions)]
    qrels = [{"query-id": f"q{i}", "corpus-id": found[i][3], "score": 1} for i in range(len(questions))]
    folder = collection(tmp_path / "c", corpus=corpus, queries=queries, qrels=qrels, bm25=None)
    text_of = dict(zip(ids, documents, strict=True))
    assert seen(folder, rerank_k=k) == {questions[i]: [text_of[d] for d in found[i]] for i in range(len(questions))}


@needs_shared_data
@pytest.mark.parametrize(
    ("name", "expected"),
    [("nano-msmarco-dl19", 0.4663), ("nano-nfcorpus", 0.3218), ("nano-nq", 0.7415), ("nano-cranfield", 0.3606)],
)
def test_base_value_is_what_the_data_card_and_sentence_transformers_say(name, expected):
    folder = SHARED / name

    def rows(stem):
        with gzip.open(folder / f"{stem}.jsonl.gz", "rt", encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]

    def score(pairs):
        return np.asarray([len(text) % 97 for _, text in pairs], np.float32)

    texts = {row["_id"]: row["text"] for row in rows("corpus")}
    relevant = {}
    for row in rows("qrels"):
        relevant.setdefault(row["query-id"], []).append(texts[row["corpus-id"]])
    asked = {row["_id"]: row["text"] for row in rows("queries")}
    samples = [
        {
            "query": asked[row["query-id"]],
            "positive": relevant[row["query-id"]],
            "documents": [texts[d] for d in row["corpus-ids"][:100]],
        }
        for row in rows("bm25")
    ]
    model = SimpleNamespace(
        predict=lambda pairs, **options: score(pairs),
        model_card_data=SimpleNamespace(set_evaluation_metrics=lambda *args: None),
    )
    reference = CrossEncoderRerankingEvaluator(samples, name="r", write_csv=False)(model)
    metrics = Collection([str(folder)])(score).metrics("e")
    assert round(metrics[f"eval/e/{name}/base_ndcg@10"], 4) == expected
    for key, value in reference.items():
        assert metrics[f"eval/e/{name}/{key.removeprefix('r_')}"] == pytest.approx(value, abs=1e-12)


def test_a_query_without_judgement_is_left_out_with_a_counted_warning(tmp_path, caplog):
    queries = [*QUERIES, {"_id": "q3", "text": "unjudged"}, {"_id": "q4", "text": "judged 0"}]
    qrels = [*QRELS, {"query-id": "q4", "corpus-id": "d3", "score": 0}]
    run = [*RUN, {"query-id": "q3", "corpus-ids": ["d1"]}, {"query-id": "q4", "corpus-ids": ["d3"]}]
    asked = seen(collection(tmp_path / "c", queries=queries, qrels=qrels, bm25=run), always_rerank_positives=True)
    assert list(asked) == [row["text"] for row in QUERIES]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "2 of 4 queries have no judged document" in warnings[0]


def test_a_judged_query_that_the_run_lacks_is_left_out_with_its_own_warning(tmp_path, caplog):
    assert list(seen(collection(tmp_path / "c", bm25=RUN[:1]))) == ["why is the sea salty"]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "1 of 2 queries have no candidates" in warnings[0]


def test_nothing_is_warned_of_when_all_is_well(tmp_path, caplog):
    seen(collection(tmp_path / "c"))
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paths": []}, "at least one"),
        ({"paths": ["a"], "rerank_k": 0}, "rerank_k"),
        ({"paths": ["a"], "at_k": 0}, "at_k"),
        ({"paths": ["x/same", "y/same"]}, "must differ"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Collection(**options)


def test_several_folders_give_a_dataset_each_and_reading_happens_once(tmp_path):
    for name in ("one", "two"):
        collection(tmp_path / name)
    evaluator = Collection([str(tmp_path / "one"), str(tmp_path / "two")])
    evaluator.prepare()
    for file in tmp_path.rglob("*.jsonl"):
        file.unlink()
    rows = evaluator(lambda pairs: np.zeros(len(pairs), np.float32)).rows
    assert list(rows["dataset"].unique()) == list(evaluator.datasets) == ["one", "two"]
