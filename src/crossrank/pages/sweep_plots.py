"""Figures of a sweep for a page of HTML."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from crossrank.analysis.runs import RunFolder
from crossrank.analysis.sweeps import told
from crossrank.evaluation.significance import Interval
from crossrank.pages.plots import colour, figure, intervals, label, thinned
from crossrank.pages.sweep_study import LOGARITHMIC, SeedGroup, as_numbers

MOST_TICKS = 6
NEAR = 0.06  # of an axis; ticks that are nearer would overlap
BEST = "var(--c1)"


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last part of each key with dots, or the whole key where two of them end alike."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def parallel_coordinates(jobs: pd.DataFrame, choices: Sequence[str], metric: str) -> go.Figure:
    """Draw each job, best first in `jobs`, as a line through its choices to its value; the best stands out.

    These are lines of SVG: plotly's own parallel coordinates need WebGL, which not every browser has.
    """
    names = short_names(choices)
    axes = [_axis(jobs[key]) for key in choices] + [_axis(jobs["value"])]
    traces = []
    for i in reversed(range(len(jobs))):  # the best lies on top
        lines = [f"{names[key]}: {told(jobs[key].iloc[i])}" for key in choices]
        text = label("\n".join([str(jobs["job"].iloc[i]), f"{metric}: {jobs['value'].iloc[i]:.4f}", *lines]))
        line = {"color": BEST if i == 0 else colour(0), "width": 4 if i == 0 else 2}
        traces.append(
            go.Scatter(
                x=list(range(len(axes))), y=[float(heights[i]) for heights, _ in axes], mode="lines", line=line,
                opacity=1.0 if i == 0 else 0.9 - 0.6 * i / len(jobs), text=[text.replace("\n", "<br>")] * len(axes),
                hoverinfo="text", showlegend=False,
            )
        )  # fmt: skip
    titles = [label(names[key]) for key in choices] + [label(metric)]
    drawn = figure(
        traces, "", "", hovermode="closest", margin={"t": 56, "l": 32, "r": 72, "b": 20},
        xaxis={"tickvals": list(range(len(axes))), "ticktext": titles, "side": "top", "gridcolor": "var(--muted)",
               "range": [-0.06, len(axes) - 0.98], "showline": False},
        yaxis={"visible": False, "range": [-0.06, 1.06]},
    )  # fmt: skip
    for x, (_, ticks) in enumerate(axes):
        for height, name in ticks.items():
            drawn.add_annotation(
                x=x, y=height, text=label(name), showarrow=False, xanchor="left", xshift=5,
                bgcolor="var(--paper)", opacity=0.9, font={"size": 11},
            )  # fmt: skip
    return drawn


def _axis(values: pd.Series) -> tuple[np.ndarray, dict[float, str]]:
    """Return the height of each value on its axis, 0 to 1, and what is written at which height."""
    numbers = as_numbers(values)
    if numbers is None:
        names = list(dict.fromkeys(map(told, values)))
        at = {name: i / (len(names) - 1) if len(names) > 1 else 0.5 for i, name in enumerate(names)}
        shown = names if len(names) <= MOST_TICKS else [names[0], names[-1]]
        return np.array([at[told(value)] for value in values]), {at[name]: name for name in shown}
    scale = math.log if min(numbers) > 0 and max(numbers) >= LOGARITHMIC * min(numbers) else float
    low, high = scale(min(numbers)), scale(max(numbers))
    heights = np.array([(scale(number) - low) / (high - low) if high > low else 0.5 for number in numbers])
    distinct = dict(sorted(zip(map(float, heights), numbers, strict=True)))
    told_apart = all(above - below >= NEAR for below, above in pairwise(distinct))
    ticks = distinct if len(distinct) <= MOST_TICKS and told_apart else {0.0: min(numbers), 1.0: max(numbers)}
    return heights, {height: f"{number:.4g}" for height, number in ticks.items()}


def job_curves(runs: Mapping[str, RunFolder], monitor: str, best: str | None) -> go.Figure | None:
    """Draw the monitored metric of each job by step, the best job on top."""
    traces = []
    for job, run in sorted(runs.items(), key=lambda pair: pair[0] == best):
        if monitor not in set(run.metrics["key"]):
            continue
        line = thinned(run.curve(monitor))
        traces.append(
            go.Scatter(
                x=[int(step) for step in line.index], y=[None if math.isnan(v) else float(f"{v:.6g}") for v in line],
                mode="lines", name=label(job), opacity=1.0 if job == best else 0.45, showlegend=False,
                line={"color": BEST if job == best else colour(0), "width": 3 if job == best else 1.5},
            )
        )  # fmt: skip
    return figure(traces, "optimizer step", monitor.rpartition("/")[2]) if traces else None


def importances(shares: Mapping[str, float]) -> go.Figure:
    """Draw the share of the variance that each choice explains, the largest on top."""
    bars = go.Bar(
        x=[float(share) for share in shares.values()], y=[label(name) for name in shares], orientation="h",
        marker={"color": colour(0)}, hovertemplate="%{x:.1%}<extra></extra>",
    )  # fmt: skip
    x: dict[str, Any] = {"range": [0, 1], "tickformat": ".0%"}
    return figure([bars], "share of the variance", "", xaxis=x, yaxis={"autorange": "reversed", "type": "category"})


def seeds(groups: Mapping[str, SeedGroup], metric: str) -> go.Figure:
    """Draw each group's mean, by its name, with its interval over queries and seeds, and every seed as a ring."""
    means = {}
    for name, group in groups.items():
        known = group.variance.interval if group.variance else Interval(group.mean, math.nan, math.nan)
        means[name] = Interval(group.mean, known.low, known.high)
    drawn = intervals(means, metric)
    drawn.data[0].update(name="mean, 95 %")
    rings = {"symbol": "circle-open", "size": 9, "color": colour(1), "line": {"width": 2}}
    x = [value for group in groups.values() for value in group.values]
    y = [label(name) for name, group in groups.items() for _ in group.values]
    drawn.add_scatter(x=x, y=y, mode="markers", marker=rings, name="one seed", hovertemplate="%{x:.4f}<extra></extra>")
    return drawn
