"""The statistics of a comparison, against numbers worked out here and the functions that are tested elsewhere."""

import numpy as np
import pytest

from crossrank.analysis.alignment import Aligned
from crossrank.analysis.compare import PAIR_COLUMNS, SYSTEM_COLUMNS, Resampling, compare
from crossrank.errors import DataError
from crossrank.evaluation.significance import (
    difference_variance,
    holm,
    minimum_detectable_difference,
    randomisation_test,
    seed_variance,
    stratified_interval,
)

FEW = Resampling(resamples=500)


def aligned(*systems, metrics=("ndcg@10",), names="abcdefg"):
    """Each system is a list of datasets of [trainings, queries, metrics]."""
    datasets = tuple(f"d{i + 1}" for i in range(len(systems[0])))
    values = tuple(tuple(np.asarray(x, float) for x in datasets) for datasets in systems)
    return Aligned(tuple(names[: len(systems)]), tuple(metrics), datasets, values)


def random_system(seed, trainings=1, queries=(30, 20), metrics=1):
    draws = np.random.default_rng(seed)
    return [draws.random((trainings, n, metrics)) for n in queries]


HAND_A = [[[(0.5, 0.1), (0.2, 0.2), (0.3, 0.3), (0.4, 0.4)]], [[(0.1, 0.5), (0.2, 0.6)]]]
HAND_B = [[[(0.9, 0.2), (0.4, 0.3), (0.3, 0.4), (0.3, 0.5)]], [[(0.4, 0.6), (0.3, 0.7)]]]


def test_hand_worked():
    """Differences of ndcg@10 are 0.4, 0.2, 0, -0.1 and 0.3, 0.1: means 0.125 and 0.2, together 0.1625.

    As terms of that mean they are 0.05, 0.025, 0, -0.0125, 0.075, 0.025. Of the 32 assignments of signs to the five
    that are not 0, those are at least as extreme which flip nothing or the negative one, and these two mirrored:
    4 / 32. Differences of map are all 0.1, of 64 assignments two are as extreme. Holm: 2 * 2 / 64, then 1 * 4 / 32.
    """
    found = compare(aligned(HAND_A, HAND_B, metrics=("ndcg@10", "map")), "all", FEW)
    overall = found.overall.set_index("metric")
    assert overall["system"].tolist() == ["b", "b"]
    assert overall["against"].tolist() == ["a", "a"]
    assert overall["difference"].tolist() == pytest.approx([0.1625, 0.1])
    assert overall["p"].tolist() == [4 / 32, 2 / 64]
    assert overall["p_holm"].tolist() == [4 / 32, 4 / 64]
    assert overall[["wins", "ties", "losses"]].to_numpy().tolist() == [[4, 1, 1], [6, 0, 0]]
    assert overall["queries"].tolist() == [6, 6]
    datasets = found.pairs[~found.pairs["overall"]]
    assert datasets["dataset"].tolist() == ["d1", "d1", "d2", "d2"]
    assert datasets["difference"].tolist() == pytest.approx([0.125, 0.1, 0.2, 0.1])
    assert datasets[["wins", "ties", "losses"]].to_numpy().tolist() == [[2, 1, 1], [4, 0, 0], [2, 0, 0], [2, 0, 0]]
    assert datasets[["p", "p_holm", "detectable"]].isna().all(axis=None)
    means = found.systems.set_index(["dataset", "system", "metric"])["mean"]
    assert means["d1", "a", "ndcg@10"] == pytest.approx(0.35)
    assert means["mean", "a", "ndcg@10"] == pytest.approx((0.35 + 0.15) / 2)
    assert means["mean", "b", "ndcg@10"] == pytest.approx((0.475 + 0.35) / 2)


def test_the_numbers_of_a_pair_are_those_of_the_statistics():
    a, b = random_system(0, metrics=2), random_system(1, metrics=2)
    drawn = Resampling(confidence=0.9, resamples=700, seed=5)
    found = compare(aligned(a, b, metrics=("m", "n")), "all", drawn)
    strata = [(y - x)[0, :, 1] for x, y in zip(a, b, strict=True)]
    row = found.overall.set_index("metric").loc["n"]
    assert (row.difference, row.low, row.high) == pytest.approx(stratified_interval(strata, *drawn))
    assert row.p == randomisation_test(strata, 700, 5)
    assert row.detectable == pytest.approx(minimum_detectable_difference(strata, 0.1, 0.8))
    one = found.pairs.set_index(["dataset", "metric"]).loc[("d2", "n")]
    assert (one.difference, one.low, one.high) == pytest.approx(stratified_interval(strata[1:], *drawn))
    system = found.systems.set_index(["dataset", "metric", "system"]).loc[("mean", "n", "b")]
    expected = stratified_interval([y[0, :, 1] for y in b], *drawn)
    assert (system["mean"], system.low, system.high) == pytest.approx(expected)
    assert row[["query_se", "seed_sd", "seed_se", "both_low", "both_high"]].isna().all()


