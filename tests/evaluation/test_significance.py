"""paired_interval against a bootstrap written out, the normal approximation, and its coverage."""

import numpy as np
import pytest
from scipy import stats

from crossrank.evaluation.significance import paired_interval


def bootstrap_by_hand(values, confidence, resamples, seed):
    draws = np.random.default_rng(seed)
    means = values[draws.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    tail = (1 - confidence) / 2
    return np.quantile(means, [tail, 1 - tail])


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_equals_a_bootstrap_written_out(confidence):
    """Skewed differences of 30 queries, where the percentile interval is not symmetric."""
    values = np.random.default_rng(3).exponential(0.3, 30) - 0.1
    found = paired_interval(values, confidence)
    low, high = bootstrap_by_hand(values, confidence, 40_000, seed=99)
    noise = 0.03 * values.std()  # of two bootstraps of 10,000 and 40,000 resamples
    assert found.mean == pytest.approx(values.mean(), abs=1e-15)
    assert (found.low, found.high) == pytest.approx((low, high), abs=noise)
    assert found.high - found.mean > found.mean - found.low


def test_the_interval_is_of_percentiles():
    """One of eight queries gains 4: no resample has a negative mean, so neither has the interval."""
    values = np.asarray([0.0] * 7 + [4.0])
    found = paired_interval(values)
    assert found.low == 0.0
    assert found.high == bootstrap_by_hand(values, 0.95, 40_000, seed=5)[1] == 1.5


def test_equals_the_normal_approximation_where_it_holds():
    values = np.random.default_rng(0).normal(0.05, 0.4, 2000)
    found = paired_interval(values)
    half = stats.norm.ppf(0.975) * values.std() / np.sqrt(len(values))
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_covers_the_true_mean_as_often_as_it_says():
    """160 experiments of 50 queries: 80 % intervals hold the true mean in 80 %, give or take 3 standard errors."""
    draws = np.random.default_rng(1)
    intervals = [paired_interval(draws.normal(0.1, 1, 50), 0.8, 500, seed) for seed in range(160)]
    share = np.mean([low <= 0.1 <= high for _, low, high in intervals])
    assert share == pytest.approx(0.8, abs=3 * np.sqrt(0.8 * 0.2 / 160))


def test_is_a_function_of_the_seed():
    values = np.random.default_rng(0).normal(size=20)
    assert paired_interval(values, seed=1) == paired_interval(values, seed=1)
    assert paired_interval(values, seed=1) != paired_interval(values, seed=2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("difference", [0.0, 0.25, -1.0])
def test_equal_differences_have_an_interval_of_no_width(difference):
    assert paired_interval([difference] * 5) == (difference, difference, difference)


def test_two_queries_are_enough():
    mean, low, high = paired_interval([0.0, 1.0])
    assert (mean, low, high) == (0.5, 0.0, 1.0)


@pytest.mark.parametrize("values", [[], [0.3]])
def test_too_few_queries_are_refused(values):
    with pytest.raises(ValueError, match=f"at least 2 queries, got {len(values)}"):
        paired_interval(values)
