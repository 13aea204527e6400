"""Means, keys and the keys that are promised before anything runs."""

import numpy as np
import pandas as pd
import pytest

from crossrank.evaluation import Evaluation, metric_key, metric_names, produced_keys, refuse_below_one
from crossrank.evaluation.reranking import RerankingTask, evaluate_tasks
from crossrank.evaluation.significance import mean_intervals

COLUMNS = ["dataset", "query_id", "metric", "value", "base_value"]


def evaluation(rows, ceiling=1.0):
    return Evaluation(pd.DataFrame(rows, columns=COLUMNS).assign(ceiling=ceiling), pd.DataFrame())


TWO_SETS = [
    ("small", "q1", "map", 1.0, 0.5),
    ("large", "q1", "map", 0.0, 0.1),
    ("large", "q2", "map", 0.5, 0.2),
    ("large", "q3", "map", 0.4, 0.3),
]


def test_the_overall_mean_is_over_datasets_and_not_over_queries():
    means = evaluation(TWO_SETS).means()
    assert list(means.index) == [("small", "map"), ("large", "map"), ("mean", "map")]
    assert list(means["value"]) == pytest.approx([1.0, 0.3, 0.65])
    assert list(means["base_value"]) == pytest.approx([0.5, 0.2, 0.35])


def test_metrics_stand_under_their_keys():
    """A mean over one query has no interval, nor has a mean over datasets one of which has none; the others keep to
    the metric's range."""
    low, high = (float(end[0]) for end in mean_intervals([np.asarray([[0.0], [0.5], [0.4]])]))
    assert low < 0 < high < 1
    assert evaluation(TWO_SETS).metrics("dev") == pytest.approx(
        {
            "eval/dev/small/map": 1.0,
            "eval/dev/small/base_map": 0.5,
            "eval/dev/large/map": 0.3,
            "eval/dev/large/map_low": 0.0,
            "eval/dev/large/map_high": high,
            "eval/dev/large/base_map": 0.2,
            "eval/dev/mean/map": 0.65,
            "eval/dev/mean/base_map": 0.35,
        }
    )


def test_without_a_first_stage_there_are_no_base_keys():
    assert evaluation([("d", "q", "map", 0.5, np.nan)]).metrics("e") == {"eval/e/d/map": 0.5, "eval/e/mean/map": 0.5}


def test_metrics_are_python_floats():
    assert {type(value) for value in evaluation(TWO_SETS).metrics("dev").values()} == {float}


class Promises:
    def __init__(self, datasets, at_k, protocol="st"):
        self.datasets, self.at_k, self.protocol = datasets, at_k, protocol


def test_produced_keys_are_spelt_out():
    assert produced_keys({"e": Promises(["d"], 5)}) == [
        "eval/e/d/map", "eval/e/d/mrr@5", "eval/e/d/ndcg@5",
        "eval/e/d/trec_map", "eval/e/d/trec_mrr@5", "eval/e/d/trec_ndcg@5",
        "eval/e/mean/map", "eval/e/mean/mrr@5", "eval/e/mean/ndcg@5",
        "eval/e/mean/trec_map", "eval/e/mean/trec_mrr@5", "eval/e/mean/trec_ndcg@5",
    ]  # fmt: skip
    trec = produced_keys({"e": Promises(["d"], 5, "trec")})
    assert trec[:3] == ["eval/e/d/trec_map", "eval/e/d/trec_mrr@5", "eval/e/d/trec_ndcg@5"]
    assert len(trec) == 6


@pytest.mark.parametrize("protocol", ["st", "trec"])
def test_what_is_promised_is_what_is_produced(protocol):
    texts = {"P": "good", "a": "bad"}
    tasks = [
        RerankingTask(name, {"q": "x", "r": "y"}, texts, {"q": ["P", "a"], "r": ["a", "P"]},
                      {"q": {"P": 1}, "r": {"a": 1}}, at_k=7, protocol=protocol)
        for name in ("a", "b")
    ]  # fmt: skip
    produced = evaluate_tasks(tasks, lambda pairs: np.arange(len(pairs), dtype=np.float32)).metrics("e")
    promised = produced_keys({"e": Promises(["a", "b"], 7, protocol)})
    extras = ("_low", "_high", "_ceiling", "_headroom")
    assert set(promised) == {key for key in produced if "/base_" not in key and not key.endswith(extras)}
    assert len(promised) == len(set(promised))


def test_keys_of_several_evaluators_differ():
    keys = produced_keys({"x": Promises(["d"], 10), "y": Promises(["d"], 10)})
    assert len(set(keys)) == len(keys) == 24
    assert metric_key("x", "d", metric_names(10, "st")[2]) in keys


def test_headroom_is_the_share_of_the_possible_gain():
    found = evaluation([("d", "q", "ndcg@10", 0.5, 0.2), ("d", "r", "ndcg@10", 0.7, 0.4)], ceiling=0.8).metrics("e")
    assert found["eval/e/d/ndcg@10_headroom"] == pytest.approx((0.6 - 0.3) / (0.8 - 0.3))
    assert found["eval/e/d/ndcg@10_ceiling"] == pytest.approx(0.8)
    at_the_top = evaluation([("d", "q", "ndcg@10", 0.5, 0.8)], ceiling=0.8).metrics("e")
    assert "eval/e/d/ndcg@10_headroom" not in at_the_top  # there was nothing to gain


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"at_k": 0}, "at_k must be at least 1, got 0"),
        ({"rerank_k": 3, "at_k": 0}, "rerank_k and at_k must be at least 1, got 3 and 0"),
        ({"a": 1, "b": -1, "c": 2}, "a, b and c must be at least 1, got 1, -1 and 2"),
    ],
)
def test_counts_below_one_are_refused_in_one_sentence(counts, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        refuse_below_one(**counts)
    refuse_below_one(**dict.fromkeys(counts, 1))