def test_all_pairs_or_those_with_the_first_and_holm_over_all_of_them():
    systems = [random_system(i, metrics=2) for i in range(3)]
    every = compare(aligned(*systems, metrics=("m", "n")), "all", FEW)
    pairs = [("b", "a"), ("c", "a"), ("c", "b")]
    assert list(zip(every.overall["system"], every.overall["against"], strict=True))[::2] == pairs
    assert every.tests == 6
    assert every.overall["p_holm"].tolist() == pytest.approx(holm(every.overall["p"]).tolist())
    few = compare(aligned(*systems, metrics=("m", "n")), "baseline", FEW)
    assert list(zip(few.overall["system"], few.overall["against"], strict=True))[::2] == pairs[:2]
    assert few.overall["p"].tolist() == every.overall["p"].tolist()[:4]
    assert few.overall["p_holm"].tolist() == pytest.approx(holm(few.overall["p"]).tolist())


def test_exchanging_two_systems_turns_the_signs():
    a, b = random_system(0), random_system(1)
    there, back = (compare(aligned(*pair), "all", FEW).overall.iloc[0] for pair in ((a, b), (b, a)))
    assert there.difference == pytest.approx(-back.difference)
    assert (there.wins, there.losses) == (back.losses, back.wins)
    assert (there.p, there.detectable) == pytest.approx((back.p, back.detectable))


def test_equal_systems_are_not_told_apart_whatever_the_rounding():
    a = [np.full((1, 30, 1), 0.3)]
    b = [np.full((1, 30, 1), 0.1 + 0.2)]
    row = compare(aligned(a, b), "all", FEW).overall.iloc[0]
    assert (row.difference, row.low, row.high, row.p, row.p_holm) == (0, 0, 0, 1, 1)
    assert (row.wins, row.ties, row.losses) == (0, 30, 0)
    assert np.isnan(row.detectable)


def test_intervals_stay_within_the_range_of_the_metric():
    """Six queries, of which five are perfect: the widened interval would end above 1."""
    a = [np.asarray([1, 1, 1, 1, 1, 0.5])[None, :, None]]
    b = [np.asarray([0.0, 0, 0, 0, 0, 0.1])[None, :, None]]
    found = compare(aligned(a, b), "all", FEW)
    systems = found.systems.set_index(["dataset", "system"])
    assert systems.loc[("mean", "a"), "high"] == 1
    assert systems.loc[("mean", "b"), "low"] == 0
    assert found.overall["low"].item() == -1


@pytest.mark.parametrize(("ours", "theirs"), [(3, 1), (1, 4), (3, 4)])
def test_several_trainings_are_averaged_for_the_test_and_their_variance_is_split(ours, theirs):
    a, b = random_system(0, theirs), random_system(1, ours)
    row = compare(aligned(a, b), "all", FEW).overall.iloc[0]
    means = [y.mean(axis=0)[:, 0] - x.mean(axis=0)[:, 0] for x, y in zip(a, b, strict=True)]
    assert row.difference == pytest.approx(np.mean([m.mean() for m in means]))
    assert row.p == randomisation_test(means, 500)
    assert (row.trainings, row.trainings_against) == (ours, theirs)
    if min(ours, theirs) > 1:
        split = difference_variance([y[..., 0] for y in b], [x[..., 0] for x in a])
    else:
        split = seed_variance([(y - x)[..., 0] for x, y in zip(a, b, strict=True)])
    expected = (split.query_se, split.seed_sd, split.seed_se, split.interval.low, split.interval.high)
    assert (row.query_se, row.seed_sd, row.seed_se, row.both_low, row.both_high) == pytest.approx(expected)


def test_seeds_that_move_all_queries_alike_show_as_seed_variance_alone():
    """Trainings at 0.4, 0.5 and 0.6 on every query: variance 0.01, of their mean 0.01 / 3; queries add nothing."""
    a = [np.full((1, 10, 1), 0.5)]
    b = [np.repeat([0.4, 0.5, 0.6], 10).reshape(3, 10, 1)]
    row = compare(aligned(a, b), "all", FEW).overall.iloc[0]
    assert (row.query_se, row.seed_sd, row.seed_se) == pytest.approx((0, 0.1, 0.1 / 3**0.5), abs=1e-9)
    assert row.both_low < 0 < row.both_high


def test_one_query_has_a_difference_but_no_interval():
    a, b = ([np.full((1, 1, 1), first), np.full((1, 3, 1), second)] for first, second in ((0.1, 0.5), (0.4, 0.6)))
    row = compare(aligned(a, b), "all", FEW).overall.iloc[0]
    assert row.difference == pytest.approx((0.3 + 0.1) / 2)
    assert row[["low", "high", "detectable"]].isna().all()
    assert 0 < row.p <= 1


def test_the_same_call_has_the_same_numbers_and_the_columns_that_are_promised():
    tables = aligned(random_system(0), random_system(1), random_system(2, 2))
    first, second = (compare(tables, "all", FEW) for _ in range(2))
    assert first.pairs.equals(second.pairs)
    assert first.systems.equals(second.systems)
    assert (list(first.pairs), list(first.systems)) == (PAIR_COLUMNS, SYSTEM_COLUMNS)


def test_one_system_is_too_few():
    with pytest.raises(DataError, match="at least two systems"):
        compare(aligned(random_system(0)))
