"""Figures of a run for a page of HTML, in the page's own colours; texts in them are escaped."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from crossrank.analysis.run_view import RunView
from crossrank.analysis.summary import SummaryRow
from crossrank.evaluation.calibration import Reliability
from crossrank.evaluation.significance import Interval

MOST = 2000  # points of a line
COLOURS = 6  # of the page
BANDS = 4  # lines at most that have their bands drawn


def figure(traces: Sequence[go.Scatter | go.Bar], x: str, y: str, **layout: Any) -> go.Figure:
    """Return traces with titled axes and nothing of plotly's own look; `layout` adds to the axes."""
    axes = {name: {"title": {"text": label(title)}} for name, title in (("xaxis", x), ("yaxis", y))}
    merged = {name: axis | layout.pop(name, {}) for name, axis in axes.items()}
    return go.Figure(list(traces), {"template": "none", **merged, **layout})


def colour(number: int, band: bool = False) -> str:
    """Return one of the page's colours, or the faint one of its band."""
    return f"var(--c{number % COLOURS}{'-band' if band else ''})"


def label(text: str) -> str:
    """Return a text such that plotly, which knows some tags, shows it as it is."""
    return escape(text, quote=False)


def curves(view: RunView, keys: Mapping[str, str], y: str, **layout: Any) -> go.Figure | None:
    """Draw metrics, key by name, against the step; None where none of them was logged."""
    traces = []
    for number, (name, key) in enumerate(keys.items()):
        if key in view.keys:
            line = thinned(view.run.curve(key))
            traces.append(_line(name, line.index, line, number, lines=len(line) > 60))
    return figure(traces, "optimizer step", y, showlegend=len(keys) > 1, **layout) if traces else None


def thinned(values: pd.Series) -> pd.Series:
    """Return at most so many evenly chosen points, the last among them."""
    if len(values) <= MOST:
        return values
    return values.iloc[np.linspace(0, len(values) - 1, MOST).round().astype(int)]


def _line(name: str, x: Sequence[float], y: Sequence[float], number: int, lines: bool = False) -> go.Scatter:
    mode = "lines" if lines else "lines+markers"
    colours = {"line": {"color": colour(number), "width": 2}, "marker": {"color": colour(number), "size": 6}}
    return go.Scatter(x=_plain(x), y=_plain(y), name=label(name), mode=mode, **colours)


def _plain(values: Sequence[float]) -> list[float | None]:
    """Return numbers as JSON has them: six digits, null for what is none."""
    return [None if value is None or np.isnan(value) else float(f"{value:.6g}") for value in values]


def metric_curves(view: RunView, evaluator: str, metric: str) -> go.Figure | None:
    """Draw a metric of each dataset by step with its 95 % band, and the first stage dashed in the same colour.

    Of more than BANDS datasets only their mean has its band.
    """
    start = f"eval/{evaluator}/"
    names = [key[len(start) :].rpartition("/")[0] for key in sorted(view.keys) if key.endswith(f"/{metric}")]
    names = [name for name in names if f"{start}{name}/{metric}" in view.keys]
    if len(names) == 2 and "mean" in names:
        names.remove("mean")
    traces: list[go.Scatter] = []
    for number, name in enumerate(sorted(names, key=lambda one: (one != "mean", one))):
        group = label(name) if len(names) > 1 else None
        value, low, high, base = (
            _curve(view, f"{start}{name}/{key}")
            for key in (metric, f"{metric}_low", f"{metric}_high", f"base_{metric}")
        )
        if len(low) and (len(names) <= BANDS or name == "mean"):
            traces.append(_band(name, low, high, number).update(legendgroup=group))
        traces.append(_line(name, value.index, value, number).update(legendgroup=group))
        if len(base):
            dashed = {"color": colour(number), "width": 1.5, "dash": "dash"}
            first = f"{name}, first stage" if len(names) > 1 else "first stage"
            traces.append(
                go.Scatter(x=_plain(base.index), y=_plain(base), name=label(first), mode="lines", line=dashed,
                           legendgroup=group, showlegend=len(names) <= BANDS)
            )  # fmt: skip
    if not traces:
        return None
    drawn = figure(traces, "optimizer step", metric)
    if view.step is not None:
        drawn.add_vline(view.step, line={"color": "var(--muted)", "width": 1, "dash": "dot"})
    return drawn


