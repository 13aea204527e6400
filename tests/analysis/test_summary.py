"""The table at the end of a run, against numbers worked out here."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from crossrank.analysis.runs import RunFolder
from crossrank.analysis.summary import HEADERS, SummaryRow, as_frame, as_markdown, as_table, summary
from crossrank.evaluation.significance import Interval, paired_interval

COLUMNS = ["dataset", "query_id", "metric", "value", "base_value"]
ROW = SummaryRow("dev", "ndcg@10", 200, 0.5, 0.25, 0.625, Interval(0.125, 0.1, 0.15))


def run_of(folder, tables):
    """`tables` maps (step, evaluator) to rows of COLUMNS."""
    (folder / "evaluations").mkdir(parents=True)
    (folder / "metrics.jsonl").touch()
    for (step, evaluator), rows in tables.items():
        table = pd.DataFrame(rows, columns=COLUMNS).assign(evaluator=evaluator, step=step)
        table.to_parquet(folder / "evaluations" / f"step={step:06d}-{evaluator}.parquet", index=False)
    return RunFolder(folder)


def rows(values, dataset="dev", metric="map", base=0.25):
    return [(dataset, f"q{i}", metric, value, base) for i, value in enumerate(values)]


def test_before_and_after_are_of_the_steps_that_were_asked_for(tmp_path):
    tables = {(0, "e"): rows([0.0, 0.2]), (5, "e"): rows([1.0, 0.5]), (10, "e"): rows([0.1, 0.1])}
    (row,) = summary(run_of(tmp_path, tables), step=5)
    assert (row.dataset, row.metric, row.queries) == ("dev", "map", 2)
    assert (row.first_stage, row.before, row.after) == pytest.approx((0.25, 0.1, 0.75))
    assert row.gain.mean == pytest.approx(0.5)


def test_the_interval_is_of_paired_differences_to_the_first_stage(tmp_path):
    draws = np.random.default_rng(0)
    base, after = draws.random(40), draws.random(40)
    table = [("dev", f"q{i}", "map", a, b) for i, (a, b) in enumerate(zip(after, base, strict=True))]
    (row,) = summary(run_of(tmp_path, {(0, "e"): table, (9, "e"): table}), step=9)
    assert row.gain == paired_interval(after - base)
    assert row.gain.low < row.after - row.first_stage < row.gain.high


def test_every_dataset_and_metric_has_a_row_in_the_order_they_came(tmp_path):
    table = [*rows([0.1, 0.2], "b", "map"), *rows([0.3, 0.4], "b", "mrr@10"), *rows([0.5, 0.6], "a", "map")]
    found = summary(run_of(tmp_path, {(0, "e"): table, (1, "e"): table}), step=1)
    assert [(row.dataset, row.metric, row.after) for row in found] == [
        ("b", "map", pytest.approx(0.15)),
        ("b", "mrr@10", pytest.approx(0.35)),
        ("a", "map", pytest.approx(0.55)),
    ]


def test_two_evaluators_with_a_dataset_of_the_same_name_are_not_mixed(tmp_path):
    tables = {(step, name): rows([value, value + 0.2]) for step in (0, 1) for name, value in (("x", 0.1), ("y", 0.7))}
    found = summary(run_of(tmp_path, tables), step=1)
    assert [(row.queries, row.after) for row in found] == [(2, pytest.approx(0.2)), (2, pytest.approx(0.8))]


def test_a_single_query_has_no_interval_and_does_not_end_the_run_in_an_error(tmp_path):
    (row,) = summary(run_of(tmp_path, {(0, "e"): rows([0.5]), (1, "e"): rows([1.0])}), step=1)
    assert row.gain.mean == 0.75
    assert row.cells()[-1] == "too few queries"


def test_cells_are_the_numbers_with_their_gain_over_the_first_stage():
    assert ROW.cells() == (
        "dev",
        "ndcg@10",
        "200",
        "0.5000",
        "0.2500 (-0.2500)",
        "0.6250 (+0.1250)",
        "+0.1000 to +0.1500",
    )
    assert len(ROW.cells()) == len(HEADERS)


def test_markdown_is_a_table():
    lines = as_markdown([ROW, replace(ROW, dataset="other")]).splitlines()
    assert lines[0] == "| " + " | ".join(HEADERS) + " |"
    assert set(lines[1]) == set("| -")
    assert lines[2] == "| " + " | ".join(ROW.cells()) + " |"
    assert lines[3].startswith("| other |")
    assert {line.count("|") for line in lines} == {len(HEADERS) + 1}


def test_the_terminal_shows_every_cell():
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(as_table([ROW]))
    text = console.export_text()
    assert all(cell in text for cell in (*HEADERS, *ROW.cells()))


def test_the_notebook_gets_the_same_cells():
    frame = as_frame([ROW])
    assert tuple(frame.columns) == HEADERS
    assert tuple(frame.iloc[0]) == ROW.cells()
