"""The trec protocol against ir-measures: graded gains, ties by document id, missed documents, grades that matter."""

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, nDCG

from crossrank.evaluation.metrics import trec_metrics
from crossrank.evaluation.reranking import RerankingTask

IDS = [f"d{i}" for i in range(14)]


@st.composite
def collections(draw):
    """A few queries with grades 0..3, relevant documents that are not retrieved, and scores of few levels: ties."""
    qrels, run = {}, {}
    for q in range(draw(st.integers(1, 4))):
        judged = draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=9, unique=True))
        qrels[f"q{q}"] = {d: draw(st.integers(0, 3)) for d in judged}
        retrieved = draw(st.lists(st.sampled_from(IDS), max_size=9, unique=True))
        run[f"q{q}"] = {d: draw(st.sampled_from([0.0, 0.25, 0.5, 1.5])) for d in retrieved}
    return qrels, run


def reference(qrels, run, k, relevant_from):
    """[queries, 3]; RR is cut by hand: for RR@k ir-measures asks a provider that breaks ties another way."""
    judged = [ir_measures.Qrel(q, d, grade) for q, grades in qrels.items() for d, grade in grades.items()]
    ranked = [ir_measures.ScoredDoc(q, d, score) for q, scores in run.items() for d, score in scores.items()]
    measures = [AP(rel=relevant_from), RR(rel=relevant_from), nDCG @ k]
    found = {(m.query_id, m.measure): m.value for m in ir_measures.iter_calc(measures, judged, ranked)}
    table = np.asarray([[found.get((q, measure), 0.0) for measure in measures] for q in qrels])
    table[:, 1] = np.where(table[:, 1] >= 1 / k, table[:, 1], 0)
    return table


@settings(max_examples=200)
@given(collections(), st.sampled_from([1, 3, 10]), st.sampled_from([1, 2]))
def test_equals_ir_measures(case, k, relevant_from):
    qrels, run = case
    found = trec_metrics(qrels, run, k, relevant_from)
    expected = reference(qrels, run, k, relevant_from)
    np.testing.assert_allclose(np.stack(found[:3], axis=1), expected, atol=1e-12)


def test_hand_worked():
    """Ranked c (1), then b before a, because their scores tie and trec_eval puts the higher id first; x is missed."""
    qrels = {"q": {"a": 2, "c": 1, "x": 3}}
    found = trec_metrics(qrels, {"q": {"a": 0.5, "b": 0.5, "c": 0.9}}, 10)
    ideal = 3 + 2 / np.log2(3) + 1 / 2
    assert found.ndcg == pytest.approx((1 + 2 / 2) / ideal)  # gains 1, 0, 2 at ranks 1, 2, 3
    assert found.map == pytest.approx((1 / 1 + 2 / 3) / 3)
    assert (found.mrr, found.first_rank) == (1, 1)
    assert trec_metrics(qrels, {"q": {"a": 0.5, "b": 0.5, "c": 0.9}}, 10, relevant_from=2).first_rank == 3


def test_a_query_without_a_ranking_counts_0():
    found = trec_metrics({"q": {"a": 1}, "r": {"a": 1}}, {"q": {"a": 1.0}, "r": {}}, 10)
    assert found.map.tolist() == [1, 0]
    assert np.isnan(found.first_rank).tolist() == [False, True]


def random_task(seed, **options):
    """Five queries over 40 documents, two of them with the same text, graded, some relevant ones not retrieved."""
    draws = np.random.default_rng(seed)
    documents = {f"d{i:02}": f"text {i}" for i in range(40)} | {"twin": "text 3"}
    queries = {f"q{q}": f"question {q}" for q in range(5)}
    candidates = {q: list(draws.choice(sorted(documents), 12, replace=False)) for q in queries}
    qrels = {}
    for q in queries:
        chosen = [*draws.choice(candidates[q], 3, replace=False), *draws.choice(sorted(documents), 3, replace=False)]
        qrels[q] = {str(d): int(draws.integers(0, 4)) for d in chosen}
        qrels[q][candidates[q][0]] = 3
    return RerankingTask("t", queries, documents, candidates, qrels, **options)


def scorer(levels=6):
    return lambda pairs: np.asarray([sum(map(ord, q + d)) * 7919 % 31 % levels for q, d in pairs], np.float32)


def trec_rows(task, score):
    rows = task.evaluate(score).rows
    rows = rows[rows["metric"].str.startswith("trec_")]
    return {key: part.pivot(index="query_id", columns="metric", values=key).to_numpy()
            for key in ("value", "base_value", "ceiling") for part in [rows]}  # fmt: skip


@pytest.mark.parametrize("relevant_from", [1, 2])
@pytest.mark.parametrize("options", [
    {"protocol": "trec"},
    {"protocol": "st", "always_rerank_positives": True},
    {"protocol": "st", "always_rerank_positives": False},
])  # fmt: skip
def test_a_task_equals_ir_measures_on_the_reranked_run(options, relevant_from):
    """Whatever st hands to the model: under trec only what the first stage retrieved can be found."""
    for seed in range(10):
        task = random_task(seed, relevant_from=relevant_from, **options)
        score = scorer()
        found = trec_rows(task, score)
        reranked = {
            q: dict(zip(ids, map(float, score([(task.queries[q], task.documents[d]) for d in ids])), strict=True))
            for q, ids in task.candidates.items()
        }
        first_stage = {q: {d: -float(i) for i, d in enumerate(ids)} for q, ids in task.candidates.items()}
        perfect = {q: {d: float(task.qrels[q].get(d, 0)) for d in ids} for q, ids in task.candidates.items()}
        for key, run in (("value", reranked), ("base_value", first_stage), ("ceiling", perfect)):
            expected = reference(task.qrels, run, 10, relevant_from)  # map, mrr, ndcg: the order of the names too
            np.testing.assert_allclose(found[key], expected, atol=1e-12, err_msg=f"{key}, seed {seed}")


def test_no_score_is_computed_twice_for_the_second_protocol():
    calls = []

    def score(pairs):
        calls.append(list(pairs))
        return scorer()(pairs)

    task = random_task(0)
    task.evaluate(score)
    assert len(calls) == 1
    assert calls[0] == task.pairs


def test_trec_alone_scores_candidates_alone():
    task = random_task(1, protocol="trec")
    assert task.pairs == [(task.queries[q], task.documents[d]) for q, ids in task.candidates.items() for d in ids]
    assert set(task.evaluate(scorer()).rows["metric"]) == {"trec_map", "trec_mrr@10", "trec_ndcg@10"}


def test_a_candidate_that_stands_twice_counts_at_its_first_place():
    options = {"documents": {"a": "A", "b": "B"}, "qrels": {"q": {"b": 1}}, "queries": {"q": "x"}, "protocol": "trec"}
    once = RerankingTask("t", candidates={"q": ["a", "b"]}, **options).evaluate(scorer())
    twice = RerankingTask("t", candidates={"q": ["a", "b", "a", "b"]}, **options).evaluate(scorer())
    assert once.rows.equals(twice.rows)
    assert len(twice.scores) == 2


def test_a_relevant_document_without_text_counts_as_missed():
    task = RerankingTask(
        "t", {"q": "x"}, {"a": "A", "b": "B"}, {"q": ["a", "b"]}, {"q": {"a": 1, "gone": 1}}, protocol="trec"
    )
    rows = task.evaluate(lambda pairs: np.asarray([1, 0], np.float32)).rows.set_index("metric")
    assert rows.loc["trec_map", "value"] == rows.loc["trec_map", "ceiling"] == 0.5
