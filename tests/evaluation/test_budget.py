"""Rerank depths against RerankingTask.evaluate at both ends, and sentence-transformers and ir-measures between them."""

import zlib

import numpy as np
import pandas as pd
import pytest
from ir_measures import ScoredDoc, iter_calc, nDCG
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

from crossrank.errors import DataError
from crossrank.evaluation.budget import candidate_scores, depth_curve, depth_metrics
from crossrank.evaluation.reranking import RerankingTask, evaluate_tasks
from crossrank.evaluation.significance import stratified_interval

SIZE = 12
KINDS = [
    {"protocol": "st", "always_rerank_positives": True},
    {"protocol": "st", "always_rerank_positives": False},
    {"protocol": "trec"},
    {"protocol": "st", "always_rerank_positives": False, "relevant_from": 2},
    {"protocol": "trec", "relevant_from": 2},
]


def score(pairs):
    """Return scores of a few levels: there are ties."""
    return np.asarray([sum(map(ord, q + d)) * 7919 % 31 % 6 for q, d in pairs], np.float32)


def without_ties(pairs):
    return np.asarray([zlib.crc32((q + d).encode()) % 2**20 for q, d in pairs], np.float32)


def random_task(seed, missed=2, **options):
    """Five queries over 40 documents, two of them with the same text; `missed` relevant ones are not retrieved."""
    draws = np.random.default_rng(seed)
    documents = {f"d{i:02}": f"text {i}" for i in range(40)} | {"twin": "text 3"}
    queries = {f"q{q}": f"question {q}" for q in range(5)}
    candidates, qrels = {}, {}
    for q in queries:
        candidates[q] = list(draws.choice(sorted(set(documents) - {"twin", "d03"}), SIZE, replace=False))
        if q == "q1":
            candidates[q][-2:] = ["d03", "twin"]
        others = sorted(set(documents) - set(candidates[q]) - {"twin", "d03"})
        chosen = [*draws.choice(candidates[q][:-2], 3, replace=False), *draws.choice(others, missed, replace=False)]
        qrels[q] = {str(d): int(draws.integers(1, 4)) for d in chosen}
    qrels["q4"] = {d: 1 for d in documents if d not in candidates["q4"]}  # nothing found
    return RerankingTask("t", queries, documents, candidates, qrels, **options)


def columns(evaluation, task, key):
    rows = evaluation.rows[evaluation.rows["metric"].str.startswith("trec_") == (task.protocol == "trec")]
    return rows.pivot(index="query_id", columns="metric", values=key).loc[list(task.queries)].to_numpy().T


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_depth_0_is_the_first_stage(options, seed):
    task = random_task(seed, **options)
    evaluation = task.evaluate(score)
    found = depth_metrics(task, evaluation.scores, 0)
    np.testing.assert_array_equal(found[:3], columns(evaluation, task, "base_value"))
    assert 0 < found.ndcg.max() < 1


@pytest.mark.parametrize("depth", [SIZE, SIZE + 50])
@pytest.mark.parametrize(("options", "missed"), [*((kind, 0) for kind in KINDS), (KINDS[2], 2)])
@pytest.mark.parametrize("seed", range(5))
def test_the_whole_depth_is_the_evaluation(options, missed, seed, depth):
    """Under st only where the first stage missed nothing of a query that it found something of.

    always_rerank_positives puts the positives first in the list, where the metric reads a tie in another order.
    """
    task = random_task(seed, missed, **options)
    if options.get("always_rerank_positives"):
        task.qrels["q4"] = {task.candidates["q4"][5]: 1}
    evaluation = task.evaluate(without_ties if options.get("always_rerank_positives") else score)
    found = depth_metrics(task, evaluation.scores, depth)
    np.testing.assert_array_equal(found[:3], columns(evaluation, task, "value"))
    assert not np.array_equal(found.ndcg, depth_metrics(task, evaluation.scores, 0).ndcg)


