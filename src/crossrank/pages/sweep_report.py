"""A sweep as one page of HTML."""

import importlib.metadata
import math
from pathlib import Path
from typing import Any

import pandas as pd

from crossrank.analysis.summary import shown
from crossrank.analysis.sweeps import SweepFolder, short
from crossrank.evaluation.significance import Interval
from crossrank.pages import sweep_plots
from crossrank.pages.page import render
from crossrank.pages.page_parts import Cell, Chapter, Code, Grid, Page, Part, Plot, Text, Tile, Tiles, cell, linked
from crossrank.pages.record_chapters import duration
from crossrank.pages.sweep_study import SeedGroup, done, importance, seed_groups

REPORT = "report.html"
AXES, LINES = 10, 40  # of parallel coordinates at most; jobs at most whose curves are drawn
NAME = 30  # characters of a group's name that stand beside a figure
FOOTER = "Made by crossrank {version}, from the jobs in {folder}."
OPTIMISTIC = (
    "The best of {jobs} jobs was chosen on the queries that it is measured on, so its value is optimistic, the more so "
    "the more jobs there are and the fewer queries; an evaluation on other queries says how good it is."
)


def sweep_page(sweep: SweepFolder) -> str:
    """Return the page of a sweep; jobs may have failed, or not have finished.

    Raises:
        DataError: a file of a job is damaged.
    """
    chapters = [_headline(sweep), _jobs(sweep), _choices(sweep), _importance(sweep), _seeds(sweep)]
    folder = sweep.path.resolve()
    footer = FOOTER.format(version=importlib.metadata.version("crossrank"), folder=folder.name)
    subtitle = f"A sweep over {', '.join(sweep.choices) or 'nothing'}, {len(sweep.jobs)} jobs"
    return render(Page(f"{folder.parent.name} / {folder.name}", subtitle, chapters, footer))


def _metric(sweep: SweepFolder) -> str:
    return str(sweep.monitor).rpartition("/")[2] if sweep.monitor else "value"


def _headline(sweep: SweepFolder) -> Chapter:
    states = sweep.jobs["state"].value_counts()
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    tiles = [Tile("jobs", str(len(sweep.jobs)), counts)]
    took = sweep.jobs["seconds"].sum()
    if sweep.best is None:
        text = Text("No job has finished with a value yet.", "warning")
        return Chapter("Headline", [Tiles(tiles), text])
    finished = done(sweep)
    best = finished[finished["job"] == sweep.best].iloc[0]
    mean, _, interval = shown(_interval(sweep, best)).partition(" ")
    tiles += [
        Tile(f"best {_metric(sweep)}", mean, interval, "good"),
        Tile("median of the finished", f"{finished['value'].median():.4f}"),
        Tile("time of all jobs", duration(float(took))),
    ]
    chosen = ", ".join(f"{key} {short(best[key])}" for key in sweep.choices)
    words = sweep.override_line(sweep.best)
    again = "To train it again:" if words else "How to train it again is not known: its command was not recorded."
    parts: list[Part] = [
        Tiles(tiles),
        Text(f"The best job is {sweep.best}{f': {chosen}' if chosen else ''}. {again}"),
        *([Code(f"python -m src.train {words}")] if words else []),
        Text(f"By {sweep.monitor} at each job's best step. {OPTIMISTIC.format(jobs=len(finished))}", "note"),
    ]
    return Chapter("Headline", parts)


def _interval(sweep: SweepFolder, job: "pd.Series[Any]") -> Interval:
    """Return a job's value with the interval that was logged at its best step."""
    ends = []
    for end in ("low", "high"):
        key, run = f"{sweep.monitor}_{end}", sweep.runs.get(str(job["job"]))
        known = run is not None and key in set(run.metrics["key"])
        ends.append(float(run.curve(key).get(job["best_step"], math.nan)) if run is not None and known else math.nan)
    return Interval(float(job["value"]), *ends)


def _jobs(sweep: SweepFolder) -> Chapter:
    header = ["job", "state", _metric(sweep), "best step", "minutes", *sweep.choices]
    rows = [_row(sweep, job) for _, job in sweep.jobs.iterrows()]
    note = "The best first; a click on a column's name sorts by it. Brackets hold 95 % intervals over queries."
    parts: list[Part] = [Grid(header, rows, note=note, sortable=True)]
    failed = sweep.jobs[sweep.jobs["error"] != ""]
    if len(failed):
        errors = [[Cell(str(job)), Cell(str(error))] for job, error in failed[["job", "error"]].itertuples(index=False)]
        parts.append(Grid(["job", "error"], errors, "What failed", wide=True))
    return Chapter("Jobs", parts)


