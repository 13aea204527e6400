"""Figures of a run."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from crossrank.analysis.runs import RunFolder
from crossrank.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)


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


def budget_curves(frame: pd.DataFrame, axes: "Axes") -> None:
    """Draw NDCG, the mean over datasets with its 95 % band, against a query's median latency: a line a max length.

    `frame` is the table of one evaluator that a budget study wrote (budget.parquet); each point is labelled with its
    rerank depth, and the dashed line is the first stage.

    Raises:
        DataError: there are several evaluators, or no mean over datasets.
    """
    rows = frame[frame["dataset"] == "mean"]
    if rows.empty or ("evaluator" in rows and rows["evaluator"].nunique() > 1):
        raise DataError(
            "budget curves need the mean over datasets of one evaluator; choose frame[frame.evaluator == ...]"
        )
    for length, line in rows[rows["depth"] > 0].groupby("max_length"):
        (drawn,) = axes.plot(line["p50_ms"], line["value"], marker="o", label=f"{length} tokens")
        axes.fill_between(line["p50_ms"], line["low"], line["high"], color=drawn.get_color(), alpha=0.12, linewidth=0)
        for x, y, depth in zip(line["p50_ms"], line["value"], line["depth"], strict=True):
            axes.annotate(
                str(depth), (x, y), xytext=(0, 5), textcoords="offset points", ha="center", fontsize="x-small"
            )
    axes.axhline(rows.loc[rows["depth"] == 0, "value"].iloc[0], linestyle="--", color="grey", label="first stage")
    metric = rows["metric"].iloc[0]
    axes.set(xscale="log", xlabel="median latency of a query (ms)", ylabel=metric, title="Points: candidates reranked")
    axes.legend(title="max length")


def save_budget_figure(frame: pd.DataFrame, file: Path) -> bool:
    """Draw the `budget_curves` of every evaluator into a file; False, with a line in the log, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        log.warning("%s is not drawn: matplotlib is missing; install it with pip install -e '.[notebooks]'", file.name)
        return False
    names = list(dict.fromkeys(frame["evaluator"]))
    figure = Figure(figsize=(6.4 * len(names), 4.8), layout="constrained")
    for name, axes in zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True):
        budget_curves(frame[frame["evaluator"] == name], axes)
        axes.set(title=f"{name} (points: candidates reranked)")
    figure.savefig(file, dpi=150)
    return True


def _evaluations_of(run: RunFolder, metric: str) -> pd.DataFrame:
    rows = run.evaluations
    if metric not in set(rows["metric"]):
        raise DataError(f"{run.path}: no metric {metric!r}; there are: {', '.join(rows['metric'].unique())}")
    return rows[rows["metric"] == metric]
