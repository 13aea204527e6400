"""Intervals, tests and variances against simulations whose truth is known; those of seeds also worked by hand."""

import numpy as np
import pytest
from scipy import stats

from crossrank.evaluation.significance import (
    difference_variance,
    minimum_detectable_difference,
    randomisation_test,
    seed_variance,
    stratified_interval,
)

NDCG = np.append(1 / np.log2(np.arange(2, 12)), 0.0)  # of one relevant document at rank 1 to 10, or below
HARD, MIDDLING, EASY = (0.2, 0.3, 0.3), (0.35, 0.45, 0.5), (0.5, 0.6, 0.7)  # what `ranks` takes twice, share unmoved
TABLE = np.array([[1.0, 2, 3], [2, 4, 6]])  # 2 seeds, 3 queries


def ranks(quality):
    """The probabilities of ranks that are geometric: each document above is wrong with 1 - quality."""
    reached = quality * (1 - quality) ** np.arange(10)
    return np.append(reached, 1 - reached.sum())


def ndcg(draws, quality, queries):
    return NDCG[draws.choice(11, queries, p=ranks(quality))]


def differences(draws, queries, before, after, unmoved):
    """Per-query differences of NDCG@10, skewed, bounded, and exactly 0 for more than the share of unmoved queries."""
    moved = draws.random(queries) >= unmoved
    return (ndcg(draws, after, queries) - ndcg(draws, before, queries)) * moved


def true_difference(before, after, unmoved):
    return (1 - unmoved) * (ranks(after) - ranks(before)) @ NDCG


def coverage(interval, datasets, queries, pairs=1000):
    draws = np.random.default_rng(11)
    truth = np.mean([true_difference(*dataset) for dataset in datasets])
    found = [interval([differences(draws, queries, *dataset) for dataset in datasets], i) for i in range(pairs)]
    return np.mean([low <= truth <= high for _, low, high in found])


def percentile(strata, seed):
    """scipy's interval, and the mean before it as the others have."""
    rng = np.random.default_rng(seed)
    return 0.0, *stats.bootstrap(
        (strata[0],), np.mean, n_resamples=500, method="percentile", rng=rng
    ).confidence_interval


def stratified(strata, seed):
    return stratified_interval(strata, resamples=1000, seed=seed)


@pytest.mark.parametrize("datasets", [(HARD, MIDDLING, EASY), (MIDDLING,)], ids=["three datasets", "one dataset"])
def test_an_interval_of_50_queries_a_dataset_covers_as_often_as_it_says(datasets):
    assert 0.93 <= coverage(stratified, datasets, 50) <= 0.97


def test_an_interval_of_few_queries_covers_more_often_than_percentiles():
    """Of 8 queries a dataset the plain percentile interval fails four times as often as it says."""
    percentiles = coverage(percentile, (MIDDLING,), 8)
    widened = coverage(stratified, (MIDDLING,), 8)
    assert percentiles < 0.9
    assert widened > percentiles + 0.03


def test_the_randomisation_test_seldom_finds_what_is_not_there():
    """Systems that are exchangeable, not equal: three datasets of 50 queries."""
    draws = np.random.default_rng(12)
    pairs = (
        [differences(draws, 50, quality, quality, unmoved) for quality, _, unmoved in (HARD, MIDDLING, EASY)]
        for _ in range(1000)
    )
    found = np.mean([randomisation_test(strata, 500, seed) <= 0.05 for seed, strata in enumerate(pairs)])
    assert 0.03 <= found <= 0.06


def test_the_minimum_detectable_difference_is_found_with_the_stated_power():
    """Planned from 200 samples, found in 2,000 others, by the randomisation test and by Welch's for two datasets."""
    draws = np.random.default_rng(13)

    def sample(mean):
        return [draws.normal(mean, 0.3, 30), draws.normal(mean, 0.1, 60)]

    least = np.mean([minimum_detectable_difference(sample(0)) for _ in range(200)])
    strata = [sample(least) for _ in range(2000)]
    welch = np.mean([stats.ttest_ind(x, -y, equal_var=False).pvalue <= 0.05 for x, y in strata])
    flips = np.mean([randomisation_test(pair, 300, seed) <= 0.05 for seed, pair in enumerate(strata)])
    assert 0.77 <= welch <= 0.83
    assert 0.77 <= flips <= 0.83


