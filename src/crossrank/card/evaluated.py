"""The card's part on how good the model is: metrics, calibration, leaks, what its weaknesses are."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from crossrank.analysis.report import recall_table
from crossrank.analysis.run_view import RunView
from crossrank.analysis.runs import stored
from crossrank.analysis.sections import Table, markdown_table
from crossrank.analysis.summary import SummaryRow, as_markdown, shown
from crossrank.audit.leaks import Leaks
from crossrank.audit.untouched import with_and_without
from crossrank.callbacks.leaks import FOLDER
from crossrank.card.texts import cell, placeless

WRITTEN = ("at_k", "always_rerank_positives", "depth", "rerank_k", "protocol", "datasets")  # of an evaluator's settings


def evaluation_parts(view: RunView, export: Path) -> dict[str, Any]:
    """Return the parts of the template that evaluations fill, each as markdown."""
    return {
        "headline": _headline(view),
        "tables": list(_tables(view)),
        "intervals": as_markdown(view.rows) if view.rows else "",
        "calibration": list(_calibration(view, export)),
        "leaks": list(_leaks(view)),
        "weaknesses": list(_weaknesses(view)),
    }


def _headline(view: RunView) -> str:
    row, monitor = view.headline, view.monitor
    if row is None or monitor is None:
        return "Nothing was evaluated: how good the model is is not known."
    first = f" over the first stage's {shown(row.first_stage)}, a gain of {shown(row.gain, '+')}"
    known = "" if pd.isna(row.gain.mean) else first
    return f"{cell(row.dataset)}, {row.queries:,} queries: {monitor.metric} {shown(row.after)}{known}."


def _tables(view: RunView) -> Iterator[dict[str, str]]:
    """Yield a table an evaluator, a row a metric and a column a dataset, each value with its gain."""
    for evaluator, rows in view.summaries.items():
        kept = [row for row in rows if row.protocol == rows[0].protocol]
        datasets, metrics = (list(dict.fromkeys(getattr(row, key) for row in kept)) for key in ("dataset", "metric"))
        main = view.monitor.metric if view.monitor else ""
        by = {(row.dataset, row.metric): row for row in kept}
        lines = []
        for metric in metrics:
            cells = [metric, *(with_gain(by[name, metric]) for name in datasets)]
            lines.append([f"**{text}**" for text in cells] if metric == main else cells)
        settings = view.config.get("evaluators", {}).get(evaluator, {})
        chosen = {key: placeless(settings[key]) for key in WRITTEN if isinstance(settings, dict) and key in settings}
        yield {
            "name": cell(evaluator),
            "settings": json.dumps(chosen).replace("`", "'"),
            "table": markdown_table(["metric", *map(cell, datasets)], lines),
        }


def with_gain(row: SummaryRow) -> str:
    """Return a value with its gain over the first stage, as 0.7686 (+0.1774)."""
    gain = "" if pd.isna(row.gain.mean) else f" ({row.gain.mean:+.4f})"
    return f"{row.after.mean:.4f}{gain}"


def _calibration(view: RunView, export: Path) -> Iterator[str]:
    _, found = view.calibration(stored(export / "calibration.json"))
    if found is not None:
        yield found.note
        yield markdown_table(*found.quality)
        yield "Thresholds for a precision, on the same candidates:"
        yield markdown_table(*found.thresholds)


def _leaks(view: RunView) -> Iterator[str]:
    found = Leaks.read(view.run.path / FOLDER)
    if found is None:
        yield (
            "Not looked at: whether the evaluation's queries stand in the training set is not known; "
            "`python -m src.audit` tells."
        )
        return
    table = found.table()
    yield (
        f"{len(found.keys)} of {sum(found.queries.values()):,} evaluated queries stand in the training set, by their "
        "question or by a relevant document, equal once normalised or near-equal in word n-grams."
    )
    yield markdown_table([name.replace("_", " ") for name in table], [map(cell, map(str, r)) for r in table.to_numpy()])
    if found.keys and view.step is not None and view.monitor is not None:
        rows = view.evaluations
        now = rows[(rows["step"] == view.step) & (rows["metric"] == view.monitor.metric)]
        lines = [
            [cell(row.dataset), row.metric, shown(row.every), shown(row.without), shown(row.difference, "+")]
            for row in with_and_without(now[now["dataset"].isin(list(found.queries))], found)
        ]
        yield markdown_table(["dataset", "metric", "all queries", "without those", "difference"], lines)


def _weaknesses(view: RunView) -> Iterator[str]:
    """Yield, in sentences, what the evaluations say against the model."""
    if view.step is None or view.monitor is None:
        return
    rows = view.rows_at(view.step, view.monitor.evaluator)
    rows = rows[rows["metric"] == view.monitor.metric]
    change = (rows["value"] - rows["base_value"]).dropna().round(9)  # equal metrics may differ in the last bits
    if change.any():
        yield (
            f"By {view.monitor.metric} on {cell(view.monitor.evaluator)} it is worse than the first stage for "
            f"{(change < 0).sum()} of {len(change)} queries, and better for {(change > 0).sum()}."
        )
    if len(view.run.queries):
        shares = [f"{recall} on {cell(name)}" for name, _, _, recall in recall_table(view.run.queries).rows]
        yield f"It finds nothing that the first stage missed; of the relevant documents that had found {_and(shares)}."


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def parity(export: Path) -> Table | None:
    """Return how far the scores of each library that loaded the export lie from the trained model's."""
    file = export / "parity.json"
    if not file.is_file():
        return None
    lines = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(lines, list) or not lines or not all(isinstance(line, Mapping) for line in lines):
        return None
    header = list(dict.fromkeys(key for line in lines for key in line))
    cells = [[_number(line.get(key, "-")) for key in header] for line in lines]
    return Table([name.replace("_", " ") for name in header], cells)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.1e}" if isinstance(value, float) else str(value)
