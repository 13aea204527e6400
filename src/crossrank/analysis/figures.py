"""Figures of a run."""

from typing import TYPE_CHECKING

import pandas as pd

from crossrank.analysis.runs import RunFolder
from crossrank.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def training_curve(run: RunFolder, axes: "Axes") -> None:
    """Draw the training loss by optimizer step."""
    loss = run.curve("train/loss")
    axes.plot(loss.index, loss, color="tab:blue")
    axes.set(xlabel="optimizer step", ylabel="training loss (mean since the last point)", title="Training loss")


def evaluation_curves(run: RunFolder, metric: str, axes: "Axes") -> None:
    """Draw a metric of every dataset by step, with the first stage as a dashed line of the same colour."""
    chosen = _evaluations_of(run, metric)
    for (_, dataset), rows in chosen.groupby(["evaluator", "dataset"], sort=False):
        means = rows.groupby("step")[["value", "base_value"]].mean()
        (line,) = axes.plot(means.index, means["value"], marker="o", label=str(dataset))
        axes.plot(means.index, means["base_value"], linestyle="--", color=line.get_color(), alpha=0.6)
    axes.set(xlabel="optimizer step", ylabel=metric, title=f"{metric} (dashed: first stage)")
    axes.legend()


def query_changes(run: RunFolder, metric: str, step: int, axes: "Axes") -> None:
    """Draw how far each query moved from the first stage at one step, most hurt to most helped.

    Raises:
        DataError: nothing was evaluated at that step.
    """
    rows = _evaluations_of(run, metric)
    if step not in set(rows["step"]):
        raise DataError(f"{run.path}: no evaluation at step {step}; there are: {sorted(set(rows['step']))}")
    rows = rows[rows["step"] == step]
    change = (rows["value"] - rows["base_value"]).sort_values().to_numpy()
    axes.bar(range(len(change)), change, width=1.0, color=["tab:red" if value < 0 else "tab:green" for value in change])
    axes.set(xlabel="query", ylabel=f"change of {metric}", title=f"Step {step} against the first stage, query by query")


def _evaluations_of(run: RunFolder, metric: str) -> pd.DataFrame:
    rows = run.evaluations
    if metric not in set(rows["metric"]):
        raise DataError(f"{run.path}: no metric {metric!r}; there are: {', '.join(rows['metric'].unique())}")
    return rows[rows["metric"] == metric]
