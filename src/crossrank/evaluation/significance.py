"""How sure a difference between two systems on the same queries is."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats


class Interval(NamedTuple):
    """A mean and the interval that holds it with the stated confidence."""

    mean: float
    low: float
    high: float


def paired_interval(
    differences: npt.ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Return the mean of per-query differences and its percentile-bootstrap interval over queries.

    Source: scipy.stats.bootstrap, method="percentile".

    Raises:
        ValueError: fewer than two queries.
    """
    values = np.asarray(differences, np.float64)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 queries, got {len(values)}")
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    generator = np.random.default_rng(seed)
    found = stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, n_resamples=resamples, method="percentile", rng=generator
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))
