"""Which of several systems is better, and how sure that is: paired statistics on the same queries."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pandas import DataFrame

from crossrank.analysis.alignment import Aligned
from crossrank.errors import DataError
from crossrank.evaluation.significance import (
    SeedVariance,
    difference_variance,
    holm,
    mean_intervals,
    minimum_detectable_difference,
    randomisation_test,
    seed_variance,
    win_tie_loss,
)

Array = npt.NDArray[np.float64]
Pairs = Literal["all", "baseline"]

OVERALL = "mean"  # stands for the unweighted mean over the datasets, as in the evaluations
TIE = 1e-9  # a difference of rounding alone is none
POWER = 0.8
SYSTEM_COLUMNS = ["overall", "dataset", "metric", "system", "trainings", "queries", "mean", "low", "high"]
PAIR_COLUMNS = [
    "overall", "dataset", "metric", "system", "against", "queries", "difference", "low", "high",
    "wins", "ties", "losses", "p", "p_holm", "detectable",
    "trainings", "trainings_against", "query_se", "seed_sd", "seed_se", "both_low", "both_high",
]  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """What a comparison found; `overall` marks the rows of the unweighted mean over the datasets.

    `systems` has SYSTEM_COLUMNS: a system's mean over its trainings, with its interval over queries.

    `pairs` has PAIR_COLUMNS. `difference` is `system` minus `against`, its interval is of the mean over trainings and
    counts queries only; wins, ties and losses are queries of `system`. Only overall rows have p (of the paired
    randomisation test), p_holm (adjusted for all tests of the comparison) and detectable (the least true difference
    that a single test at 1 - confidence finds 8 times in 10). Where a system has several trainings, overall rows split
    the standard error of the difference into the queries' and the seeds', seed_sd is of one training (of each, where
    both have several), and both_low to both_high counts queries and seeds. All of these are NaN where they do not
    apply, and intervals are below two queries.
    """

    systems: DataFrame
    pairs: DataFrame
    confidence: float

    @property
    def overall(self) -> DataFrame:
        """The pairs' differences of the mean over the datasets."""
        return self.pairs[self.pairs["overall"]]

    @property
    def tests(self) -> int:
        """How many p-values were corrected together."""
        return len(self.overall)


class Resampling(NamedTuple):
    """How sure is sure, how many resamples are drawn and from which seed."""

    confidence: float = 0.95
    resamples: int = 10_000
    seed: int = 0


class Pair(NamedTuple):
    """Two systems and a metric by their indices, and the per-query differences of each dataset."""

    system: int
    against: int
    metric: int
    differences: list[Array]


def compare(aligned: Aligned, pairs: Pairs = "all", resampling: Resampling | None = None) -> Comparison:
    """Compare every pair of systems, or each with the first (`baseline`), by every metric.

    In a pair of all, the later system is compared against the earlier one. Several trainings of a system are averaged
    query by query before anything is tested.

    Raises:
        DataError: there are fewer than two systems.
    """
    drawn = resampling or Resampling()
    if len(aligned.names) < 2:
        raise DataError(f"a comparison needs at least two systems, got {list(aligned.names)}")
    means = [[values.mean(axis=0) for values in datasets] for datasets in aligned.values]  # of [queries, metrics]
    found = [
        Pair(b, a, m, [_difference(y[:, m], x[:, m]) for y, x in zip(means[b], means[a], strict=True)])
        for a, b in combinations(range(len(means)), 2)
        if pairs == "all" or a == 0
        for m in range(len(aligned.metrics))
    ]
    systems, rows = [], []
    for overall, dataset, chosen in _groups(aligned):
        tables = [np.hstack([*(m[d] for m in means), *(p.differences[d][:, None] for p in found)]) for d in chosen]
        intervals = _intervals(tables, len(means) * len(aligned.metrics), drawn)
        queries = sum(map(len, tables))
        for i, (name, trained) in enumerate(zip(aligned.names, aligned.values, strict=True)):
            for m, metric in enumerate(aligned.metrics):
                interval = intervals[i * len(aligned.metrics) + m]
                systems.append((overall, dataset, metric, name, len(trained[0]), queries, *interval))
        for pair, interval in zip(found, intervals[-len(found) :], strict=True):
            names = (aligned.metrics[pair.metric], aligned.names[pair.system], aligned.names[pair.against])
            outcomes = win_tie_loss(np.concatenate([pair.differences[d] for d in chosen]), TIE)
            more = _tested(aligned, pair, drawn) if overall else {}
            first = (overall, dataset, *names, queries, *interval, *outcomes)
            rows.append(dict(zip(PAIR_COLUMNS, first, strict=False)) | more)
    table = DataFrame(rows, columns=PAIR_COLUMNS)
    table.loc[table["overall"], "p_holm"] = holm(table.loc[table["overall"], "p"])
    return Comparison(DataFrame(systems, columns=SYSTEM_COLUMNS), table, drawn.confidence)


def _groups(aligned: Aligned) -> Iterator[tuple[bool, str, list[int]]]:
    """Yield what a row may be of: all datasets together, then each."""
    yield True, OVERALL, list(range(len(aligned.datasets)))
    for d, dataset in enumerate(aligned.datasets):
        yield False, dataset, [d]


def _difference(ours: Array, theirs: Array) -> Array:
    difference = ours - theirs
    return np.where(np.abs(difference) > TIE, difference, 0.0)


def _intervals(tables: list[Array], means: int, drawn: Resampling) -> Array:
    """Return mean, low and high of every column, [columns, 3]; no end leaves the range that the mean may have.

    The first `means` columns are metrics, from 0 to 1, the others differences of two.
    """
    lowest = np.where(np.arange(tables[0].shape[1]) < means, 0.0, -1.0)
    low, high = (np.clip(end, lowest, 1.0) for end in mean_intervals(tables, *drawn))
    return np.stack([np.mean([table.mean(axis=0) for table in tables], axis=0), low, high], axis=1)


def _tested(aligned: Aligned, pair: Pair, drawn: Resampling) -> dict[str, float]:
    ours, theirs = ([values[:, :, pair.metric] for values in aligned.values[i]] for i in (pair.system, pair.against))
    numbers: dict[str, float] = {
        "p": randomisation_test(pair.differences, drawn.resamples, drawn.seed),
        "trainings": len(ours[0]),
        "trainings_against": len(theirs[0]),
    }
    if min(map(len, pair.differences)) > 1:
        if any(difference.any() for difference in pair.differences):
            numbers["detectable"] = minimum_detectable_difference(pair.differences, 1 - drawn.confidence, POWER)
        if split := _seeds(ours, theirs, drawn.confidence):
            numbers |= {"query_se": split.query_se, "seed_sd": split.seed_sd, "seed_se": split.seed_se}
            numbers |= {"both_low": split.interval.low, "both_high": split.interval.high}
    return numbers


def _seeds(ours: list[Array], theirs: list[Array], confidence: float) -> SeedVariance | None:
    """Split the variance of a difference, of [trainings, queries] each, if a side has several trainings."""
    counts = len(ours[0]), len(theirs[0])
    if max(counts) == 1:
        return None
    if min(counts) == 1:
        return seed_variance([y - x for y, x in zip(ours, theirs, strict=True)], confidence)
    return difference_variance(ours, theirs, confidence)
