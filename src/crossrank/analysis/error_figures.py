"""Figures of where a model fails: how far queries moved, where relevant documents went, which kinds of query gained."""

from typing import TYPE_CHECKING

import numpy as np
from pandas import DataFrame, concat

from crossrank.analysis.failures import UNKNOWN, Failures
from crossrank.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = np.linspace(-1, 1, 42)  # 41 of them, so that the middle one holds what did not move, or hardly
DARK_SHARE = 0.6  # of the darkest cell, above which its number is white

FEW = 10  # queries below which an interval does not widen the figure


def change_histogram(rows: DataFrame, axes: "Axes") -> None:
    """Draw how many queries changed by how much, and the mean dashed; `rows` are those of `explorer.query_rows`.

    Raises:
        DataError: there was no first stage to change.
    """
    change = rows["change"].dropna().round(9)  # equal metrics of two orders may differ in the last bits
    if change.empty:
        raise DataError("no query has a value of the first stage, so nothing can be called a change")
    counts, _ = np.histogram(change, BINS)
    middle = len(counts) // 2
    colors = ["tab:red"] * middle + ["grey"] + ["tab:green"] * middle
    axes.bar(BINS[:-1], counts, width=np.diff(BINS), align="edge", color=colors, edgecolor="white", linewidth=0.5)
    axes.axvline(change.mean(), linestyle="--", color="black", label=f"mean {change.mean():+.4f}")
    told = f"{(change > 0).sum()} helped, {(change < 0).sum()} hurt, {(change == 0).sum()} as before"
    axes.set(xlabel=f"change of {rows['metric'].iloc[0]} over the first stage", ylabel="queries", title=told)
    axes.legend()


def rank_movement(found: Failures, axes: "Axes") -> None:
    """Draw a map of where each query's first relevant document stood (rows) and where it stands now (columns).

    Framed are those that stayed in their range of ranks; below the frames it moved up.
    """
    from matplotlib.patches import Rectangle

    moves = found.moves.drop(index=UNKNOWN, columns=UNKNOWN, errors="ignore")
    counts = moves.to_numpy()
    axes.imshow(counts, cmap="Blues", vmin=0, vmax=max(1, counts.max(initial=0)), aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if count > DARK_SHARE * counts.max() else "black"
        axes.text(column, row, str(count) if count else "·", ha="center", va="center", color=color)
    for place in range(len(moves)):
        axes.add_patch(Rectangle((place - 0.5, place - 0.5), 1, 1, fill=False, edgecolor="grey"))
    axes.set_xticks(range(len(moves.columns)), moves.columns)
    axes.set_yticks(range(len(moves)), moves.index)
    counted = found.counts
    told = f"{counted.up} up, {counted.down} down, {counted.same} unmoved, {counted.absent} in neither list"
    axes.set(xlabel="rank after training", ylabel="rank in the first stage", title=told)


def slice_changes(found: Failures, axes: "Axes") -> None:
    """Draw the mean change of each kind of query with its 95 % interval, which ends at the edge for few queries.

    A kind of one query has no interval, and queries of which the kind is not known are left out.
    """
    known = found.slices[found.slices["bucket"] != UNKNOWN]
    slices = known.dropna(subset="change").iloc[::-1].reset_index(drop=True)
    labels = [f"{row.slice}: {row.bucket} ({row.queries})" for row in slices.itertuples()]
    labels = [label.replace("all queries: all", "all queries") for label in labels]
    colors = ["black" if name == "all queries" else "tab:blue" for name in slices["slice"]]
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.hlines(slices.index, slices["change_low"], slices["change_high"], colors=colors)
    axes.scatter(slices["change"], slices.index, c=colors, zorder=3)
    axes.set_yticks(slices.index, labels)
    many = slices[slices["queries"] >= FEW]
    seen = concat([slices["change"], many["change_low"], many["change_high"]]).dropna()
    if not seen.empty:
        room = 0.05 * max(seen.max() - seen.min(), 0.1)
        axes.set_xlim(min(seen.min(), 0) - room, max(seen.max(), 0) + room)
    axes.set(xlabel=f"change of {found.metric} over the first stage (95 % interval)", title="Kinds of query")
