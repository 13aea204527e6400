"""Means by hand, intervals by Welch's and by the bootstrap that the module does not have of its own."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_leaks import task

from crossrank.audit.leaks import TOUCHED_COLUMNS, Leaks, find_leaks
from crossrank.audit.untouched import HEADER, section, with_and_without
from crossrank.errors import DataError
from crossrank.evaluation.reranking import evaluate_tasks
from crossrank.evaluation.significance import mean_interval


def leaks(touched, **queries):
    """Of the named datasets with so many queries, those that are touched."""
    kinds = {"question": True, "other": False}
    rows = [(d, q, kind, "equal", 1.0, 1, 1, "", "", 0, "") for d, q in touched for kind in kinds]
    rows += [(d, f"q{i}", "other", "equal", 1.0, 1, 1, "", "", 0, "") for d in queries for i in range(queries[d])]
    return Leaks(queries, pd.DataFrame(rows, columns=TOUCHED_COLUMNS), np.zeros(0, np.int64))


def rows_of(dataset, values, base=None, metric="ndcg@10"):
    base = np.full(len(values), np.nan) if base is None else base
    ids = [f"q{i}" for i in range(len(values))]
    return pd.DataFrame({"dataset": dataset, "query_id": ids, "metric": metric, "value": values, "base_value": base})


def bootstrap(touched, untouched, resamples=20_000):
    """The means of both drawn apart, percentiles of the share times their difference."""
    draws, share = np.random.default_rng(1), len(touched) / (len(touched) + len(untouched))
    means = [draws.choice(part, (resamples, len(part))).mean(axis=1) for part in (touched, untouched)]
    return np.quantile(share * (means[0] - means[1]), [0.025, 0.975])


def close(interval, *numbers, within=0.004):
    assert interval == pytest.approx(numbers, abs=within)


def test_the_difference_is_what_the_touched_queries_add():
    draws = np.random.default_rng(0)
    values, base = draws.beta(4, 2, 300), draws.beta(2, 3, 300)
    values[:90] = draws.beta(8, 1, 90)
    (found,) = with_and_without(rows_of("a", values, base), leaks([("a", f"q{i}") for i in range(90)], a=300))
    assert (found.dataset, found.metric, found.queries, found.touched) == ("a", "ndcg@10", 300, 90)
    for interval, part in ((found.every, values), (found.without, values[90:]), (found.alone, values[:90])):
        close(interval, *mean_interval(part, 0, 1))
        assert interval.mean == pytest.approx(part.mean())
    for difference, part in ((found.difference, values), (found.base_difference, base)):
        assert difference.mean == pytest.approx(part.mean() - part[90:].mean())
        close(difference, difference.mean, *bootstrap(part[:90], part[90:]))
        welch = stats.ttest_ind(part[:90], part[90:], equal_var=False).confidence_interval()
        close(difference, difference.mean, 0.3 * welch.low, 0.3 * welch.high)


def test_the_order_of_rows_does_not_matter_and_ids_may_be_numbers():
    values = np.random.default_rng(2).random(40)
    rows, found = rows_of("a", values, values**2), leaks([("a", str(i)) for i in range(7)], a=40)
    rows["query_id"] = range(40)
    assert with_and_without(rows, found) == with_and_without(rows[::-1], found)
    assert with_and_without(rows, found)[0].touched == 7


def test_nothing_touched():
    values = np.random.default_rng(3).random(20)
    (found,) = with_and_without(rows_of("a", values, values / 2), leaks([], a=20))
    assert found.touched == 0
    assert found.every == found.without
    assert np.isnan(found.alone).all()
    assert found.difference == found.base_difference == (0, 0, 0)


def test_everything_touched():
    values = np.random.default_rng(4).random(20)
    (found,) = with_and_without(rows_of("a", values, values / 2), leaks([("a", f"q{i}") for i in range(20)], a=20))
    assert found.touched == found.queries == 20
    assert found.every == found.alone
    assert np.isnan([*found.without, *found.difference, *found.base_difference]).all()


def test_one_touched_query_has_a_mean_and_no_interval():
    (found,) = with_and_without(rows_of("a", [0.5, 0.25, 0.75, 1.0]), leaks([("a", "q3")], a=4))
    assert found.alone[0] == 1.0
    assert found.difference[0] == pytest.approx(0.625 - 0.5)
    assert np.isnan([*found.alone[1:], *found.difference[1:]]).all()
    assert not np.isnan(found.without).any()
    assert np.isnan(found.base_difference).all()  # there is no first stage


def test_the_mean_leaves_out_datasets_without_untouched_queries_and_counts_clean_ones():
    draws = np.random.default_rng(5)
    a, b, c = draws.random(60), draws.random(30), draws.random(10)
    seen = leaks([*(("a", f"q{i}") for i in range(20)), *(("c", f"q{i}") for i in range(10))], a=60, b=30, c=10)
    rows = pd.concat([rows_of(name, values) for name, values in (("a", a), ("b", b), ("c", c))])
    *single, mean = with_and_without(rows.assign(evaluator="e"), seen)
    assert [row.dataset for row in single] == ["a", "b", "c"]
    assert (mean.dataset, mean.queries, mean.touched) == ("mean of 2", 90, 20)
    assert mean.every.mean == pytest.approx((a.mean() + b.mean()) / 2)
    assert mean.without.mean == pytest.approx((a[20:].mean() + b.mean()) / 2)
    assert mean.difference.mean == pytest.approx((a.mean() - a[20:].mean()) / 2)
    assert np.isnan(mean.alone.mean)  # nothing of b was touched
    close(mean.difference, mean.difference.mean, *bootstrap(a[:20], a[20:]) / 2)


def test_the_mean_of_two_touched_datasets_has_the_interval_of_both():
    draws = np.random.default_rng(6)
    a, b = draws.random(200), draws.random(120)
    seen = leaks([*(("a", f"q{i}") for i in range(50)), *(("b", f"q{i}") for i in range(60))], a=200, b=120)
    *_, mean = with_and_without(pd.concat([rows_of("a", a), rows_of("b", b)]), seen)
    assert mean.alone.mean == pytest.approx((a[:50].mean() + b[:60].mean()) / 2)
    parts = [(50 / 200, a[:50], a[50:]), (60 / 120, b[:60], b[60:])]
    assert mean.difference.mean == pytest.approx(np.mean([share * (t.mean() - u.mean()) for share, t, u in parts]))
    error = np.sqrt(sum(share**2 * (t.var(ddof=1) / len(t) + u.var(ddof=1) / len(u)) for share, t, u in parts)) / 2
    close(mean.difference, mean.difference.mean, *(mean.difference.mean + np.array([-1.98, 1.98]) * error))


def test_evaluators_have_their_own_means():
    rows = pd.concat([rows_of(name, [0.0, 1.0, 0.5]).assign(evaluator=e) for e in ("x", "y") for name in ("a", "b")])
    found = with_and_without(rows, leaks([("a", "q0")], a=3, b=3))
    assert [row.dataset for row in found] == ["a", "b", "mean of 2"] * 2


def test_an_evaluation_goes_in_as_it_is_and_comes_out_as_markdown():
    found = find_leaks(["why are there tides"], ["-"], [task()])
    evaluation = evaluate_tasks([task()], lambda pairs: np.arange(len(pairs), dtype=np.float32))
    rows = with_and_without(evaluation.rows, found)
    assert [row.metric for row in rows] == list(dict.fromkeys(evaluation.rows["metric"]))
    page = section(rows).as_markdown(3)
    assert page.startswith("### With and without the touched queries\n\nDifference is all minus untouched")
    assert f"| {' | '.join(HEADER)} |" in page
    values = evaluation.rows[evaluation.rows["metric"] == "map"].set_index("query_id")["value"]
    line = next(line for line in page.splitlines() if line.startswith("| a | map |"))
    assert line.startswith(f"| a | map | 3 | 1 | {values.mean():.4f} [")
    assert f"| {values[['q2', 'q3']].mean():.4f} [" in line
    assert f"| {values['q1']:.4f} [too few queries] |" in line
    assert f"| {values.mean() - values[['q2', 'q3']].mean():+.4f} [too few queries] |" in line


def test_what_does_not_fit_is_refused():
    rows = rows_of("a", [0.5, 1.0])
    with pytest.raises(
        DataError, match=r"lacks the columns \['base_value'\]; it has: dataset, query_id, metric, value"
    ):
        with_and_without(rows.drop(columns="base_value"), leaks([], a=2))
    with pytest.raises(DataError, match=r"\['a'\] were evaluated on and not looked at for leaks, which were \['b'\]"):
        with_and_without(rows, leaks([], b=2))
    with pytest.raises(DataError, match="ndcg@10 of the query 'q0' of a stands there twice; rows of one step"):
        with_and_without(pd.concat([rows, rows]), leaks([], a=2))
