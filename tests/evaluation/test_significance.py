"""Intervals, tests and variances against scipy, a bootstrap written out and examples worked by hand."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from crossrank.evaluation import significance
from crossrank.evaluation.significance import (
    holm,
    mean_interval,
    mean_intervals,
    minimum_detectable_difference,
    randomisation_test,
    seed_variance,
    stratified_interval,
    win_tie_loss,
)


def bootstrap_by_hand(values, confidence, resamples, seed):
    draws = np.random.default_rng(seed)
    means = values[draws.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    tail = (1 - confidence) / 2
    return np.quantile(means, [tail, 1 - tail])


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_equals_a_bootstrap_written_out(confidence):
    """Skewed differences of 30 queries, whose percentile interval is not symmetric; widened by Hesterberg's factors."""
    values = np.random.default_rng(3).exponential(0.3, 30) - 0.1
    found = stratified_interval([values], confidence)
    tail = (1 - confidence) / 2
    widening = np.sqrt(30 / 29) * stats.t.ppf(tail, 29) / stats.norm.ppf(tail)
    deviations = bootstrap_by_hand(values, confidence, 40_000, seed=99) - values.mean()
    noise = 0.03 * values.std()  # of two bootstraps of 10,000 and 40,000 resamples
    assert found.mean == pytest.approx(values.mean(), abs=1e-15)
    assert (found.low, found.high) == pytest.approx(tuple(values.mean() + deviations * widening), abs=noise)
    assert found.high - found.mean > found.mean - found.low


def test_equals_the_normal_approximation_where_it_holds():
    values = np.random.default_rng(0).normal(0.05, 0.4, 2000)
    found = stratified_interval([values])
    half = stats.norm.ppf(0.975) * values.std() / np.sqrt(len(values))
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_covers_the_true_mean_as_often_as_it_says():
    """160 experiments of 50 queries: 80 % intervals hold the true mean in 80 %, give or take 3 standard errors."""
    draws = np.random.default_rng(1)
    intervals = [stratified_interval([draws.normal(0.1, 1, 50)], 0.8, 500, seed) for seed in range(160)]
    share = np.mean([low <= 0.1 <= high for _, low, high in intervals])
    assert share == pytest.approx(0.8, abs=3 * np.sqrt(0.8 * 0.2 / 160))


