"""Two evaluations of the same queries, told apart by the paired test."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from crossrank.errors import DataError
from crossrank.evaluation.significance import Interval, randomisation_test, stratified_interval

MEAN = "mean"  # names all datasets of an evaluator, in the key of a metric


@dataclass(frozen=True)
class Paired:
    """A metric of two systems on the same queries, and their difference: mean, 95 % interval, two-sided p.

    The ends of the interval are NaN where a dataset has one query.
    """

    value: float
    against: float
    difference: Interval
    p: float
    queries: int

    def facts(self) -> dict[str, Any]:
        """Return it for another program; what is not known is None."""
        difference = [None if np.isnan(end) else float(end) for end in self.difference]
        return asdict(self) | {"difference": difference}


def paired(ours: pd.DataFrame, theirs: pd.DataFrame, dataset: str, metric: str) -> Paired:
    """Compare one metric of the rows of two `Evaluation`s of an evaluator, on a dataset or, of `mean`, on all of them.

    The mean is the unweighted one over datasets, the test a randomisation test, the interval a bootstrap over the
    queries of each dataset.

    Raises:
        DataError: the two were not evaluated on the same queries.
    """
    tables = [_values(rows, dataset, metric) for rows in (ours, theirs)]
    if not len(tables[0]) or set(tables[0].index) != set(tables[1].index):
        raise DataError(f"{metric} of {dataset} is not of the same queries in both: a paired test compares no others")
    both = pd.DataFrame({"ours": tables[0], "theirs": tables[1]})
    means = both.groupby(level="dataset", sort=False).mean().mean()
    differences = both["ours"] - both["theirs"]
    strata = [part.to_numpy(float) for _, part in differences.groupby(level="dataset", sort=False)]
    seen = float(np.mean([part.mean() for part in strata]))
    interval = Interval(seen, np.nan, np.nan)
    if min(map(len, strata)) > 1:
        found = stratified_interval(strata)
        interval = Interval(seen, max(found.low, -1.0), min(found.high, 1.0))
    return Paired(
        float(means["ours"]), float(means["theirs"]), interval, randomisation_test(strata), sum(map(len, strata))
    )


def _values(rows: pd.DataFrame, dataset: str, metric: str) -> "pd.Series[float]":
    chosen = rows[(rows["metric"] == metric) & ((rows["dataset"] == dataset) | (dataset == MEAN))]
    return chosen.set_index(["dataset", "query_id"])["value"].astype(float)
