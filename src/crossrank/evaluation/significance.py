"""How sure a mean over queries, or a difference between two systems on the same queries, is.

`strata` holds one float array a dataset, and the number in question is the unweighted mean over the datasets of the
mean over their queries; one numpy array stands for a single dataset. Every function of strata raises ValueError where
there is no dataset, too few queries or seeds, a value that is not finite, or a probability outside (0, 1).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]
Strata = Sequence[npt.ArrayLike] | Array

DRAWS_AT_ONCE = 2**21  # keeps a block of resamples to some 50 MB
ENUMERATED = 14  # non-zero differences at most, for all 2**14 assignments of signs to be gone through
ROUNDING = 1e-12  # of the sum of magnitudes: sums of the same terms in two orders differ by less


class Interval(NamedTuple):
    """A mean and the interval that holds it with the stated confidence."""

    mean: float
    low: float
    high: float


class Outcomes(NamedTuple):
    """How many queries the first system wins, ties and loses."""

    wins: int
    ties: int
    losses: int


class SeedVariance(NamedTuple):
    """The uncertainty of a mean over seeds and queries, in the metric's unit; se is a standard error of that mean."""

    mean: float
    query_se: float  # because only these queries were drawn
    seed_sd: float  # of one training's mean over all queries there could be; of a difference, one training of each
    seed_se: float  # because only these seeds were run
    total_se: float  # the root of query_se ** 2 + seed_se ** 2
    interval: Interval  # Student's t with Satterthwaite's degrees of freedom