def test_is_a_function_of_the_seed():
    values = np.random.default_rng(0).normal(size=20)
    assert stratified_interval([values], seed=1) == stratified_interval([values], seed=1)
    assert stratified_interval([values], seed=1) != stratified_interval([values], seed=2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("difference", [0.0, 0.25, -1.0])
def test_equal_differences_have_an_interval_of_no_width(difference):
    assert stratified_interval([[difference] * 5]) == (difference, difference, difference)


def test_one_datasets_interval_keeps_to_the_metrics_range_and_is_unknown_below_two_queries():
    values = np.random.default_rng(0).random(20)
    assert mean_interval(values, 0, 1) == stratified_interval([values])
    mean, low, high = stratified_interval([[0.0, 1.0]])
    assert low < 0 < 1 < high
    assert mean_interval([0.0, 1.0], 0, 1) == (mean, 0, 1)
    assert mean_interval([0.3], 0, 1)[0] == 0.3
    assert np.isnan(mean_interval([0.3], 0, 1)[1:]).all()
    assert np.isnan(mean_interval([], 0, 1)).all()


@pytest.mark.parametrize("values", [[], [0.3]])
def test_too_few_queries_are_refused(values):
    with pytest.raises(ValueError, match=rf"each at least 2 long, got the shapes \[\({len(values)},\)\]"):
        stratified_interval([values])


def normal_scores(n, mean, spread):
    return mean + spread * stats.norm.ppf((np.arange(n) + 0.5) / n)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_stratified_interval_of_one_normal_dataset_is_the_t_interval(confidence):
    """Of 12 queries: the percentile interval would be an eighth narrower at 95 %."""
    values = normal_scores(12, 0.1, 0.3)
    found = stratified_interval([values], confidence, 40_000)
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert found == pytest.approx((values.mean(), *expected), abs=0.03 * (expected.high - expected.low) / 2)


def test_a_stratified_interval_of_two_normal_datasets_is_the_welch_interval():
    """The mean of two means is half the difference of one and the other negated, which Welch's test compares."""
    first, second = normal_scores(9, 0.4, 0.3), normal_scores(25, -0.1, 0.2)
    found = stratified_interval([first, second], resamples=40_000)
    welch = stats.ttest_ind(first, -second, equal_var=False).confidence_interval()
    half = (welch.high - welch.low) / 4
    assert found == pytest.approx((0.15, welch.low / 2, welch.high / 2), abs=0.03 * half)


def test_a_dataset_counts_once_however_many_queries_it_has():
    assert stratified_interval([[0.0, 2.0], [0.0] * 50]).mean == 0.5


def test_a_skewed_dataset_has_a_skewed_interval():
    values = np.random.default_rng(3).exponential(0.3, 30)
    mean, low, high = stratified_interval([values])
    assert high - mean > 1.1 * (mean - low)


def test_a_stratified_interval_is_a_function_of_the_seed_in_bounded_memory(monkeypatch):
    values = np.random.default_rng(0).normal(size=1000)
    tracemalloc.start()
    found = stratified_interval([values])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # the draws all at once would be 80 MB, their counts as much again
    monkeypatch.setattr(significance, "DRAWS_AT_ONCE", 10**5)
    assert stratified_interval([values]) == pytest.approx(found, abs=1e-12)
    assert stratified_interval([values], seed=1).low != found.low


def test_equal_differences_have_a_stratified_interval_of_no_width():
    assert stratified_interval([[0.25] * 5, [0.1] * 3]) == pytest.approx((0.175, 0.175, 0.175), abs=1e-15)


def test_an_interval_depends_on_the_numbers_alone_and_not_on_where_they_stand():
    """Two reports of the same queries, in the order of a file and in that of ids, must not differ in a digit."""
    draws = np.random.default_rng(8)
    strata = [draws.random(50), draws.random(50), draws.random(30)]
    moved = [draws.permutation(values) for values in strata]
    expected = stratified_interval(strata)
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        assert stratified_interval([moved[i] for i in order]) == pytest.approx(expected, abs=1e-15)


def test_many_means_have_the_intervals_that_each_has_alone():
    draws = np.random.default_rng(2)
    strata = [draws.exponential(size=(20, 3)), draws.normal(size=(30, 3))]
    low, high = mean_intervals(strata, 0.9, 500, seed=4)
    alone = [stratified_interval([v[:, i] for v in strata], 0.9, 500, seed=4) for i in range(3)]
    assert low == pytest.approx([interval.low for interval in alone], abs=1e-12)
    assert high == pytest.approx([interval.high for interval in alone], abs=1e-12)


def test_one_table_is_one_dataset():
    values = np.random.default_rng(2).normal(size=(20, 3))
    np.testing.assert_array_equal(mean_intervals(values), mean_intervals([values]))


@pytest.mark.parametrize("strata", [np.zeros((1, 2)), np.zeros((0, 2)), [np.zeros((5, 2)), np.zeros((1, 2))]])
def test_too_few_queries_for_many_means_are_not_a_number(strata):
    assert np.isnan(mean_intervals(strata)).all()
    assert np.shape(mean_intervals(strata)) == (2, 2)


@pytest.mark.parametrize("function", [stratified_interval, minimum_detectable_difference])
@pytest.mark.parametrize("strata", [[], [[0.3]], [[0.1, 0.2], [0.3]], [0.1, 0.2], [[[0.1, 0.2]]]])
def test_strata_without_a_spread_are_refused(function, strata):
    with pytest.raises(ValueError, match=r"of 1 dimension\(s\), each at least 2 long, got the shapes \["):
        function(strata)


@pytest.mark.parametrize("function", [stratified_interval, minimum_detectable_difference, randomisation_test])
def test_a_difference_that_is_not_a_number_is_refused(function):
    """Nothing is as extreme as NaN, so the test would find any such difference significant."""
    with pytest.raises(ValueError, match="must be finite"):
        function([[0.1, np.nan, 0.2]])


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_that_is_no_probability_is_refused(confidence):
    for function, values in (
        (stratified_interval, [[0.1, 0.2]]),
        (mean_intervals, np.eye(3)),
        (seed_variance, np.eye(3)),
    ):
        with pytest.raises(ValueError, match="between 0 and 1, got"):
            function(values, confidence)


@pytest.mark.parametrize("seed", range(5))
def test_the_exact_randomisation_test_is_scipys(seed):
    values = np.random.default_rng(seed).normal(0.3, 0.5, 10).round(1)
    expected = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=2**10)
    assert randomisation_test([values]) == pytest.approx(expected.pvalue, abs=1e-12)


