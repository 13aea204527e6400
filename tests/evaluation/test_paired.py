"""By hand: two datasets, whose queries the two systems give in another order."""

import json

import numpy as np
import pandas as pd
import pytest

from crossrank.errors import DataError
from crossrank.evaluation.paired import paired
from crossrank.evaluation.significance import stratified_interval

OURS = {("a", "q0"): 0.5, ("a", "q1"): 1.0, ("b", "q0"): 0.25, ("b", "q1"): 0.75, ("b", "q2"): 0.5}
THEIRS = {("b", "q2"): 0.25, ("b", "q1"): 0.25, ("b", "q0"): 0.0, ("a", "q1"): 0.5, ("a", "q0"): 0.0}


def _rows(values):
    rows = [(dataset, query, "ndcg@10", value) for (dataset, query), value in values.items()]
    rows += [(dataset, query, "map", 0.0) for dataset, query in values]
    return pd.DataFrame(rows, columns=["dataset", "query_id", "metric", "value"])


def test_one_dataset_by_hand():
    found = paired(_rows(OURS), _rows(THEIRS), "a", "ndcg@10")
    assert (found.value, found.against, found.queries) == (0.75, 0.25, 2)
    assert found.difference.mean == 0.5
    assert found.p == 0.5  # of the four assignments of signs to 0.5 and 0.5, two are as extreme


def test_the_mean_is_that_of_the_datasets_means():
    found = paired(_rows(OURS), _rows(THEIRS), "mean", "ndcg@10")
    assert found.value == pytest.approx((0.75 + 0.5) / 2)
    assert found.against == pytest.approx((0.25 + 0.5 / 3) / 2)
    assert found.difference.mean == pytest.approx(found.value - found.against)
    assert found.p == 2 / 2**5  # all five queries are better
    assert found.queries == 5
    interval = stratified_interval([np.array([0.5, 0.5]), np.array([0.25, 0.25, 0.5])])
    assert sorted(found.difference[1:]) == pytest.approx(sorted(interval[1:]))


def test_the_other_way_round_it_is_the_opposite():
    there, back = (paired(*map(_rows, pair), "mean", "ndcg@10") for pair in ((OURS, THEIRS), (THEIRS, OURS)))
    assert back.difference.mean == pytest.approx(-there.difference.mean)
    assert back.p == there.p


def test_of_one_query_nothing_is_known_of_the_interval():
    one = _rows({("a", "q0"): 0.5})
    found = paired(one, one, "a", "ndcg@10")
    assert (found.difference.mean, found.p) == (0.0, 1.0)
    facts = json.loads(json.dumps(found.facts(), allow_nan=False))
    assert facts == {"value": 0.5, "against": 0.5, "difference": [0.0, None, None], "p": 1.0, "queries": 1}


@pytest.mark.parametrize("dataset", ["a", "c"])
def test_other_queries_are_refused(dataset):
    fewer = {key: value for key, value in THEIRS.items() if key != ("a", "q1")}
    with pytest.raises(DataError, match=f"ndcg@10 of {dataset} is not of the same queries in both"):
        paired(_rows(OURS), _rows(fewer), dataset, "ndcg@10")
