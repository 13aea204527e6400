"""First stage, before and after training, side by side; every number with its 95 % interval."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.table import Table
from rich.text import Text

from crossrank.analysis.runs import RunFolder
from crossrank.analysis.sections import markdown_table
from crossrank.evaluation import headroom
from crossrank.evaluation.significance import Interval, mean_intervals

HEADERS = (
    "dataset", "metric", "queries", "first stage", "before training", "after training", "gain", "ceiling", "headroom",
)  # fmt: skip
RANGES = ((0, 1), (0, 1), (0, 1), (-1, 1), (0, 1), (-math.inf, math.inf))  # of what stands after the queries
UNKNOWN = Interval(math.nan, math.nan, math.nan)
NOTE = (
    "Brackets hold 95 % intervals (bootstrap over the queries of each dataset). Gains are over the first stage, the "
    "ceiling is the best possible order of the same lists, headroom the share of what lies between the two that was "
    "gained; mean is the unweighted mean over datasets."
)
PROTOCOLS = {
    "st": "protocol st: as sentence-transformers' evaluators compute them",
    "trec": "protocol trec: as trec_eval computes them, from the same scores",
}


@dataclass(frozen=True)
class SummaryRow:
    """One metric of one dataset; what is not known is NaN."""

    dataset: str
    metric: str
    queries: int
    first_stage: Interval
    before: Interval
    after: Interval
    gain: Interval  # over the first stage
    ceiling: Interval  # of the same lists in the best order
    headroom: Interval  # the share of ceiling - first stage that was gained

    @property
    def protocol(self) -> str:
        """Whose definition of the metric it is."""
        return "trec" if self.metric.startswith("trec_") else "st"

    def facts(self) -> dict[str, Any]:
        """Return the row for another program, each value with its mean, lower and upper end."""
        return asdict(self)

    def cells(self, digits: int = 4) -> tuple[str, ...]:
        """Return the row as text, the ends of intervals with so many digits."""
        values = (self.first_stage, self.before, self.after, self.gain, self.ceiling, self.headroom)
        texts = [shown(value, "+" if value is self.gain else "", digits) for value in values]
        return (self.dataset, self.metric, str(self.queries), *texts)


def shown(value: Interval, sign: str = "", digits: int = 4) -> str:
    """Return a mean with its interval in brackets, whose ends have so many digits; a dash where nothing is known."""
    if math.isnan(value.mean):
        return "-"
    low, high = (f"{end:{sign}.{digits}f}" for end in (value.low, value.high))
    return f"{value.mean:{sign}.4f} [{'too few queries' if math.isnan(value.low) else f'{low}, {high}'}]"


def summary(run: RunFolder, step: int) -> list[SummaryRow]:
    """Compare the model at `step` with the untrained one and with the first stage, on the same queries."""
    rows = run.evaluations
    return summary_of(rows[rows["step"] == step], rows[rows["step"] == 0])


def summary_of(after: pd.DataFrame, before: pd.DataFrame | None = None) -> list[SummaryRow]:
    """Summarise the rows of one evaluation, beside those of an earlier one of the same queries.

    Where an evaluator has several datasets, rows of their mean come after them.
    """
    found: list[SummaryRow] = []
    groups = after.groupby("evaluator", sort=False) if "evaluator" in after else [("", after)]
    for name, rows in groups:
        earlier = before[before["evaluator"] == name] if before is not None else rows.iloc[:0]
        found += _of_one_evaluator(rows, earlier)
    return found


def _of_one_evaluator(after: pd.DataFrame, before: pd.DataFrame) -> Iterator[SummaryRow]:
    datasets = list(dict.fromkeys(after["dataset"]))
    metrics = list(dict.fromkeys(after["metric"]))
    tables = {name: _table(after, before, name, metrics) for name in datasets}
    groups = {name: [table] for name, table in tables.items()} | ({"mean": list(tables.values())} if tables else {})
    for name, strata in groups.items():
        if name == "mean" and len(datasets) == 1:
            continue
        queries = sum(map(len, strata))
        columns = _intervals(strata)
        for i, metric in enumerate(metrics):
            yield SummaryRow(name, metric, queries, *columns[6 * i : 6 * i + 6])


def _table(after: pd.DataFrame, before: pd.DataFrame, dataset: str, metrics: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return base, before, after, gain, ceiling and headroom of each metric: [queries, 6 * metrics]."""
    now, then = (frame[frame["dataset"] == dataset].set_index(["metric", "query_id"]) for frame in (after, before))
    columns = []
    for metric in metrics:
        rows = now.loc[metric]
        base, value = rows["base_value"].to_numpy(), rows["value"].to_numpy()
        ceiling = rows["ceiling"].to_numpy() if "ceiling" in rows else np.full(len(rows), np.nan)
        earlier = then["value"].get(metric, pd.Series(dtype=float)).reindex(rows.index).to_numpy()
        columns += [base, earlier, value, value - base, ceiling, ceiling - base]
    return np.stack(columns, axis=1)