def _row(sweep: SweepFolder, job: "pd.Series[Any]") -> list[str | Cell]:
    name, value = str(job["job"]), job["value"]
    numbers = [
        "-" if pd.isna(n) else f"{n:{form}}" for n, form in ((job["best_step"], ".0f"), (job["seconds"] / 60, ".1f"))
    ]
    number = cell("-" if pd.isna(value) else shown(_interval(sweep, job)))
    first = linked(name, name, REPORT) if Path(sweep.path, name, REPORT).is_file() else Cell(name)
    return [first, str(job["state"]), number, *numbers, *(short(job[key]) for key in sweep.choices)]


def _choices(sweep: SweepFolder) -> Chapter:
    finished, metric = done(sweep), _metric(sweep)
    if len(finished) < 2 or not sweep.choices:
        return Chapter("Choices", [Text("There are fewer than two finished jobs to compare.", "note")])
    left_out = f" Only the first {AXES} choices are shown." if len(sweep.choices) > AXES else ""
    caption = f"Each line is a finished job; the best is orange and thick, the fainter the worse.{left_out}"
    axes = min(len(sweep.choices), AXES) + 1
    drawn = sweep_plots.parallel_coordinates(finished, sweep.choices[:AXES], metric)
    parts: list[Part] = [Plot(drawn, "From choices to value", caption, height=420, min_width=axes * 90)]
    runs = dict(list(sweep.runs.items())[:LINES])
    if curves := sweep_plots.job_curves(runs, str(sweep.monitor), sweep.best):
        first = f" The best {LINES} jobs." if len(sweep.runs) > LINES else ""
        parts.append(Plot(curves, f"{metric} by step", f"The best job is orange.{first}"))
    return Chapter("Choices", parts)


def _importance(sweep: SweepFolder) -> Chapter:
    found = importance(sweep)
    if found.missing:
        return Chapter("Importance", [Text(found.missing, "note")])
    note = (
        "The share of the variance between finished jobs that a choice explains by itself (fANOVA). With few jobs "
        "this is a hint, no finding; what the seed explains is noise."
    )
    height = 90 + 34 * len(found.shares)
    return Chapter(
        "Importance", [Plot(sweep_plots.importances(found.shares), "What the choices explain", note, height)]
    )


def _seeds(sweep: SweepFolder) -> Chapter:
    groups = seed_groups(sweep)
    if not groups:
        return Chapter("Seeds", [Text("All jobs have one seed, so how much it matters is not known.", "note")])
    metric = _metric(sweep)
    note = (
        "Intervals hold queries and seeds: how another seed and other queries would end. Seed sd is the standard "
        "deviation that another seed makes, beyond what these queries explain; 0 where they explain it all."
    )
    choices = list(groups[0].choices)
    short = max(len(group.name) for group in groups) <= NAME
    named = {group.name if short else f"group {i}": group for i, group in enumerate(groups, start=1)}
    header = ["group", *choices, "seeds", f"mean {metric}", "lowest", "highest", "seed sd", "query se"]
    rows: list[list[str | Cell]] = [
        [Cell(name), *(cell(group.choices[key]) for key in choices), *_spread(group)] for name, group in named.items()
    ]
    drawn = sweep_plots.seeds(named, metric)
    parts: list[Part] = [
        Plot(drawn, "Means over seeds, and every seed", height=110 + 34 * len(groups)),
        Grid(header, rows, "Seed variance", note, sortable=len(rows) > 1),
    ]
    for name, group in named.items():
        if group.missing and len(group.jobs) > 1:
            parts.append(Text(f"{name}: {group.missing}", "note"))
    return Chapter("Seeds", parts)


def _spread(group: SeedGroup) -> list[str]:
    known = group.variance
    mean = f"{group.mean:.4f}"
    if known:
        mean = shown(Interval(group.mean, known.interval.low, known.interval.high))
    spread = [f"{known.seed_sd:.4f}", f"{known.query_se:.4f}"] if known else ["-", "-"]
    return [str(len(group.jobs)), mean, f"{min(group.values):.4f}", f"{max(group.values):.4f}", *spread]
