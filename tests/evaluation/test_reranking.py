"""RerankingTask against sentence-transformers' CrossEncoderRerankingEvaluator, query by query and on average."""

import logging
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

from crossrank.errors import DataError
from crossrank.evaluation import metric_names
from crossrank.evaluation.reranking import RerankingTask, evaluate_tasks

NAMES = ("map", "mrr@10", "ndcg@10")


def by_texts(name, queries, candidates, positives, **options):
    """A task whose documents are called by their texts; a positive that stands twice is a document of its own."""
    documents = {text: text for texts in (*candidates.values(), *positives.values()) for text in texts}
    qrels = {}
    for query, texts in positives.items():
        for text in texts:
            grades = qrels.setdefault(query, {})
            key = text if text not in grades else f"{text}, again"
            documents[key] = text
            grades[key] = 1
    return RerankingTask(name, queries, documents, candidates, qrels, **options)


class GivenScores:
    """Gives a pair the score that stands at its position; records what it was asked, by us and by the reference."""

    model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *args: None)

    def __init__(self, seed, levels):
        self.seed, self.levels, self.asked = seed, levels, []

    def __call__(self, pairs):
        self.asked.append([tuple(pair) for pair in pairs])
        draws = np.random.default_rng(self.seed)
        scores = draws.integers(0, self.levels, len(pairs)) if self.levels else draws.permutation(len(pairs))
        return scores.astype(np.float32) / 8

    def predict(self, pairs, **options):
        return self(pairs)


def random_queries(draws):
    """A few queries with 1..4 positives each, retrieved or not, among up to 30 candidates, some of them twice."""
    queries, candidates, positives = {}, {}, {}
    for q in range(int(draws.integers(1, 5))):
        key = f"q{q}"
        queries[key] = f"question {q}"
        relevant = [f"relevant {q} {i}" for i in range(draws.integers(1, 5))]
        others = [f"other {q} {i}" for i in range(draws.integers(3, 30))]
        found = [text for text in relevant if draws.random() < 0.6]
        if q == 0 and not found:
            found = relevant[:1]  # a task in which the first stage finds nothing at all is refused
        texts = [*found, *others]
        repeated = [texts[i] for i in draws.integers(0, len(texts), draws.integers(0, 3))]
        texts = [*texts, *repeated]
        candidates[key] = [texts[i] for i in draws.permutation(len(texts))]
        positives[key] = [relevant[i] for i in draws.permutation(len(relevant))]
        if draws.random() < 0.2:
            positives[key].append(positives[key][0])
    return queries, candidates, positives


def reference(queries, candidates, positives, always, model, at_k=10):
    samples = [{"query": queries[q], "positive": positives[q], "documents": candidates[q]} for q in queries]
    evaluator = CrossEncoderRerankingEvaluator(
        samples, at_k=at_k, always_rerank_positives=always, name="t", write_csv=False
    )
    return {key.removeprefix("t_"): value for key, value in evaluator(model).items()}


def ours(evaluation):
    means = evaluation.rows.groupby("metric")[["value", "base_value"]].mean().loc[list(NAMES)]
    return {name: row.value for name, row in means.iterrows()} | {
        f"base_{name}": row.base_value for name, row in means.iterrows()
    }


@pytest.mark.parametrize(("always", "levels"), list(product([True, False], [None, 2, 6])))
def test_equals_sentence_transformers(always, levels):
    for seed in range(25):
        queries, candidates, positives = random_queries(np.random.default_rng(seed))
        ranker, model = GivenScores(seed, levels), GivenScores(seed, levels)
        evaluation = by_texts("t", queries, candidates, positives, always_rerank_positives=always).evaluate(ranker)
        expected = reference(queries, candidates, positives, always, model)
        assert ranker.asked == model.asked  # one call, the same pairs in the same order: ties depend on it
        assert ours(evaluation) == pytest.approx(expected, abs=1e-12), f"seed {seed}"


@pytest.mark.parametrize("always", [True, False])
def test_each_query_equals_sentence_transformers_alone(always):
    """The mean could hide two errors that cancel: here each query is a reference evaluation of its own."""

    def by_text(pairs):
        return np.asarray([hash_of(*pair) for pair in pairs], np.float32)

    def hash_of(question, text):
        return sum(map(ord, question + text)) * 7919 % 5  # few levels: ties

    model = SimpleNamespace(
        predict=lambda pairs, **options: by_text(pairs), model_card_data=GivenScores.model_card_data
    )
    for seed in range(15):
        queries, candidates, positives = random_queries(np.random.default_rng(1000 + seed))
        task = by_texts("t", queries, candidates, positives, at_k=4, always_rerank_positives=always)
        rows = task.evaluate(by_text).rows.set_index(["query_id", "metric"])
        for q in queries:
            expected = reference({q: queries[q]}, candidates, positives, always, model, at_k=4)
            for name in ("map", "mrr@4", "ndcg@4"):
                assert rows.loc[(q, name), "value"] == pytest.approx(expected[name], abs=1e-12)
                assert rows.loc[(q, name), "base_value"] == pytest.approx(expected[f"base_{name}"], abs=1e-12)


def task_of(candidates, positives, **options):
    return by_texts("t", {q: f"question {q}" for q in candidates}, candidates, positives, **options)


def values(evaluation, query, column="value"):
    rows = evaluation.rows[evaluation.rows["query_id"] == query].set_index("metric")[column]
    return tuple(rows[list(NAMES)])


