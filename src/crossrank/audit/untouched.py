"""What the queries that a training set has seen do to the metrics."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pandas import DataFrame

from crossrank.analysis.sections import Section
from crossrank.analysis.summary import UNKNOWN, shown
from crossrank.audit.leaks import QUERY, Leaks
from crossrank.errors import DataError
from crossrank.evaluation.significance import Interval, mean_intervals

Table = npt.NDArray[np.float64]  # [queries, 2 * metrics]: the values of the metrics, then those of the first stage

COLUMNS = [*QUERY, "metric", "value", "base_value"]
HEADER = ("dataset", "metric", "queries", "touched", "all", "untouched", "touched alone", "difference", "first stage's")
NOTE = (
    "Difference is all minus untouched: what the touched queries add to the number. First stage's is the same of the "
    "first stage, which was trained on nothing: as much of the difference comes from touched queries that are easier "
    "or harder than others. Brackets hold 95 % intervals (bootstrap over the queries; the touched and the untouched "
    "ones of a difference are drawn apart). Means are unweighted and leave out datasets without untouched queries."
)


@dataclass(frozen=True)
class WithAndWithout:
    """One metric of one dataset, or of the mean of several; what is not known is NaN."""

    dataset: str
    metric: str
    queries: int
    touched: int  # of the queries
    every: Interval
    without: Interval  # on the untouched queries; NaN if all are touched
    alone: Interval  # on the touched queries; NaN if none is; of a mean, if a dataset has none
    difference: Interval  # `every` minus `without`; 0 if none is touched
    base_difference: Interval  # the same of the first stage

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, in the order of HEADER."""
        numbers = [shown(value) for value in (self.every, self.without, self.alone)]
        changes = [shown(value, "+") for value in (self.difference, self.base_difference)]
        return (self.dataset, self.metric, str(self.queries), str(self.touched), *numbers, *changes)


def with_and_without(rows: DataFrame, leaks: Leaks) -> list[WithAndWithout]:
    """Return every metric on all, on the untouched and on the touched queries, and what the touched ones add.

    `rows` are of one step, one a query and metric, as in `Evaluation`; with a column `evaluator`, each evaluator's
    datasets are followed by their mean. Which queries are touched is taken as given, so the difference is the share of
    touched queries times the difference of two means of independent queries.

    Raises:
        DataError: a column is missing, a value stands there twice, or a dataset was not looked at for leaks.
    """
    if lacking := [name for name in COLUMNS if name not in rows]:
        raise DataError(f"the evaluation lacks the columns {lacking}; it has: {', '.join(map(str, rows))}")
    if unknown := sorted(set(rows["dataset"]) - leaks.queries.keys()):
        raise DataError(
            f"the datasets {unknown} were evaluated on and not looked at for leaks, which were {sorted(leaks.queries)}"
        )
    found: list[WithAndWithout] = []
    for _, own in rows.groupby("evaluator", sort=False) if "evaluator" in rows else [("", rows)]:
        found += _of_one_evaluator(own, leaks)
    return found


def section(found: Sequence[WithAndWithout]) -> Section:
    """Return the rows as a section of a page."""
    return Section("With and without the touched queries", NOTE, HEADER, [row.cells() for row in found])


def _of_one_evaluator(rows: DataFrame, leaks: Leaks) -> Iterator[WithAndWithout]:
    metrics = list(dict.fromkeys(rows["metric"]))
    tables = {name: _table(rows[rows["dataset"] == name], metrics) for name in dict.fromkeys(rows["dataset"])}
    keys = leaks.keys
    parts = {
        name: (table, np.asarray([(name, query) in keys for query in queries], np.bool_))
        for name, (queries, table) in tables.items()
    }
    for name, part in parts.items():
        yield from _compared(name, metrics, [part])
    comparable = [(table, touched) for table, touched in parts.values() if not touched.all()]
    if len(parts) > 1 and comparable:
        yield from _compared(f"mean of {len(comparable)}", metrics, comparable)


def _table(rows: DataFrame, metrics: list[str]) -> tuple[list[str], Table]:
    """Return the queries, in order, and their values."""
    named = rows.astype(dict.fromkeys(QUERY, str))
    if (twice := named[named.duplicated([*QUERY, "metric"])]).size:
        dataset, query, metric = twice.iloc[0][[*QUERY, "metric"]]
        raise DataError(f"{metric} of the query {query!r} of {dataset} stands there twice; rows of one step are wanted")
    wide = named.pivot(index="query_id", columns="metric", values=["value", "base_value"]).sort_index()
    columns = [(kind, metric) for kind in ("value", "base_value") for metric in metrics]
    return list(wide.index), wide[columns].to_numpy(np.float64)


def _compared(
    name: str, metrics: list[str], parts: Sequence[tuple[Table, npt.NDArray[np.bool_]]]
) -> Iterator[WithAndWithout]:
    count = len(metrics)
    every = _intervals([table for table, _ in parts], 0)
    without = _intervals([table[~touched] for table, touched in parts], 0)
    alone = _intervals([table[touched] for table, touched in parts], 0)
    difference = _intervals(_differences(parts), -1)
    queries, of_them = (sum(int(f(touched)) for _, touched in parts) for f in (len, np.count_nonzero))
    for i, metric in enumerate(metrics):
        yield WithAndWithout(
            name, metric, queries, of_them, every[i], without[i], alone[i], difference[i], difference[count + i]
        )


def _differences(parts: Sequence[tuple[Table, npt.NDArray[np.bool_]]]) -> list[Table]:
    """Return strata the mean of whose means is the mean over the parts of all minus untouched.

    That is the share of touched queries times touched minus untouched; a part without touched queries adds 0.
    """
    mixed = [(table, touched, touched.mean()) for table, touched in parts if touched.any()]
    if not mixed:
        return [np.where(np.isnan(table), np.nan, 0.0) for table, _ in parts]
    factor = 2 * len(mixed) / len(parts)
    return [
        stratum
        for table, touched, share in mixed
        for stratum in (factor * share * table[touched], -factor * share * table[~touched])
    ]


def _intervals(strata: Sequence[Table], lowest: float) -> list[Interval]:
    """Return the interval of each column's mean, cut to what a metric can be; unknown where a stratum is empty."""
    if not all(map(len, strata)):
        return [UNKNOWN] * strata[0].shape[1]
    means = np.mean([table.mean(axis=0) for table in strata], axis=0)
    known = ~np.isnan(means)
    low, high = np.full((2, len(means)), np.nan)
    if known.any():
        low[known], high[known] = mean_intervals([table[:, known] for table in strata])
    low, high = np.maximum(low, lowest), np.minimum(high, 1)
    return [Interval(*map(float, values)) for values in zip(means, low, high, strict=True)]