def _intervals(strata: Sequence[npt.NDArray[np.float64]]) -> list[Interval]:
    """Return the interval of each column's mean; every sixth becomes the headroom.

    The headroom is a ratio of means, whose interval is that of its linear part (the delta method; Davison and Hinkley,
    Bootstrap Methods, section 2.7.2).
    """
    means = np.mean([table.mean(axis=0) for table in strata], axis=0)
    for i in range(5, len(means), 6):
        gain, room = means[i - 2], means[i]
        share = headroom(gain, 0.0, room)
        strata = [table.copy() for table in strata]
        for table in strata:
            table[:, i] = share + (table[:, i - 2] - share * table[:, i]) / room if room > 0 else np.nan
        means[i] = share
    known = ~np.isnan(means)
    low, high = np.full((2, len(means)), np.nan)
    if known.any():
        low[known], high[known] = mean_intervals([table[:, known] for table in strata])
    bounds = np.tile(RANGES, (len(means) // 6, 1))  # of few queries an interval may leave the metric's range
    low, high = np.maximum(low, bounds[:, 0]), np.minimum(high, bounds[:, 1])
    return [Interval(*map(float, values)) for values in zip(means, low, high, strict=True)]


def _headers(rows: Sequence[SummaryRow]) -> tuple[str, ...]:
    """Speak of training only where there was an evaluation before it."""
    trained = any(not math.isnan(row.before.mean) for row in rows)
    return tuple("reranked" if name == "after training" and not trained else name for name in HEADERS)


def as_markdown(rows: Sequence[SummaryRow]) -> str:
    """Return the rows as markdown, a table for each protocol, without columns that nothing fills."""
    parts = []
    for protocol, title in PROTOCOLS.items():
        chosen = [row for row in rows if row.protocol == protocol]
        if chosen:
            table = markdown_table(*filled(chosen))
            parts.append(f"{title[:1].upper()}{title[1:]}.\n\n{table}")
    return "\n\n".join([*parts, NOTE])


def as_frame(rows: Sequence[SummaryRow]) -> pd.DataFrame:
    """Return the rows as a data frame for a notebook."""
    return pd.DataFrame([row.cells() for row in rows], columns=_headers(rows))


def as_table(rows: Sequence[SummaryRow]) -> Table:
    """Return the rows of the first row's protocol as a table for the terminal, without columns that nothing fills."""
    chosen = [row for row in rows if row.protocol == rows[0].protocol]
    headers, cells = filled(chosen, digits=3)
    table = Table(*headers, title=PROTOCOLS[rows[0].protocol], show_lines=True)
    for row in cells:
        table.add_row(*(Text(cell.replace(" [", "\n[")) for cell in row))
    return table


def filled(rows: Sequence[SummaryRow], digits: int = 4) -> tuple[list[str], list[list[str]]]:
    """Return headers and cells of the columns in which anything is known."""
    headers, cells = _headers(rows), [row.cells(digits) for row in rows]
    known = [i for i in range(len(headers)) if any(row[i] != "-" for row in cells)]
    return [headers[i] for i in known], [[row[i] for i in known] for row in cells]
