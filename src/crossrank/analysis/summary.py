"""First stage, before and after training, side by side, with intervals."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
from rich.table import Table

from crossrank.analysis.runs import RunFolder
from crossrank.evaluation.significance import Interval, paired_interval

HEADERS = (
    "dataset",
    "metric",
    "queries",
    "first stage",
    "before training",
    "after training",
    "95 % interval of the gain",
)


@dataclass(frozen=True)
class SummaryRow:
    """One metric of one dataset; gains are over the first stage."""

    dataset: str
    metric: str
    queries: int
    first_stage: float
    before: float
    after: float
    gain: Interval

    def cells(self) -> tuple[str, ...]:
        """Return the row as text."""
        before, after = (f"{x:.4f} ({x - self.first_stage:+.4f})" for x in (self.before, self.after))
        interval = f"{self.gain.low:+.4f} to {self.gain.high:+.4f}"
        if self.queries < 2:
            interval = "too few queries"
        return (self.dataset, self.metric, str(self.queries), f"{self.first_stage:.4f}", before, after, interval)


def summary(run: RunFolder, step: int) -> list[SummaryRow]:
    """Compare the model at `step` with the untrained one and with the first stage, on the same queries."""
    return list(_rows(run.evaluations, step))


def _rows(evaluations: pd.DataFrame, step: int) -> Iterator[SummaryRow]:
    for (_, dataset, metric), rows in evaluations.groupby(["evaluator", "dataset", "metric"], sort=False):
        by_query = {s: part.set_index("query_id") for s, part in rows.groupby("step")}
        before, after = by_query[0], by_query[step]
        yield SummaryRow(
            dataset=str(dataset),
            metric=str(metric),
            queries=len(after),
            first_stage=float(after["base_value"].mean()),
            before=float(before["value"].mean()),
            after=float(after["value"].mean()),
            gain=_gain(after["value"] - after["base_value"]),
        )


def _gain(differences: "pd.Series[float]") -> Interval:
    if len(differences) < 2:
        return Interval(float(differences.mean()), math.nan, math.nan)
    return paired_interval(differences)


def as_markdown(rows: list[SummaryRow]) -> str:
    """Return the rows as a markdown table."""
    lines = [HEADERS, ("---",) * len(HEADERS), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_frame(rows: list[SummaryRow]) -> pd.DataFrame:
    """Return the rows as a data frame for a notebook."""
    return pd.DataFrame([row.cells() for row in rows], columns=HEADERS)


def as_table(rows: list[SummaryRow]) -> Table:
    """Return the rows as a table for the terminal."""
    table = Table(*HEADERS)
    for row in rows:
        table.add_row(*row.cells())
    return table
