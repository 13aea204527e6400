"""Figures of a sweep: what each choice gave, how sure that is, how it came about and what it cost."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pandas import DataFrame

from crossrank.analysis.chosen import best_step
from crossrank.analysis.explorer import query_rows
from crossrank.analysis.runs import RunFolder
from crossrank.analysis.sweeps import SweepFolder, short
from crossrank.errors import DataError
from crossrank.evaluation.significance import Interval, stratified_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEED = "seed"
MEAN = "mean"  # over the datasets, as in the keys of the metrics
NAMED = 10  # jobs that a legend tells apart; of more, the best ones


def values_by_job(sweep: SweepFolder, axes: "Axes") -> None:
    """Draw each finished job's value with its 95 % interval over the queries, the best on top, the first stage dashed.

    A job that was pruned is hollow, for it was evaluated before its end.
    """
    jobs = _told(sweep).iloc[::-1].reset_index(drop=True)
    found = [_interval(sweep.runs[job]) for job in jobs["job"]]
    axes.hlines(jobs.index, [i.low for i in found], [i.high for i in found], colors="tab:blue")
    faces = ["white" if state == "pruned" else "tab:blue" for state in jobs["state"]]
    axes.scatter([i.mean for i in found], jobs.index, c=faces, edgecolors="tab:blue", zorder=3)
    for place, interval in enumerate(found):
        told = f"{interval.mean:.4f}"
        axes.annotate(told, (interval.mean, place), xytext=(0, 6), textcoords="offset points", ha="center")
    axes.axvline(_first_stage(sweep), linestyle="--", color="grey", label="first stage")
    axes.set_yticks(jobs.index, [_label(sweep, row) for row in jobs.to_dict("records")])
    axes.set_ylim(-0.5, len(jobs) - 0.3)
    axes.set(xlabel=f"{sweep.monitor} (95 % interval over queries)", title="Jobs, the best on top")
    axes.legend()


def job_curves(sweep: SweepFolder, axes: "Axes") -> None:
    """Draw the monitored metric of every job by step, the best job's thick; of many jobs the later ones are grey."""
    for place, row in enumerate(_told(sweep).to_dict("records")):
        curve = sweep.runs[row["job"]].curve(str(sweep.monitor))
        look = {"label": _label(sweep, row)} if place < NAMED else {"color": "lightgrey", "zorder": 1}
        axes.plot(curve.index, curve, marker="o", linewidth=3 if row["job"] == sweep.best else 1.2, **look)
    axes.axhline(_first_stage(sweep), linestyle="--", color="grey", label="first stage")
    axes.set(xlabel="optimizer step", ylabel=sweep.monitor, title="How each job came there")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def seed_spread(sweep: SweepFolder, axes: "Axes") -> None:
    """Draw the values of the finished jobs that differ in nothing but the seed in one column, with their mean.

    The title gives the standard deviation within columns, of all columns together: what a seed alone changes.
    """
    jobs = _told(sweep)
    jobs = jobs[jobs["state"] == "finished"]
    other = [key for key in sweep.choices if key != SEED]
    labels = [_label(sweep, row, other) if other else "all" for row in jobs.to_dict("records")]
    columns = [part for _, part in jobs["value"].groupby(labels, sort=False)]
    for place, values in enumerate(columns):
        axes.scatter(np.full(len(values), place), values, color="tab:blue", alpha=0.7)
        axes.hlines(values.mean(), place - 0.2, place + 0.2, colors="black")
    freedom = sum(len(values) - 1 for values in columns)
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in columns)
    told = f"A seed alone: standard deviation {np.sqrt(squares / freedom):.4f}" if freedom else "One seed of each"
    axes.set_xticks(range(len(columns)), [label.replace(", ", "\n") for label in dict.fromkeys(labels)])
    axes.set(ylabel=sweep.monitor, title=told, xlim=(-0.5, len(columns) - 0.5))


def cost_and_quality(sweep: SweepFolder, axes: "Axes") -> None:
    """Draw each job's value by the minutes that it took; the line joins the best that each time can buy."""
    jobs = _told(sweep).assign(minutes=lambda table: table["seconds"].astype(float) / 60).sort_values("minutes")
    faces = ["white" if state == "pruned" else "tab:blue" for state in jobs["state"]]
    axes.scatter(jobs["minutes"], jobs["value"], c=faces, edgecolors="tab:blue", zorder=3)
    for row in jobs.to_dict("records"):
        place = (row["minutes"], row["value"])
        axes.annotate(_label(sweep, row), place, xytext=(6, 4), textcoords="offset points", fontsize="small")
    axes.step(jobs["minutes"], jobs["value"].cummax(), where="post", color="grey", linewidth=0.8)
    axes.margins(0.15)
    axes.set(xlabel="minutes of the whole job (hollow: pruned)", ylabel=sweep.monitor, title="What it cost")


def job_table(sweep: SweepFolder) -> DataFrame:
    """Return the jobs, the best first: state, value, best step, minutes and choices, and the error where one failed."""
    table = sweep.jobs.assign(minutes=(sweep.jobs["seconds"].astype(float) / 60).round(1))
    columns = ["state", "value", "best_step", "minutes", *sweep.choices]
    return table[[*columns, *(["error"] if table["error"].astype(bool).any() else [])]].round({"value": 4})


def _told(sweep: SweepFolder) -> DataFrame:
    """Return the jobs that have a value, the best first.

    Raises:
        DataError: none has.
    """
    jobs = sweep.jobs[sweep.jobs["job"].isin(sweep.runs) & sweep.jobs["value"].notna()]
    if jobs.empty:
        raise DataError(f"{sweep.path}: no job has finished with a value, so there is nothing to draw")
    return jobs.sort_values("value", ascending=False, kind="stable", ignore_index=True)


def _label(sweep: SweepFolder, row: Mapping[Any, Any], keys: list[str] | None = None) -> str:
    told = [f"{key.rpartition('.')[2]}={short(row[key])}" for key in (sweep.choices if keys is None else keys)]
    return ", ".join(told) or str(row["job"])


def _interval(run: RunFolder) -> Interval:
    rows = _monitored_rows(run)
    strata = [part.to_numpy(float) for _, part in rows.groupby("dataset")["value"]]
    if min(map(len, strata)) < 2:
        return Interval(float(np.mean([values.mean() for values in strata])), np.nan, np.nan)
    return stratified_interval(strata)


def _first_stage(sweep: SweepFolder) -> float:
    rows = _monitored_rows(sweep.runs[_told(sweep)["job"].iloc[0]])
    return float(rows.groupby("dataset")["base_value"].mean().mean())


def _monitored_rows(run: RunFolder) -> DataFrame:
    best = best_step(run)
    rows = query_rows(run, best)
    return rows if best.dataset == MEAN else rows[rows["dataset"] == best.dataset]