def stratified_interval(strata: Strata, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Return the mean of the datasets' means and its bootstrap interval over the queries [queries] of each dataset.

    A percentile interval of few queries is too narrow, so the deviations of the resampled means are widened by
    sqrt(n / (n - 1)) in each dataset and by the ratio of Student's quantile to the normal one, with Satterthwaite's
    degrees of freedom. The interval of a handful of queries can therefore leave the range of the metric.

    Source: Hesterberg, What teachers should know about the bootstrap, The American Statistician 69(4), 2015, whose
    expanded percentile interval moves the levels by these two factors; widening needs no extreme quantiles.
    """
    datasets = [values[:, None] for values in _checked(strata, 1, 2)]
    low, high = mean_intervals(datasets, confidence, resamples, seed)
    return Interval(float(_spread(datasets)[0][0]), float(low[0]), float(high[0]))


def mean_interval(values: npt.ArrayLike, lowest: float, highest: float) -> Interval:
    """Return the 95 % `stratified_interval` of one dataset's values [queries], which lie from `lowest` to `highest`.

    The interval is cut to that range; its ends are NaN below two queries.
    """
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return Interval(float(array.sum()) if len(array) else np.nan, np.nan, np.nan)
    mean, low, high = stratified_interval([array])
    return Interval(mean, max(low, lowest), min(high, highest))


def mean_intervals(
    values: Strata, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[Array, Array]:
    """Return the lower and the upper ends, each [columns], of the `stratified_interval` of every column's mean.

    `values` are strata of [queries, columns]. All ends are NaN where a dataset has fewer than two queries.
    """
    datasets = _checked(values, 2, 0, confidence)
    if min(map(len, datasets)) < 2:
        low, high = np.full((2, datasets[0].shape[1]), np.nan)
        return low, high
    tail = (1 - confidence) / 2
    mean, _, freedom = _spread(datasets)
    widening = stats.t.ppf(tail, freedom) / stats.norm.ppf(tail)
    low, high = np.quantile(_deviations(datasets, resamples, seed), [tail, 1 - tail], axis=0)
    return mean + low * widening, mean + high * widening


def randomisation_test(strata: Strata, resamples: int = 10_000, seed: int = 0) -> float:
    """Return the two-sided p-value, in (0, 1], of the mean of the datasets' means by flipping differences' signs.

    All assignments of signs to the differences [queries] are gone through where there are at most 2**14; otherwise
    `resamples` are drawn, and b of them as extreme as what was seen give (b + 1) / (resamples + 1).

    Source: Smucker, Allan & Carterette, CIKM 2007; (b + 1) / (m + 1): Davison & Hinkley, Bootstrap Methods, chapter 4.
    """
    datasets = _checked(strata, 1, 1)
    terms = np.concatenate([values / (len(values) * len(datasets)) for values in datasets])
    terms = terms[terms != 0]  # the sign of a zero changes nothing
    threshold = abs(terms.sum()) - ROUNDING * np.abs(terms).sum()
    if len(terms) <= ENUMERATED:
        flips = np.arange(2 ** len(terms))[:, None] >> np.arange(len(terms)) & 1
        return float((np.abs((1 - 2 * flips) @ terms) >= threshold).mean())
    generator = np.random.default_rng(seed)
    drawn = (generator.integers(0, 2, (rows, len(terms)), np.int8) for rows in _blocks(resamples, len(terms)))
    found = sum(int((np.abs((1 - 2 * flips) @ terms) >= threshold).sum()) for flips in drawn)
    return (found + 1) / (resamples + 1)


def holm(p_values: npt.ArrayLike) -> Array:
    """Return the p-values [tests] adjusted for their number, in the order given.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6(2), 1979.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    values = np.asarray(p_values, np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p-values must lie from 0 to 1, got {values.tolist()}")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(adjusted, 1.0)


def minimum_detectable_difference(strata: Strata, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the least true difference that a two-sided test at `alpha` finds with probability `power`.

    The standard error of the mean of the datasets' means, from differences [queries], times the sum of Student's
    quantiles at 1 - alpha / 2 and at `power`. Source: Bloom, Minimum detectable effects, Evaluation Review 19(5), 1995.
    """
    _, error, freedom = _spread([values[:, None] for values in _checked(strata, 1, 2, alpha, power)])
    return float(((stats.t.ppf(1 - alpha / 2, freedom) + stats.t.ppf(power, freedom)) * error)[0])


def win_tie_loss(differences: npt.ArrayLike, tolerance: float = 1e-9) -> Outcomes:
    """Count the differences [queries] above, within and below a tie, which is at most `tolerance` from 0."""
    values = np.asarray(differences, np.float64)
    wins, losses = int((values > tolerance).sum()), int((values < -tolerance).sum())
    return Outcomes(wins, len(values) - wins - losses, losses)


def seed_variance(values: Strata, confidence: float = 0.95) -> SeedVariance:
    """Split the uncertainty of a mean into what the queries and what the seeds of at least two trainings add.

    `values` are strata of [seeds, queries], of the same seeds; of differences where the other system has no seed.
    Two-way analysis of variance without replication, by the method of moments, a negative component cut at 0, so the
    interval is too wide where seeds matter little; what seeds and queries add together counts as the queries'. One
    training's mean is that of all the datasets.

    Source: Searle, Casella & McCulloch, Variance Components, 1992, chapter 4; Satterthwaite, Biometrics 2(6), 1946.
    """
    datasets = _checked(values, 2, 2, confidence)
    return _combined([table.mean(axis=0) for table in datasets], _seeds(datasets), confidence)


def difference_variance(a: Strata, b: Strata, confidence: float = 0.95) -> SeedVariance:
    """Do as `seed_variance` for a minus b, strata of [seeds of a, queries] and [seeds of b, queries], queries alike."""
    ours, theirs = _checked(a, 2, 2, confidence), _checked(b, 2, 2)
    queries = [[table.shape[1] for table in tables] for tables in (ours, theirs)]
    if queries[0] != queries[1]:
        raise ValueError(f"a and b must have the same queries in every dataset, got {queries[0]} and {queries[1]}")
    differences = [x.mean(axis=0) - y.mean(axis=0) for x, y in zip(ours, theirs, strict=True)]
    return _combined(differences, _seeds(ours) + _seeds(theirs), confidence)


def _seeds(datasets: list[Array]) -> Array:
    """Return the seeds' variance of one training's mean, of the mean of all, and their term in Satterthwaite's sum."""
    if len({len(table) for table in datasets}) > 1:
        raise ValueError(f"every dataset needs the same seeds, got {[len(table) for table in datasets]} of them")
    count = len(datasets[0])
    seen = np.mean([table.mean(axis=1) for table in datasets], axis=0).var(ddof=1)
    residuals = [table - table.mean(0) - table.mean(1, keepdims=True) + table.mean() for table in datasets]
    squares = sum((r**2).sum() / ((count - 1) * (r.shape[1] - 1) * r.shape[1]) for r in residuals)
    own = max(0.0, seen - squares / len(datasets) ** 2)
    return np.array([own, own / count, (seen / count) ** 2 / (count - 1)])


def _combined(queries: list[Array], seeds: Array, confidence: float) -> SeedVariance:
    mean, error, freedom = (float(x[0]) for x in _spread([values[:, None] for values in queries]))
    seed_sd, seed_se = (float(x) for x in np.sqrt(seeds[:2]))
    total = float(np.hypot(error, seed_se))
    freedom = total**4 / (error**4 / freedom + seeds[2]) if total > 0 else freedom
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * total
    return SeedVariance(mean, error, seed_sd, seed_se, total, Interval(mean, mean - half, mean + half))


def _checked(strata: Strata, dimensions: int, least: int, *probabilities: float) -> list[Array]:
    single = isinstance(strata, np.ndarray) and strata.ndim == dimensions
    datasets = [np.asarray(values, np.float64) for values in ([strata] if single else strata)]
    shapes = [values.shape for values in datasets]
    if not datasets or any(len(shape) != dimensions or min(shape) < least for shape in shapes):
        need = f"of {dimensions} dimension(s), each at least {least} long"
        raise ValueError(f"strata must be one array or more {need}, got the shapes {shapes}")
    if not all(np.isfinite(values).all() for values in datasets):
        raise ValueError("strata must be finite, got a value that is NaN or infinite")
    if not all(0 < probability < 1 for probability in probabilities):
        raise ValueError(f"a probability must lie between 0 and 1, got {probabilities}")
    return datasets


def _spread(datasets: list[Array]) -> tuple[Array, Array, Array]:
    """Return the mean of the datasets' means, its standard error and Satterthwaite's degrees of freedom, [columns]."""
    freedoms = np.array([[len(values) - 1] for values in datasets])
    mean = np.mean([values.mean(axis=0) for values in datasets], axis=0)
    parts = np.stack([values.var(axis=0, ddof=1) / len(values) for values in datasets]) / len(datasets) ** 2
    total = parts.sum(axis=0)
    shares = np.divide(parts, total, out=np.full_like(parts, 1 / len(datasets)), where=total > 0)
    return mean, np.sqrt(total), 1 / (shares**2 / freedoms).sum(axis=0)


def _blocks(resamples: int, width: int) -> list[int]:
    rows = max(1, DRAWS_AT_ONCE // width)
    return [min(rows, resamples - start) for start in range(0, resamples, rows)]


def _deviations(datasets: list[Array], resamples: int, seed: int) -> Array:
    """Return how far each resample's mean is from the mean, widened within the datasets, [resamples, columns].

    Resampling does not ask in what order values or datasets stand, so each column is put in an order of its own: equal
    numbers have equal intervals, to the last digit, whoever asks for them and in whatever company.
    """
    generator = np.random.default_rng(seed)
    deviations = np.zeros((resamples, datasets[0].shape[1]))
    for n in sorted(set(map(len, datasets))):
        alike = np.sort([values for values in datasets if len(values) == n], axis=1)
        for values in np.take_along_axis(alike, alike.mean(axis=1, keepdims=True).argsort(axis=0), axis=0):
            centred = (values - values.mean(axis=0)) / (len(datasets) * np.sqrt(n * (n - 1)))
            deviations += np.concatenate([_counts(generator, rows, n) @ centred for rows in _blocks(resamples, n)])
    return deviations


def _counts(generator: np.random.Generator, rows: int, n: int) -> npt.NDArray[np.int64]:
    drawn = generator.integers(0, n, (rows, n)) + np.arange(rows)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
