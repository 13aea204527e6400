"""A scorer in, per-query numbers out; BM25, a sentence-transformers model and our checkpoint go through one call."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from crossrank.evaluation.significance import mean_intervals
from crossrank.hub import Asset

if TYPE_CHECKING:
    from crossrank.evaluation.reranking import RerankingTask

Protocols = Literal["st", "trec"]


class Scorer(Protocol):
    """Anything that scores texts; one that knows which pairs it cuts to its length also has `truncated`."""

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """Return a score for each (question, document), higher for more relevant."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found.

    `rows`, one a query and metric: dataset, query_id, metric, value, base_value (the first stage's; NaN if none),
    ceiling (the value of the best possible order of the same list), first_rank and base_rank (of the first relevant
    document, after reranking and in the first stage; NaN if none), truncated (the share of the query's pairs that the
    scorer cut; NaN if unknown).

    `scores`, one a scored pair: dataset, query_id, document_id, first_stage_rank (from 1; 0 for a relevant document
    that the first stage missed and the scorer saw all the same), score, grade (0 if not judged), relevant.
    """

    rows: pd.DataFrame
    scores: pd.DataFrame

    def means(self) -> pd.DataFrame:
        """Return value, base_value and ceiling by (dataset, metric), and their unweighted mean over datasets."""
        columns = ["value", "base_value", "ceiling"]
        by_dataset = self.rows.groupby(["dataset", "metric"], sort=False)[columns].mean()
        overall = by_dataset.groupby("metric", sort=False).mean()
        overall.index = pd.MultiIndex.from_product([["mean"], overall.index], names=["dataset", "metric"])
        return pd.concat([by_dataset, overall])

    def metrics(self, evaluator: str) -> dict[str, float]:
        """Return the means under their keys, eval/<evaluator>/<dataset>/<metric>, with what belongs to each.

        The 95 % interval of a mean over queries is <metric>_low and <metric>_high, the first stage's mean is
        base_<metric>; NDCG also has <metric>_ceiling and <metric>_headroom, the share of what lay between first stage
        and ceiling that was gained.
        """
        named: dict[str, float] = {}
        intervals = self._intervals()
        for row in self.means().itertuples():
            dataset, metric = row.Index
            values = {metric: row.value}
            low, high = intervals[dataset, metric]
            if not np.isnan(low):
                values |= {f"{metric}_low": low, f"{metric}_high": high}
            if not np.isnan(row.base_value):
                values[f"base_{metric}"] = row.base_value
                if "ndcg" in metric:
                    values[f"{metric}_ceiling"] = row.ceiling
                    values |= {f"{metric}_headroom": x for x in [headroom(*row[1:])] if not np.isnan(x)}
            named |= {metric_key(evaluator, dataset, name): float(value) for name, value in values.items()}
        return named

    def _intervals(self) -> dict[tuple[str, str], tuple[float, float]]:
        tables = {
            str(dataset): rows.pivot(index="query_id", columns="metric", values="value")
            for dataset, rows in self.rows.groupby("dataset", sort=False)
        }
        groups = {dataset: [table] for dataset, table in tables.items()} | {"mean": list(tables.values())}
        found: dict[tuple[str, str], tuple[float, float]] = {}
        for dataset, members in groups.items():
            names = list(members[0].columns)
            low, high = mean_intervals([table[names].to_numpy() for table in members])
            found |= {(dataset, name): (max(low[i], 0.0), min(high[i], 1.0)) for i, name in enumerate(names)}
        return found


def headroom(value: float, base: float, ceiling: float) -> float:
    """Return the share of the gain that the best possible order would have made; NaN where there is none to make."""
    return (value - base) / (ceiling - base) if ceiling > base else np.nan


class Evaluator(Protocol):
    """Something to evaluate on; `prepare` may take long and fetch, calling may not."""

    at_k: int
    protocol: Protocols

    @property
    def datasets(self) -> Sequence[str]:
        """The names of its datasets."""
        ...

    @property
    def tasks(self) -> "Sequence[RerankingTask]":
        """The questions, candidates and judgements of each dataset."""
        ...

    def assets(self) -> Sequence[Asset]:
        """Return what may have to be fetched."""
        ...

    def prepare(self) -> None:
        """Load the tasks, so that what is wrong with them shows before training."""
        ...

    def __call__(self, score: Scorer) -> Evaluation:
        """Rerank with a scorer."""
        ...


def refuse_below_one(**counts: int) -> None:
    """Refuse settings of an evaluator that count something and are below 1.

    Raises:
        ValueError: names all of them, and what they were.
    """
    if min(counts.values()) < 1:
        raise ValueError(f"{_listed(counts)} must be at least 1, got {_listed(counts.values())}")


def _listed(words: Iterable[object]) -> str:
    *most, last = map(str, words)
    return f"{', '.join(most)} and {last}" if most else last


def metric_names(at_k: int, protocol: Protocols) -> tuple[str, ...]:
    """Return the names of the metrics; `st` has trec's from the same scores as well."""
    st = ("map", f"mrr@{at_k}", f"ndcg@{at_k}")
    trec = tuple(f"trec_{name}" for name in st)
    return trec if protocol == "trec" else (*st, *trec)


def metric_key(evaluator: str, dataset: str, metric: str) -> str:
    """Return the key under which loggers see a metric."""
    return f"eval/{evaluator}/{dataset}/{metric}"


def produced_keys(evaluators: "dict[str, Evaluator]") -> list[str]:
    """Return the key of every metric that these evaluators produce, before any of them runs."""
    return [
        metric_key(name, dataset, metric)
        for name, evaluator in evaluators.items()
        for dataset in (*evaluator.datasets, "mean")
        for metric in metric_names(evaluator.at_k, evaluator.protocol)
    ]
