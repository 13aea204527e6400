"""Means, keys and the keys that are promised before anything runs."""

import numpy as np
import pandas as pd
import pytest

from crossrank.evaluation import Evaluation, metric_key, metric_names, produced_keys
from crossrank.evaluation.reranking import RerankingTask, evaluate_tasks

COLUMNS = ["dataset", "query_id", "metric", "value", "base_value"]


def evaluation(rows):
    return Evaluation(pd.DataFrame(rows, columns=COLUMNS))


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
    assert evaluation(TWO_SETS).metrics("dev") == pytest.approx(
        {
            "eval/dev/small/map": 1.0,
            "eval/dev/small/base_map": 0.5,
            "eval/dev/large/map": 0.3,
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
    def __init__(self, datasets, at_k):
        self.datasets, self.at_k = datasets, at_k


def test_produced_keys_are_spelt_out():
    assert produced_keys({"e": Promises(["d"], 5)}) == [
        "eval/e/d/map", "eval/e/d/mrr@5", "eval/e/d/ndcg@5",
        "eval/e/mean/map", "eval/e/mean/mrr@5", "eval/e/mean/ndcg@5",
    ]  # fmt: skip


def test_what_is_promised_is_what_is_produced():
    tasks = [RerankingTask(n, {"q": "x"}, {"q": ["P", "a"]}, {"q": ["P"]}, at_k=7) for n in ("a", "b")]
    produced = evaluate_tasks(tasks, lambda pairs: np.ones(len(pairs), np.float32)).metrics("e")
    promised = produced_keys({"e": Promises(["a", "b"], 7)})
    assert set(promised) == {key for key in produced if "/base_" not in key}
    assert len(promised) == len(set(promised))


def test_keys_of_several_evaluators_differ():
    keys = produced_keys({"x": Promises(["d"], 10), "y": Promises(["d"], 10)})
    assert len(set(keys)) == len(keys) == 12
    assert metric_key("x", "d", metric_names(10)[2]) in keys
