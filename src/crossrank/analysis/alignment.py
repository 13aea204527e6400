"""Several systems on the same queries, so that their values can be compared query by query."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pandas import DataFrame, Index, MultiIndex

from crossrank.analysis.systems import System
from crossrank.errors import DataError

log = logging.getLogger(__name__)

Array = npt.NDArray[np.float64]
SHOWN = 3  # queries that a message names
TREC = "trec_"


@dataclass(frozen=True)
class Aligned:
    """Values of the same queries, `values[system][dataset]` of [trainings, queries, metrics].

    A dataset that several evaluators have under one name is called `dataset (evaluator)`, any other by its name,
    whatever its evaluator is called.
    """

    names: tuple[str, ...]
    metrics: tuple[str, ...]
    datasets: tuple[str, ...]
    values: tuple[tuple[Array, ...], ...]

    @property
    def queries(self) -> list[int]:
        """How many queries each dataset has."""
        return [values.shape[1] for values in self.values[0]]


class Member(NamedTuple):
    """One training of a system: values by (dataset, query_id) and metric, and its first stage's likewise."""

    name: str
    datasets: tuple[str, ...]
    values: DataFrame
    base: DataFrame


def align(systems: Sequence[System], metrics: Sequence[str] | None = None, common_only: bool = False) -> Aligned:
    """Bring systems to the same datasets, queries and metrics, in the same order.

    Without `metrics` they are those of sentence-transformers' protocol that all systems have in all datasets, else
    those of trec_eval's. `common_only` leaves out what not all systems have, with a warning.

    Raises:
        DataError: the systems have not the same datasets and queries, or none in common, or a metric is missing.
    """
    members = [[*_members(system, _ambiguous(systems))] for system in systems]
    everyone = [member for trainings in members for member in trainings]
    queries = _same_queries(everyone, common_only)
    _warn_of_first_stages(everyone, queries)
    chosen = _metrics(everyone, queries, metrics)
    datasets = tuple(dataset for dataset in everyone[0].datasets if dataset in queries.levels[0])
    values = [
        [
            np.stack([m.values.loc[queries[queries.get_loc(dataset)], chosen].to_numpy(float) for m in trainings])
            for dataset in datasets
        ]
        for trainings in members
    ]
    return Aligned(tuple(system.name for system in systems), tuple(chosen), datasets, tuple(map(tuple, values)))


def _ambiguous(systems: Sequence[System]) -> set[str]:
    """Return the datasets that several evaluators of one system have under the same name."""
    counts = [table.groupby("dataset")["evaluator"].nunique() for system in systems for table in system.trainings]
    return {str(dataset) for count in counts for dataset in count.index[count > 1]}


def _members(system: System, ambiguous: set[str]) -> Iterator[Member]:
    for number, table in enumerate(system.trainings, start=1):
        name = system.name if len(system.trainings) == 1 else f"{system.name}, training {number}"
        full = table["dataset"] + " (" + table["evaluator"] + ")"
        labelled = table.assign(dataset=table["dataset"].where(~table["dataset"].isin(ambiguous), full))
        keyed = labelled.set_index(["dataset", "query_id", "metric"])
        if (twice := keyed.index.duplicated()).any():
            raise DataError(f"{name}: has {keyed.index[twice][0]} more than once; a query has one value of a metric")
        datasets = tuple(dict.fromkeys(labelled["dataset"]))
        yield Member(name, datasets, keyed["value"].unstack("metric"), keyed["base_value"].unstack("metric"))


def _same_queries(members: Sequence[Member], common_only: bool) -> MultiIndex:
    first = members[0]
    common: MultiIndex = first.values.index
    for member in members[1:]:
        if not common_only and (gaps := [*_gaps(first, member)]):
            raise DataError(
                f"{first.name} and {member.name} were not evaluated on the same queries: {'; '.join(gaps[:SHOWN])}; "
                f"give common_only=true to compare what they share"
            )
        common = common.intersection(member.values.index, sort=False)
    if common.empty:
        has = [f"{member.name} has {', '.join(member.datasets)}" for member in members]
        raise DataError(f"the systems share no query; {'; '.join(has)}")
    for member in members:
        if (total := len(member.values)) > len(common):
            log.warning("%s: %d of %d queries are compared, which all systems have", member.name, len(common), total)
    return common.remove_unused_levels().sort_values()


def _gaps(a: Member, b: Member) -> Iterator[str]:
    """Say what only one of two has, dataset by dataset."""
    for one, other in ((a, b), (b, a)):
        missing: Index = one.values.index.difference(other.values.index)
        for dataset in dict.fromkeys(missing.get_level_values(0)):
            queries = [query for name, query in missing if name == dataset]
            whole = "" if dataset in other.datasets else " (the whole dataset)"
            examples = ", ".join(map(repr, queries[:SHOWN])) + (", ..." if len(queries) > SHOWN else "")
            noun = "query" if len(queries) == 1 else "queries"
            yield f"only {one.name} has {len(queries)} {noun} of {dataset}{whole}, {examples}"


def _metrics(members: Sequence[Member], queries: MultiIndex, wanted: Sequence[str] | None) -> list[str]:
    has = {member.name: member.values.loc[queries].dropna(axis=1).columns.tolist() for member in members}
    everywhere = [name for name in has[members[0].name] if all(name in names for names in has.values())]
    st = [name for name in everywhere if not name.startswith(TREC)]
    chosen = list(dict.fromkeys(wanted)) if wanted is not None else st or everywhere
    if lacking := [name for name in chosen if name not in everywhere]:
        problem = f"not every system has {', '.join(lacking)} in every dataset"
    elif not chosen:
        problem = "no metric was asked for" if wanted is not None else "the systems share no metric"
    else:
        return chosen
    raise DataError(f"{problem}; " + "; ".join(f"{name} has {', '.join(names)}" for name, names in has.items()))


def _warn_of_first_stages(members: Sequence[Member], queries: MultiIndex) -> None:
    """Warn where systems reranked different candidates: then their difference is not the models' alone."""
    known = [member for member in members if member.base.loc[queries].notna().any(axis=None)]
    for member in known[1:]:
        apart = (known[0].base.loc[queries] - member.base.loc[queries]).abs().max(axis=1) > 1e-9
        if count := int(apart.sum()):
            log.warning(
                "%s and %s: the first stage differs on %d of %d queries, so they reranked different candidates",
                known[0].name, member.name, count, len(queries),
            )  # fmt: skip
