"""A whole reranking: what it leaves, that its scores are predict's, and that its memory does not grow."""

import json
import logging
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import MINILM

from bench.rerank import measure, write_inputs
from crossrank.errors import AssetError, ConfigError, DataError
from crossrank.inference import rerank_run as module
from crossrank.inference.rerank_inputs import RerankInputs
from crossrank.inference.rerank_run import RerankRun, execute, said
from crossrank.inference.reranker import Reranker
from crossrank.inference.reranker_spec import RerankerSpec
from crossrank.models.backbones import RandomInit
from crossrank.models.export import export

SENTENCE = "how do you write a file of rivers and mountains in python without losing the last line again"
WORDS = SENTENCE.split()


@pytest.fixture(scope="module")
def model(tmp_path_factory, encoder):
    built = RandomInit(MINILM, "bert", hidden_size=32).build(1)
    return export(built, encoder, tmp_path_factory.mktemp("model") / "export")


@pytest.fixture(scope="module")
def beir(tmp_path_factory):
    """A folder with 12 queries, 40 documents, some longer than 64 tokens, and a run of 9 of them a query."""
    folder, draws = tmp_path_factory.mktemp("beir"), np.random.default_rng(3)
    texts = {f"d{i}": " ".join(draws.choice(WORDS, int(n))) for i, n in enumerate(draws.integers(1, 90, 40))}
    texts["d7"] = texts["d3"]
    queries = {f"q{i}": " ".join(draws.choice(WORDS, 4)) for i in range(12)}
    for name, known in (("corpus", texts), ("queries", queries)):
        rows = (json.dumps({"_id": key, "text": text}) + "\n" for key, text in known.items())
        (folder / f"{name}.jsonl").write_text("".join(rows))
    chosen = {q: ["d3", "d7", *draws.choice([d for d in texts if d not in ("d3", "d7")], 7, False)] for q in queries}
    lines = [f"{q} Q0 {d} {i} {-i} bm25\n" for q, found in chosen.items() for i, d in enumerate(found, start=1)]
    (folder / "bm25.trec").write_text("".join(lines))
    return folder, queries, texts, chosen


def made(model, beir, output, pairs_per_chunk=20, depth=9, **options):
    inputs = RerankInputs(beir[0] / "bm25.trec", None, None, beir[0], depth, True, output.parent / "cache")
    return RerankRun(RerankerSpec(str(model)), inputs, output, pairs_per_chunk=pairs_per_chunk, **options)


def test_the_scores_are_those_of_predict_and_the_run_is_their_order(model, beir, tmp_path):
    _, queries, texts, chosen = beir
    facts = execute(made(model, beir, tmp_path / "out"))
    rows = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    reranker = Reranker(str(model))
    pairs = [(queries[row.query_id], texts[row.document_id]) for row in rows.itertuples()]
    np.testing.assert_allclose(rows["score"], reranker.predict(pairs), atol=1e-5, rtol=0)
    np.testing.assert_allclose(1 / (1 + np.exp(-rows["logit"])), rows["score"], atol=1e-6, rtol=0)
    assert rows["truncated"].tolist() == reranker.scorer.truncated(pairs).tolist()
    assert (facts["queries"], facts["pairs"], facts["truncated"]) == (12, 108, rows["truncated"].sum())
    assert 0 < facts["truncated"] < 108
    for query, found in rows.groupby("query_id", sort=False):
        assert found["rank"].tolist() == list(range(1, 10))
        order = sorted(zip(found["logit"], found["document_id"], strict=True), reverse=True)  # d7 stands before d3
        assert found["document_id"].tolist() == [document for _, document in order]
        assert [chosen[query][place - 1] for place in found["first_stage_rank"]] == found["document_id"].tolist()
    lines = [line.split() for line in (tmp_path / "out" / "run.trec").read_text().splitlines()]
    assert [line[:4] for line in lines] == [
        [row.query_id, "Q0", row.document_id, str(row.rank)] for row in rows.itertuples()
    ]
    np.testing.assert_array_equal([np.float32(line[4]) for line in lines], rows["logit"])
    assert said(facts)[1] == f"{facts['truncated']} pairs had more tokens than the model takes and were cut"


