"""A scorer in, per-query numbers out; BM25, a sentence-transformers model and our checkpoint go through one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from crossrank.hub import Asset


class Scorer(Protocol):
    """Anything that scores texts."""

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """Return a score for each (question, document), higher for more relevant."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """Per-query results: columns dataset, query_id, metric, value, base_value (the first stage's; NaN if none)."""

    rows: pd.DataFrame

    def means(self) -> pd.DataFrame:
        """Return value and base_value by (dataset, metric), and their unweighted mean over datasets as "mean"."""
        columns = ["value", "base_value"]
        by_dataset = self.rows.groupby(["dataset", "metric"], sort=False)[columns].mean()
        overall = by_dataset.groupby("metric", sort=False).mean()
        overall.index = pd.MultiIndex.from_product([["mean"], overall.index], names=["dataset", "metric"])
        return pd.concat([by_dataset, overall])

    def metrics(self, evaluator: str) -> dict[str, float]:
        """Return the means under their keys: eval/<evaluator>/<dataset>/<metric>, base values as base_<metric>."""
        named = {}
        for row in self.means().itertuples():
            dataset, metric = row.Index
            named[metric_key(evaluator, dataset, metric)] = float(row.value)
            if not np.isnan(row.base_value):
                named[metric_key(evaluator, dataset, f"base_{metric}")] = float(row.base_value)
        return named


class Evaluator(Protocol):
    """Something to evaluate on; `prepare` may take long and fetch, calling may not."""

    at_k: int

    @property
    def datasets(self) -> Sequence[str]:
        """The names of its datasets."""
        ...

    def assets(self) -> Sequence[Asset]:
        """Return what may have to be fetched."""
        ...

    def prepare(self) -> None:
        """Load the questions, candidates and judgements, so that what is wrong with them shows before training."""
        ...

    def __call__(self, score: Scorer) -> Evaluation:
        """Rerank with a scorer."""
        ...


def metric_names(at_k: int) -> tuple[str, str, str]:
    """Return the names of the three metrics."""
    return ("map", f"mrr@{at_k}", f"ndcg@{at_k}")


def metric_key(evaluator: str, dataset: str, metric: str) -> str:
    """Return the key under which loggers see a metric."""
    return f"eval/{evaluator}/{dataset}/{metric}"


def produced_keys(evaluators: "dict[str, Evaluator]") -> list[str]:
    """Return every key that these evaluators produce, before any of them runs."""
    return [
        metric_key(name, dataset, metric)
        for name, evaluator in evaluators.items()
        for dataset in (*evaluator.datasets, "mean")
        for metric in metric_names(evaluator.at_k)
    ]