def test_a_variance_of_seeds_worked_by_hand():
    """Mean squares: 6 of seeds, 4.5 of queries, 0.5 of what remains; so (6 - 0.5) / 3 is the seeds' variance."""
    found = seed_variance(TABLE)
    freedom = (5 / 3) ** 2 / (0.75**2 / 2 + 1)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(5 / 3)
    assert found[:5] == pytest.approx((3, np.sqrt(4.5 / 6), np.sqrt(5.5 / 3), np.sqrt(5.5 / 6), np.sqrt(5 / 3)))
    assert found.interval == pytest.approx((3, 3 - half, 3 + half))


def test_a_seed_that_helps_every_dataset_is_not_averaged_out():
    """The variance of one training's mean stays 2, from which half of 0.5 / 3 is taken; that of the queries halves."""
    found = seed_variance([TABLE, TABLE + 5])
    assert (found.mean, found.query_se) == pytest.approx((5.5, np.sqrt(0.375)))
    assert found.seed_sd == pytest.approx(np.sqrt(2 - 0.25 / 3))


def test_a_negative_variance_of_seeds_is_cut():
    found = seed_variance(np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert (found.seed_sd, found.seed_se, found.query_se) == (0, 0, 0)
    assert found.interval == (0.5, 0.5, 0.5)


def test_a_difference_of_two_systems_with_seeds_worked_by_hand():
    """b: seed means 1, 1, 4, of variance 3 without a remainder; the queries' differences are 0, 1 and 0.5."""
    b = np.array([[0.5, 1.0, 1.5]] * 2 + [[3.5, 4.0, 4.5]])
    found = difference_variance(TABLE, b)
    seeds = 5.5 / 3, 3.0
    queries = np.var([1.5 - 1.5, 3 - 2, 4.5 - 2.5], ddof=1) / 3
    se = np.sqrt(seeds[0] / 2 + seeds[1] / 3)
    assert found[:5] == pytest.approx((1, np.sqrt(queries), np.sqrt(sum(seeds)), se, np.sqrt(queries + se**2)))
    freedom = (queries + se**2) ** 2 / (queries**2 / 2 + 1 / 1 + 1 / 2)
    assert found.interval.high - 1 == pytest.approx(stats.t.ppf(0.975, freedom) * np.sqrt(queries + se**2))


def test_seeds_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"the same queries in every dataset, got \[3\] and \[2\]"):
        difference_variance(TABLE, TABLE[:, :2])
    with pytest.raises(ValueError, match=r"the same seeds, got \[2, 3\] of them"):
        seed_variance([TABLE, np.zeros((3, 4))])
    with pytest.raises(ValueError, match=r"each at least 2 long, got the shapes \[\(1, 3\)\]"):
        seed_variance(TABLE[:1])


def trainings(draws, seeds, queries, seed_sd):
    """The tables of two datasets: what a seed is worth is the same in both, and 0.1 remains for each cell."""
    of_seeds = draws.normal(0, seed_sd, (seeds, 1))
    return [of_seeds + of_queries + draws.normal(0, 0.1, (seeds, len(of_queries))) for of_queries in queries]


def queries_of_two_datasets(draws):
    return draws.normal(0.5, 0.2, 40), draws.normal(0.7, 0.3, 60)


def test_the_parts_of_a_variance_are_those_simulated():
    draws = np.random.default_rng(14)
    found = [seed_variance(trainings(draws, 6, queries_of_two_datasets(draws), 0.05)) for _ in range(1500)]
    remainder = 0.1**2 * (1 / 40 + 1 / 60) / 4 / 6
    query_variance = (0.2**2 / 40 + 0.3**2 / 60) / 4 + remainder
    assert np.mean([f.seed_sd**2 for f in found]) == pytest.approx(0.05**2, rel=0.06)
    assert np.mean([f.query_se**2 for f in found]) == pytest.approx(query_variance, rel=0.03)
    assert np.mean([f.total_se**2 for f in found]) == pytest.approx(np.var([f.mean for f in found]), rel=0.12)
    assert 0.93 <= np.mean([f.interval.low <= 0.6 <= f.interval.high for f in found]) <= 0.97


@pytest.mark.parametrize(("seed_sd", "most"), [(0.0, 0.99), (0.02, 0.97), (0.1, 0.97)])
def test_an_interval_of_two_systems_with_few_seeds_covers(seed_sd, most):
    """3 seeds against 4, equal systems. Where the seeds weigh nothing, the cut at 0 makes the interval too wide."""
    draws = np.random.default_rng(15)
    found = []
    for _ in range(1000):
        queries = queries_of_two_datasets(draws)
        found.append(difference_variance(*(trainings(draws, seeds, queries, seed_sd) for seeds in (3, 4))).interval)
    covered = np.mean([low <= 0 <= high for _, low, high in found])
    assert 0.93 <= covered <= most