def test_top_k_are_the_first_of_what_was_reranked(model, beir, tmp_path):
    execute(made(model, beir, tmp_path / "whole", depth=5))
    facts = execute(made(model, beir, tmp_path / "head", depth=5, top_k=2))
    whole, head = (pd.read_parquet(tmp_path / name / "scores.parquet") for name in ("whole", "head"))
    pd.testing.assert_frame_equal(head, whole[whole["rank"] <= 2].reset_index(drop=True))
    assert facts["pairs"] == 60


def test_the_same_call_goes_on_and_then_has_nothing_left_to_do(model, beir, tmp_path, monkeypatch, caplog):
    execute(made(model, beir, tmp_path / "whole"))
    rerank, calls = module._rerank, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return rerank(*args)

    monkeypatch.setattr(module, "_rerank", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute(made(model, beir, tmp_path / "out"))
    assert execute(made(model, beir, tmp_path / "out"))["already_done"] == 6  # 3 queries of 9 pairs a chunk
    assert len(calls) == 5
    for name in ("run.trec", "scores.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    monkeypatch.setattr(Reranker, "__init__", lambda *_, **__: pytest.fail("loaded"))
    assert execute(made(model, beir, tmp_path / "out"))["already_done"] == 12
    assert "12 of 12 queries are there already" in caplog.text


def test_chunks_hold_whole_questions(model, beir, tmp_path, monkeypatch):
    sizes, rerank = [], module._rerank
    monkeypatch.setattr(module, "_rerank", lambda chunk, *rest: sizes.append(len(chunk)) or rerank(chunk, *rest))
    execute(made(model, beir, tmp_path / "a", pairs_per_chunk=28))
    execute(made(model, beir, tmp_path / "b", pairs_per_chunk=1))
    assert sizes == [4, 4, 4, *[1] * 12]


def test_nothing_is_loaded_where_something_is_wrong(model, beir, tmp_path, monkeypatch):
    monkeypatch.setattr(Reranker, "__init__", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ConfigError, match="output: required and missing"):
        RerankRun(RerankerSpec(str(model)), made(model, beir, tmp_path / "o").inputs, None)
    broken = tmp_path / "broken.trec"
    broken.write_text("q1 Q0 nowhere 1 1 x\n")
    inputs = RerankInputs(broken, None, None, beir[0], 9, True, tmp_path / "cache")
    with pytest.raises(DataError, match="row 1: names the document 'nowhere'"):
        execute(RerankRun(RerankerSpec(str(model)), inputs, tmp_path / "out"))
    with pytest.raises(AssetError, match="no such folder"):
        execute(RerankRun(RerankerSpec("./nowhere"), inputs, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_long_reranking_says_how_far_it_is(model, beir, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("crossrank.data.progress.SECONDS_PER_LINE", 0.0)
    execute(made(model, beir, tmp_path / "out"))
    lines = [r.getMessage() for r in caplog.records if r.name == "crossrank.data.progress" and "reranking" in r.message]
    assert lines[0].startswith("reranking pairs: 27 of 108, about ")
    assert not [r for r in caplog.records if "scoring pairs" in r.getMessage()]


def test_memory_does_not_grow_with_the_pairs(model, tmp_path, monkeypatch):
    """Python's, NumPy's and Arrow's own; that of the products is measured by `python -m bench.rerank`."""
    write_inputs(4000, tmp_path / "beir", documents=20_000)
    inputs = RerankInputs(tmp_path / "beir" / "bm25.trec", None, None, tmp_path / "beir", 100, True, tmp_path / "cache")
    held, rerank = [], module._rerank

    def watched(*args):
        held.append(tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes())
        return rerank(*args)

    monkeypatch.setattr(module, "_rerank", watched)
    tracemalloc.start()
    try:
        execute(RerankRun(RerankerSpec(str(model)), inputs, tmp_path / "out", None, 200))
    finally:
        tracemalloc.stop()
    assert len(held) == 20
    of_texts = 16 * 200 * 30 * 5  # bytes in the documents from the fourth chunk on
    assert held[-1] - held[3] < of_texts / 2


def test_the_bench_says_how_much_memory_a_reranking_took(tmp_path):
    found = measure(300, 100, tmp_path)
    assert found["pairs"] == 300
    assert 50 < found["anonymous_mib"] < found["total_mib"] < 5000