def test_hand_worked_base_and_reranked():
    """One of two positives retrieved at rank 2; a perfect model. The missed one counts as last in the base only."""
    task = task_of({"q": ["a", "P1", "b"]}, {"q": ["P1", "P2"]}, always_rerank_positives=False)
    evaluation = task.evaluate(lambda pairs: np.asarray([text.startswith("P") for _, text in pairs], np.float32))
    assert values(evaluation, "q") == (1, 1, 1)
    ideal = 1 + 1 / np.log2(3)
    expected = ((1 / 2 + 2 / 4) / 2, 1 / 2, (1 / np.log2(3) + 1 / np.log2(5)) / ideal)
    assert values(evaluation, "q", "base_value") == pytest.approx(expected)


def test_a_query_whose_positives_were_not_retrieved_stays_in_the_mean():
    candidates, positives = {"hit": ["P", "a"], "miss": ["b", "c"]}, {"hit": ["P"], "miss": ["Q"]}
    seen = []

    def score(pairs):
        seen.extend(pairs)
        return np.arange(len(pairs), 0, -1, dtype=np.float32)

    strict = task_of(candidates, positives, always_rerank_positives=False).evaluate(score)
    assert values(strict, "miss") == values(strict, "miss", "base_value") == (0, 0, 0)
    assert {question for question, _ in seen} == {"question hit"}  # nothing is predicted for it
    lenient = task_of(candidates, positives, always_rerank_positives=True).evaluate(score)
    assert values(lenient, "miss") == (1, 1, 1)
    assert values(lenient, "miss", "base_value") == (0, 0, 0)


def test_a_list_of_one_document_is_defined():
    """sentence-transformers raises here."""
    task = task_of({"q": ["P"], "r": ["a", "R"]}, {"q": ["P"], "r": ["R"]}, always_rerank_positives=False)
    evaluation = task.evaluate(lambda pairs: np.zeros(len(pairs), np.float32))
    assert values(evaluation, "q") == values(evaluation, "q", "base_value") == (1, 1, 1)


def test_rows_are_per_query_and_metric():
    task = task_of({"q": ["P", "a"], "r": ["a", "R"]}, {"q": ["P"], "r": ["R"]}, at_k=3)
    rows = task.evaluate(lambda pairs: np.zeros(len(pairs), np.float32)).rows
    assert list(rows.columns) == [
        "dataset", "query_id", "metric", "value", "base_value", "ceiling", "first_rank", "base_rank", "truncated",
    ]  # fmt: skip
    assert list(zip(rows["query_id"], rows["metric"], strict=True)) == list(product(["q", "r"], metric_names(3, "st")))
    assert set(rows["dataset"]) == {"t"}


@pytest.mark.parametrize("shape", [(3, 1), (4,), (0,), ()])
def test_scores_of_the_wrong_shape_are_refused(shape):
    task = task_of({"q": ["P", "a", "b"]}, {"q": ["P"]})
    with pytest.raises(DataError, match=r"returned shape .* for 3 pairs"):
        task.evaluate(lambda pairs: np.zeros(shape, np.float32))


def test_nan_scores_are_refused():
    task = task_of({"q": ["P", "a"]}, {"q": ["P"]})
    with pytest.raises(DataError, match="NaN"):
        task.evaluate(lambda pairs: np.asarray([1, np.nan], np.float32))


def test_no_query_is_refused():
    with pytest.raises(DataError, match="t: no query"):
        task_of({}, {})


@pytest.mark.parametrize("always", [True, False])
def test_a_first_stage_that_finds_nothing_is_refused(always):
    with pytest.raises(DataError, match="no query has a relevant document among its candidates"):
        task_of({"q": ["a", "b"]}, {"q": ["P"]}, always_rerank_positives=always)


def test_how_many_queries_the_first_stage_misses_is_said(caplog):
    with caplog.at_level(logging.INFO):
        task_of({"q": ["P"], "r": ["a"], "s": ["a"]}, {"q": ["P"], "r": ["R"], "s": ["S"]})
    assert "no relevant document for 2 of 3 queries" in caplog.text


def test_several_tasks_are_scored_in_one_call_and_are_as_each_alone():
    for seed in range(10):
        tasks = [by_texts(name, *random_queries(np.random.default_rng(100 * seed + i))) for i, name in enumerate("abc")]
        calls = []

        def score(pairs, calls=calls):
            calls.append(list(pairs))
            return np.asarray([sum(map(ord, q + d)) * 7919 % 5 for q, d in pairs], np.float32)

        together = evaluate_tasks(tasks, score)
        assert calls == [[pair for task in tasks for pair in task.pairs]]
        for task in tasks:
            alone = task.evaluate(score)
            for table in ("rows", "scores"):
                mine = getattr(together, table)
                mine = mine[mine["dataset"] == task.name].reset_index(drop=True)
                pd.testing.assert_frame_equal(mine, getattr(alone, table))


def test_several_tasks_become_one_table_in_order():
    tasks = [by_texts(n, {"q": "x"}, {"q": ["P", "a"]}, {"q": ["P"]}) for n in ("second", "first")]
    rows = evaluate_tasks(tasks, lambda pairs: np.ones(len(pairs), np.float32)).rows
    assert list(rows["dataset"]) == ["second"] * 6 + ["first"] * 6
    assert isinstance(rows.index, pd.RangeIndex)
    assert list(rows.index) == list(range(12))