@pytest.mark.parametrize("depth", [1, 5, SIZE])
@pytest.mark.parametrize("seed", range(5))
def test_between_them_it_is_sentence_transformers_metric_of_the_combined_order(seed, depth):
    """Missed documents stand last; scores far apart keep the three parts in their order."""
    task = random_task(seed, always_rerank_positives=False)
    found = depth_metrics(task, task.evaluate(score).scores, depth)
    reference = CrossEncoderRerankingEvaluator([{"query": "", "positive": [""], "documents": [""]}], at_k=10)
    for i, (query, ids) in enumerate(list(task.candidates.items())[:4]):
        texts = {task.documents[d] for d in task.qrels[query]}
        labels = [int(task.documents[d] in texts) for d in ids]
        head = 100 + score([(task.queries[query], task.documents[d]) for d in ids[:depth]])
        missed = len(texts) - sum(labels)
        order = np.concatenate([head, -np.arange(SIZE - depth), -100.0 - np.arange(missed)])
        expected = reference.compute_metrics(labels + [1] * missed, order)
        np.testing.assert_allclose([found.mrr[i], found.ndcg[i], found.map[i]], expected, atol=1e-12)
    assert (found.mrr[4], found.ndcg[4], found.map[4]) == (0, 0, 0)


@pytest.mark.parametrize("depth", [1, 5, SIZE])
@pytest.mark.parametrize("seed", range(5))
def test_between_them_it_is_ir_measures_ndcg_of_the_combined_run(seed, depth):
    task = random_task(seed, protocol="trec")
    run = []
    for query, ids in list(task.candidates.items())[:4]:
        scores = score([(task.queries[query], task.documents[d]) for d in ids]).astype(float)
        run += [ScoredDoc(query, d, 100 + scores[i] if i < depth else -float(i)) for i, d in enumerate(ids)]
    expected = {m.query_id: m.value for m in iter_calc([nDCG @ 10], dict(task.qrels), run)}
    found = depth_metrics(task, task.evaluate(score).scores, depth).ndcg
    np.testing.assert_allclose(found, [expected.get(query, 0.0) for query in task.queries], atol=1e-12)


def test_hand_worked():
    """Relevant c is third: depth 2 leaves it there, depth 3 puts it first; the missed m is in the ideal of both."""
    task = RerankingTask(
        "t", {"q": "x"}, {d: d.upper() for d in "abcm"}, {"q": ["a", "b", "c"]}, {"q": {"c": 1, "m": 1}}
    )
    scores = task.evaluate(lambda pairs: np.asarray([ord(d) for _, d in pairs], np.float32)).scores
    ideal = 1 + 1 / np.log2(3)
    missed = 1 / np.log2(5)  # in the fourth place
    assert depth_metrics(task, scores, 2).ndcg == pytest.approx((1 / 2 + missed) / ideal)
    assert depth_metrics(task, scores, 3).ndcg == pytest.approx((1 + missed) / ideal)
    assert depth_metrics(task, scores, 3).mrr == 1


def test_a_candidate_that_stands_twice_is_scored_as_its_text():
    task = random_task(3)
    scores = task.evaluate(score).scores
    found = candidate_scores(task, scores)
    assert list(found["q1"]) == task.candidates["q1"]
    for query, by_id in found.items():
        pairs = [(task.queries[query], task.documents[d]) for d in by_id]
        np.testing.assert_array_equal(list(by_id.values()), score(pairs))


def test_the_curve_has_every_dataset_and_their_mean():
    tasks = [random_task(seed, always_rerank_positives=False) for seed in range(2)]
    object.__setattr__(tasks[1], "name", "u")
    evaluation = evaluate_tasks(tasks, score)
    curve = depth_curve(tasks, evaluation.scores, [0, 5]).set_index(["dataset", "depth"])
    assert set(curve["metric"]) == {"ndcg@10"}
    by_query = [depth_metrics(task, evaluation.scores, 5).ndcg for task in tasks]
    for name, strata in {"t": by_query[:1], "u": by_query[1:], "mean": by_query}.items():
        row = curve.loc[(name, 5)]
        np.testing.assert_allclose([row["value"], row["low"], row["high"]], stratified_interval(strata), atol=1e-12)
    assert curve.loc[("mean", 0), "value"] == pytest.approx(evaluation.means().loc[("mean", "ndcg@10"), "base_value"])


def test_what_cannot_be_answered_is_refused():
    task = random_task(0)
    scores = task.evaluate(score).scores
    with pytest.raises(ValueError, match="at least 0, got -1"):
        depth_metrics(task, scores, -1)
    with pytest.raises(DataError, match="no first stage"):
        depth_metrics(random_task(0, ranked=False), scores, 5)
    with pytest.raises(DataError, match=r"query 'q0'; give the scores of an evaluation of the same lists"):
        depth_metrics(task, pd.concat([scores.iloc[:2], scores[scores["query_id"] != "q0"]]), 5)