def test_the_drawn_randomisation_test_is_near_scipys_exact_one():
    values = np.random.default_rng(1).exponential(0.5, 16) - 0.25
    expected = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=2**16).pvalue
    found = randomisation_test([values], 20_000)
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected / 20_000))
    assert found == randomisation_test([values], 20_000) != randomisation_test([values], 20_000, seed=1)


@pytest.mark.parametrize(
    ("strata", "p_value"),
    [
        ([[0.0, 0.0], [0.0]], 1.0),
        ([[1.0, 1.0, 1.0]], 2 / 8),
        ([[1.0] * 3 + [0.0] * 20], 2 / 8),  # exact, as zeros have no sign
        ([[1.0, 2.0, 3.0, -1.0]], 6 / 16),  # 5 or more of 7 either way: all plus, or either 1 minus
        ([[0.1, 0.2, -0.3]], 1.0),  # 0, and not quite 0 in floats
        ([[0.1, 0.2, 0.3, -0.1]], 6 / 16),  # of 0.5 each in another order
        ([[2.0], [-1.0, -1.0, -1.0, -1.0]], 1.0),  # 1 - 4 / 8: every other assignment is as far from 0
        ([[2.0], [1.0, 1.0, 1.0, 1.0]], 2 / 32),
    ],
)
def test_a_randomisation_test_worked_by_hand(strata, p_value):
    assert randomisation_test(strata) == p_value


def test_no_drawn_p_value_is_zero():
    assert randomisation_test([np.ones(200)], resamples=99) == 0.01


def test_a_dataset_without_queries_cannot_be_tested():
    with pytest.raises(ValueError, match=r"at least 1 long, got the shapes \[\(2,\), \(0,\)\]"):
        randomisation_test([[0.1, 0.2], []])


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 0.04 x 1 is raised to 0.03 x 2
        ([0.6, 0.01, 0.5], [1.0, 0.03, 1.0]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm_worked_by_hand(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted, abs=1e-15)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, np.nan])
def test_holm_refuses_what_is_no_p_value(wrong):
    with pytest.raises(ValueError, match="from 0 to 1, got"):
        holm([0.5, wrong])


def test_a_minimum_detectable_difference_worked_by_hand():
    """16 differences of 1 either way: a standard error of sqrt(16 / 15 / 16), and t of 15 degrees of freedom."""
    values = np.asarray([-1.0, 1.0] * 8)
    expected = (2.13145 + 0.86624) / np.sqrt(15)
    assert minimum_detectable_difference([values]) == pytest.approx(expected, rel=1e-5)
    equal_datasets = (2.04227 + 0.85377) / np.sqrt(30)  # half the variance, 30 degrees of freedom
    assert minimum_detectable_difference([values, values + 3]) == pytest.approx(equal_datasets, rel=1e-5)


def test_wins_ties_and_losses():
    assert win_tie_loss([0.1, 0.0, 1e-10, -1e-10, -0.2, 0.3]) == (2, 3, 1)
    assert win_tie_loss([0.2, -0.2, 0.3], tolerance=0.2) == (1, 2, 0)
    assert win_tie_loss([]) == (0, 0, 0)