def _curve(view: RunView, key: str) -> pd.Series:
    return thinned(view.run.curve(key)) if key in view.keys else pd.Series(dtype=float)


def _band(name: str, low: pd.Series, high: pd.Series, number: int) -> go.Scatter:
    x = [*low.index, *high.index[::-1]]
    return go.Scatter(
        x=_plain(x), y=_plain([*low, *high[::-1]]), fill="toself", fillcolor=colour(number, band=True),
        line={"width": 0}, mode="lines", hoverinfo="skip", showlegend=False, name=label(name),
    )  # fmt: skip


def intervals(rows: Mapping[str, Interval], x: str, colours: Sequence[str] | str = "var(--c0)") -> go.Figure:
    """Draw means with their intervals, one below the other, the first on top; a thin line marks 0 if it is in reach."""
    means = [row.mean for row in rows.values()]
    known = [row if not np.isnan(row.low) else Interval(row.mean, row.mean, row.mean) for row in rows.values()]
    dots = go.Scatter(
        x=_plain(means), y=[label(name) for name in rows], mode="markers",
        marker={"size": 9, "color": colours if isinstance(colours, str) else list(colours)},
        error_x={
            "type": "data", "symmetric": False, "color": "var(--muted)", "thickness": 1.5, "width": 4,
            "array": _plain([row.high - row.mean for row in known]),
            "arrayminus": _plain([row.mean - row.low for row in known]),
        },
        hovertemplate="%{x:.4f}<extra></extra>",
    )  # fmt: skip
    return figure([dots], x, "", yaxis={"autorange": "reversed", "type": "category"}, xaxis={"zeroline": True})


def reranking(rows: Sequence[SummaryRow]) -> go.Figure:
    """Draw each dataset's first stage and what reranking made of it, joined by a line."""
    traces = []
    names = [label(row.dataset) for row in rows]
    for name, row in zip(names, rows, strict=True):
        ends = _plain([row.first_stage.mean, row.after.mean])
        grey = {"color": "var(--muted)", "width": 2}
        traces.append(go.Scatter(x=ends, y=[name, name], mode="lines", line=grey, hoverinfo="skip", showlegend=False))
    for number, (title, values) in enumerate(
        {"first stage": [row.first_stage for row in rows], "reranked": [row.after for row in rows]}.items()
    ):
        traces.append(
            go.Scatter(
                x=_plain([value.mean for value in values]), y=names, mode="markers", name=title,
                marker={"size": 10, "color": colour(1 - number), "symbol": ("circle-open", "circle")[number]},
                hovertemplate="%{x:.4f}<extra></extra>",
            )
        )  # fmt: skip
    return figure(traces, rows[0].metric, "", yaxis={"autorange": "reversed", "type": "category"})


def query_changes(change: pd.Series, metric: str) -> go.Figure:
    """Draw how far each query moved from the first stage, the most hurt first."""
    ordered = thinned(change.sort_values(ignore_index=True))
    colours = ["var(--bad)" if value < 0 else "var(--good)" for value in ordered]
    bars = go.Bar(x=_plain(ordered.index + 1), y=_plain(ordered), marker={"color": colours, "line": {"width": 0}})
    return figure([bars], "queries, by their change", f"change of {metric}", bargap=0)


def reliability_diagram(found: Mapping[str, Reliability]) -> go.Figure:
    """Draw the share of relevant pairs against the probability, with intervals; the diagonal is perfect."""
    diagonal = go.Scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="perfect", hoverinfo="skip",
        line={"color": "var(--muted)", "width": 1, "dash": "dot"},
    )  # fmt: skip
    traces = [diagonal]
    for number, (name, one) in enumerate(found.items()):
        bins = one.frame()
        traces.append(
            _line(name, bins["mean_probability"], bins["share_relevant"], number).update(
                error_y={
                    "type": "data", "symmetric": False, "color": colour(number), "thickness": 1, "width": 3,
                    "array": _plain(bins["share_high"] - bins["share_relevant"]),
                    "arrayminus": _plain(bins["share_relevant"] - bins["share_low"]),
                }
            )
        )  # fmt: skip
    unit = {"range": [-0.02, 1.02]}
    return figure(traces, "mean probability", "share relevant", xaxis=unit, yaxis=unit)
