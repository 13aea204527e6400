"""The page that a finished run ends with: what came of it, how far its scores can be trusted, where it fails."""

from collections.abc import Iterator

import pandas as pd

from crossrank.analysis.averages import averages_section
from crossrank.analysis.failures_page import as_markdown as failures_page
from crossrank.analysis.run_view import RunView
from crossrank.analysis.sections import Table, markdown_table
from crossrank.analysis.summary import as_markdown, shown
from crossrank.evaluation.significance import mean_interval


def run_report(view: RunView) -> str:
    """Return a finished run's page as markdown."""
    return "\n\n".join([f"# {view.name}", *_found(view)]) + "\n"


def _found(view: RunView) -> Iterator[str]:
    monitor, step = view.monitor, view.step
    if monitor is None or step is None or view.failures is None:
        yield "Nothing was evaluated."
        return
    yield f"Best step: {step}, by {monitor.key}; on that set the step's own numbers are slightly optimistic."
    yield as_markdown(view.rows)
    yield from averages_section(view.result.get("averages", []), monitor.key, step)
    if not view.run.queries.empty:
        yield "## First stage"
        yield markdown_table(*recall_table(view.run.queries))
    _, findings = view.calibration(view.read("export/calibration.json"))
    if findings is not None:
        yield "## Calibration"
        yield findings.note
        yield from (markdown_table(*table) for table in (findings.quality, findings.bins, findings.thresholds))
    yield failures_page(view.failures).rstrip()


def recall_table(queries: pd.DataFrame) -> Table:
    """Return how many candidates the first stage gave, and the share of the relevant documents among them."""
    lines = []
    for (_, dataset), rows in queries.groupby(["evaluator", "dataset"], sort=False):
        recall = shown(mean_interval(rows["recall"].dropna(), 0, 1))
        lines.append((str(dataset), str(len(rows)), f"{rows['candidates'].mean():.1f}", recall))
    return Table(("dataset", "queries", "candidates a query", "relevant documents among them"), lines)
