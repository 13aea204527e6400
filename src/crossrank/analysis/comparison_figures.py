"""Figures of a comparison: each system's mean, what tells two apart, and the queries behind it."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pandas import DataFrame

from crossrank.analysis.alignment import Aligned
from crossrank.analysis.compare import TIE, Comparison
from crossrank.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROUNDED = 3  # digits of a value below which queries share a dot
LARGEST = 1600  # points squared of a dot


def system_means(found: Comparison, metric: str, axes: "Axes") -> None:
    """Draw the mean of every system over the datasets, with its interval over queries."""
    rows = _rows(found.systems, metric).iloc[::-1].reset_index(drop=True)
    axes.hlines(rows.index, rows["low"], rows["high"], colors="tab:blue")
    axes.scatter(rows["mean"], rows.index, color="tab:blue", zorder=3)
    for place, mean in rows["mean"].items():
        axes.annotate(f"{mean:.4f}", (mean, place), xytext=(0, 6), textcoords="offset points", ha="center")
    axes.set_yticks(rows.index, rows["system"])
    axes.set_ylim(-0.5, len(rows) - 0.3)
    percent = f"{100 * found.confidence:g} % interval over {rows['queries'].iloc[0]} queries"
    axes.set(xlabel=f"{metric} ({percent})", title="Each system by itself")


def differences(found: Comparison, metric: str, axes: "Axes") -> None:
    """Draw the difference of every pair of systems with its interval, and its p as Holm corrected it.

    Black are those that the corrected test tells apart, grey the others.
    """
    rows = _rows(found.pairs, metric).iloc[::-1].reset_index(drop=True)
    colors = ["black" if told else "darkgrey" for told in rows["p_holm"] <= 1 - found.confidence]
    axes.axvline(0, color="tab:red", linewidth=0.8)
    axes.hlines(rows.index, rows["low"], rows["high"], colors=colors)
    axes.scatter(rows["difference"], rows.index, c=colors, zorder=3)
    for place, row in rows.iterrows():
        told = f"{row['difference']:+.4f}, p = {row['p_holm']:.2g}"
        axes.annotate(told, (row["difference"], place), xytext=(0, 6), textcoords="offset points", ha="center")
    axes.set_yticks(rows.index, [f"{row.system}\nminus {row.against}" for row in rows.itertuples()])
    axes.set_ylim(-0.5, len(rows) - 0.3)
    axes.set(xlabel=f"difference of {metric} ({100 * found.confidence:g} % interval)",
             title=f"Paired differences; p after Holm's correction for {found.tests} tests")  # fmt: skip


def wins_and_losses(found: Comparison, metric: str, axes: "Axes") -> None:
    """Draw on how many queries the first of each pair wins, ties and loses."""
    rows = _rows(found.pairs, metric).iloc[::-1].reset_index(drop=True)
    left = np.zeros(len(rows))
    for name, color in (("wins", "tab:green"), ("ties", "lightgrey"), ("losses", "tab:red")):
        bars = axes.barh(rows.index, rows[name], left=left, color=color, label=name)
        axes.bar_label(bars, [str(count) if count else "" for count in rows[name]], label_type="center")
        left += rows[name]
    axes.set_yticks(rows.index, [f"{row.system}\nagainst {row.against}" for row in rows.itertuples()])
    axes.set(xlabel="queries", title=f"Queries by {metric}", xlim=(0, rows["queries"].max()))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def query_scatter(aligned: Aligned, metric: str, system: str, against: str, axes: "Axes") -> None:
    """Draw every query by its value under two systems, the mean over their trainings; queries of one place share a dot.

    Raises:
        DataError: there is no such system or metric.
    """
    x, y = _values(aligned, metric, against), _values(aligned, metric, system)
    places, counts = np.unique(np.round(np.stack([x, y]), ROUNDED), axis=1, return_counts=True)
    colors = np.where(places[1] > places[0], "tab:green", np.where(places[1] < places[0], "tab:red", "grey"))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, zorder=0)
    sizes = np.maximum(4, counts * min(16, LARGEST / counts.max()))
    axes.scatter(places[0], places[1], s=sizes, c=colors, alpha=0.6, linewidth=0)
    wins, losses = int((y - x > TIE).sum()), int((x - y > TIE).sum())
    axes.set(xlabel=f"{metric} of {against}", ylabel=f"{metric} of {system}", aspect="equal",
             title=f"{wins} queries above the line, {losses} below, {len(x) - wins - losses} on it")  # fmt: skip


def _rows(table: DataFrame, metric: str) -> DataFrame:
    if metric not in set(table["metric"]):
        raise DataError(f"{metric!r} was not compared; there are: {', '.join(dict.fromkeys(table['metric']))}")
    return table[table["overall"] & (table["metric"] == metric)]


def _values(aligned: Aligned, metric: str, system: str) -> npt.NDArray[np.float64]:
    for name, known in ((system, aligned.names), (metric, aligned.metrics)):
        if name not in known:
            raise DataError(f"{name!r} was not compared; there are: {', '.join(known)}")
    tables = aligned.values[aligned.names.index(system)]
    return np.concatenate([table[:, :, aligned.metrics.index(metric)].mean(axis=0) for table in tables])
