"""Which queries are compared with which, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from crossrank.analysis.alignment import align
from crossrank.analysis.systems import COLUMNS, System
from crossrank.errors import DataError


def table(values, dataset="d", metric="map", evaluator="e", base=0.25):
    """`values` by query id."""
    found = pd.DataFrame({"query_id": list(values), "value": list(values.values())})
    return found.assign(evaluator=evaluator, dataset=dataset, metric=metric, base_value=base)[COLUMNS]


def system(name, *tables):
    return System(name, (pd.concat(tables, ignore_index=True),))


def test_queries_are_matched_by_id_and_datasets_stand_in_the_first_systems_order():
    a = system("a", table({"q2": 0.2, "q1": 0.1}, "z"), table({"q9": 0.9}, "b"))
    b = system("b", table({"q9": 0.8}, "b"), table({"q1": 0.3, "q2": 0.4}, "z"))
    found = align([a, b])
    assert (found.names, found.datasets, found.metrics, found.queries) == (("a", "b"), ("z", "b"), ("map",), [2, 1])
    np.testing.assert_array_equal(found.values[0][0], [[[0.1], [0.2]]])
    np.testing.assert_array_equal(found.values[1][0], [[[0.3], [0.4]]])
    np.testing.assert_array_equal(found.values[1][1], [[[0.8]]])


def test_the_order_of_rows_does_not_matter():
    a, b = (table({f"q{i}": i / 30 * scale for i in range(20)}) for scale in (1.0, 0.5))
    shuffled = [System(name, (t.sample(frac=1, random_state=3),)) for name, t in (("a", a), ("b", b))]
    first, second = align([System("a", (a,)), System("b", (b,))]), align(shuffled)
    np.testing.assert_array_equal(first.values, second.values)


def test_trainings_are_stacked():
    a = System("a", tuple(table({"q1": value, "q2": 0.5}) for value in (0.1, 0.2, 0.3)))
    found = align([a, system("b", table({"q1": 0.0, "q2": 1.0}))])
    np.testing.assert_array_equal(found.values[0][0][:, :, 0], [[0.1, 0.5], [0.2, 0.5], [0.3, 0.5]])
    assert found.values[1][0].shape == (1, 2, 1)


def test_evaluators_may_be_called_otherwise_where_datasets_are_not():
    found = align([system("a", table({"q": 0.1}, evaluator="x")), system("b", table({"q": 0.2}, evaluator=""))])
    assert found.datasets == ("d",)


def test_two_evaluators_with_a_dataset_of_the_same_name_are_kept_apart():
    tables = [table({"q": 0.1}, evaluator="x"), table({"q": 0.2}, evaluator="y"), table({"q": 0.3}, "other")]
    found = align([system("a", *tables), system("b", *tables[::-1])])
    assert found.datasets == ("d (x)", "d (y)", "other")
    assert [values.item() for values in found.values[0]] == [values.item() for values in found.values[1]]
    with pytest.raises(DataError, match=r"only a has 1 query of d \(x\) \(the whole dataset\)"):
        align([system("a", *tables), system("b", table({"q": 0.1}), *tables[2:])])


def test_unequal_query_sets_are_refused_with_counts_and_examples():
    a = system("a", table({f"q{i}": 0.5 for i in range(9)}), table({"x": 0.1}, "extra"))
    b = system("b", table({f"q{i}": 0.5 for i in range(5, 10)}))
    with pytest.raises(DataError) as caught:
        align([a, b])
    assert str(caught.value) == (
        "a and b were not evaluated on the same queries: only a has 5 queries of d, 'q0', 'q1', 'q2', ...; "
        "only a has 1 query of extra (the whole dataset), 'x'; only b has 1 query of d, 'q9'; "
        "give common_only=true to compare what they share"
    )


def test_a_training_with_other_queries_than_its_siblings_is_refused():
    trainings = tuple(table({f"q{i}": 0.5 for i in range(n)}) for n in (3, 4))
    with pytest.raises(DataError, match="a, training 1 and a, training 2 were not evaluated on the same queries"):
        align([System("a", trainings), system("b", table({f"q{i}": 0.5 for i in range(3)}))])


def test_common_only_compares_what_all_share_and_says_how_much_that_is(caplog):
    a = system("a", table({f"q{i}": i / 10 for i in range(9)}), table({"x": 0.1}, "extra"))
    b = system("b", table({f"q{i}": 0.5 for i in range(5, 10)}))
    found = align([a, b, a], common_only=True)
    assert (found.datasets, found.queries) == (("d",), [4])
    np.testing.assert_array_equal(found.values[0][0][0, :, 0], [0.5, 0.6, 0.7, 0.8])
    assert "a: 4 of 10 queries are compared" in caplog.text
    assert "b: 4 of 5 queries are compared" in caplog.text


def test_systems_that_share_nothing_are_refused():
    with pytest.raises(DataError, match="the systems share no query; a has d; b has other"):
        align([system("a", table({"q": 0.5})), system("b", table({"q": 0.5}, "other"))], common_only=True)


def metrics(*names, dataset="d"):
    return [table({"q": 0.5}, dataset, metric=name) for name in names]


@pytest.mark.parametrize(("a", "b", "wanted", "expected"), [
    (["map", "ndcg@10", "trec_map"], ["map", "ndcg@10", "trec_map"], None, ("map", "ndcg@10")),
    (["map", "ndcg@10", "trec_map"], ["ndcg@10", "trec_map"], None, ("ndcg@10",)),
    (["map", "trec_map"], ["trec_map", "trec_mrr@10"], None, ("trec_map",)),
    (["map", "trec_map"], ["map", "trec_map"], ["trec_map", "map"], ("trec_map", "map")),
])  # fmt: skip
def test_metrics_are_those_of_one_protocol_that_all_share(a, b, wanted, expected):
    assert align([system("a", *metrics(*a)), system("b", *metrics(*b))], wanted).metrics == expected


def test_a_metric_that_one_dataset_lacks_is_not_shared():
    both = [*metrics("map", "trec_map"), *metrics("trec_map", dataset="lists")]
    assert align([system("a", *both), system("b", *both)]).metrics == ("trec_map",)


@pytest.mark.parametrize(("b", "wanted", "message"), [
    (["map"], ["map", "ndcg@5"], "not every system has ndcg@5 in every dataset; a has map; b has map"),
    (["trec_map"], None, "the systems share no metric; a has map; b has trec_map"),
    (["map"], [], "no metric was asked for"),
])  # fmt: skip
def test_a_metric_that_is_not_there_is_refused(b, wanted, message):
    with pytest.raises(DataError, match=message):
        align([system("a", *metrics("map")), system("b", *metrics(*b))], wanted)


def test_a_query_that_two_evaluators_of_different_systems_share_twice_is_refused():
    twice = pd.concat([table({"q": 0.1}), table({"q": 0.2})], ignore_index=True)
    with pytest.raises(DataError, match="more than once"):
        align([System("a", (twice,)), system("b", table({"q": 0.1}))])


def test_different_first_stages_are_told(caplog):
    a, same = (system(name, table({"q1": 0.5, "q2": 0.9}, base=[0.25, 0.5])) for name in ("a", "same"))
    unknown = system("unknown", table({"q1": 0.5, "q2": 0.5}, base=np.nan))
    align([a, same, unknown])
    assert "first stage differs" not in caplog.text
    align([a, same, system("b", table({"q1": 0.5, "q2": 0.5}, base=[0.25, 0.75]))])
    assert "a and b: the first stage differs on 1 of 2 queries" in caplog.text
