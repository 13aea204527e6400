"""The table at the end of a run, against numbers worked out here."""

import io
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from crossrank.analysis.runs import RunFolder
from crossrank.analysis.summary import (
    HEADERS,
    UNKNOWN,
    SummaryRow,
    as_frame,
    as_markdown,
    as_table,
    summary,
    summary_of,
)
from crossrank.evaluation.significance import Interval, stratified_interval

COLUMNS = ["dataset", "query_id", "metric", "value", "base_value"]
ROW = SummaryRow(
    "dev", "ndcg@10", 200, Interval(0.25, 0.2, 0.3), Interval(0.125, 0.1, 0.15), Interval(0.5, 0.4, 0.6),
    Interval(0.25, 0.2, 0.3), Interval(1, 1, 1), Interval(1 / 3, 0.25, 0.4),
)  # fmt: skip


def run_of(folder, tables):
    """`tables` maps (step, evaluator) to rows of COLUMNS."""
    (folder / "evaluations").mkdir(parents=True)
    (folder / "metrics.jsonl").touch()
    for (step, evaluator), rows in tables.items():
        table = pd.DataFrame(rows, columns=COLUMNS).assign(evaluator=evaluator, step=step, ceiling=1.0)
        table.to_parquet(folder / "evaluations" / f"step={step:06d}-{evaluator}.parquet", index=False)
    return RunFolder(folder)


def rows(values, dataset="dev", metric="map", base=0.25):
    return [(dataset, f"q{i}", metric, value, base) for i, value in enumerate(values)]


def test_before_and_after_are_of_the_steps_that_were_asked_for(tmp_path):
    tables = {(0, "e"): rows([0.0, 0.2]), (5, "e"): rows([1.0, 0.5]), (10, "e"): rows([0.1, 0.1])}
    (row,) = summary(run_of(tmp_path, tables), step=5)
    assert (row.dataset, row.metric, row.queries) == ("dev", "map", 2)
    assert (row.first_stage.mean, row.before.mean, row.after.mean) == pytest.approx((0.25, 0.1, 0.75))
    assert row.gain.mean == pytest.approx(0.5)
    assert row.headroom.mean == pytest.approx(0.5 / 0.75)


def random_rows(seed, queries, dataset="dev"):
    draws = np.random.default_rng(seed)
    base, after = draws.random(queries), draws.random(queries)
    return base, after, [(dataset, f"q{i}", "map", a, b) for i, (a, b) in enumerate(zip(after, base, strict=True))]


def test_every_number_has_the_bootstraps_interval(tmp_path):
    base, after, table = random_rows(0, 40)
    (row,) = summary(run_of(tmp_path, {(0, "e"): table, (9, "e"): table}), step=9)
    assert row.gain == pytest.approx(stratified_interval([after - base]))
    assert row.after == row.before == pytest.approx(stratified_interval([after]))
    assert row.first_stage == pytest.approx(stratified_interval([base]))
    assert row.ceiling == (1, 1, 1)
    assert row.gain.low < row.after.mean - row.first_stage.mean < row.gain.high


def test_the_headrooms_interval_is_that_of_a_ratio():
    """Against resampling the ratio itself."""
    base, after, table = random_rows(1, 400)
    (row,) = summary_of(pd.DataFrame(table, columns=COLUMNS).assign(ceiling=1.0))
    draws = np.random.default_rng(0)
    chosen = draws.integers(0, 400, (4000, 400))
    ratios = (after - base)[chosen].mean(axis=1) / (1 - base)[chosen].mean(axis=1)
    assert row.headroom.mean == pytest.approx((after - base).mean() / (1 - base).mean())
    assert (row.headroom.low, row.headroom.high) == pytest.approx(np.quantile(ratios, [0.025, 0.975]), abs=0.02)


def test_every_dataset_and_metric_has_a_row_in_the_order_they_came_and_then_the_mean(tmp_path):
    table = [*rows([0.1, 0.2], "b", "map"), *rows([0.5, 0.7], "a", "map")]
    found = summary(run_of(tmp_path, {(0, "e"): table, (1, "e"): table}), step=1)
    assert [(row.dataset, row.metric, row.queries, row.after.mean) for row in found] == [
        ("b", "map", 2, pytest.approx(0.15)),
        ("a", "map", 2, pytest.approx(0.6)),
        ("mean", "map", 4, pytest.approx(0.375)),
    ]
    assert found[2].after == pytest.approx(stratified_interval([[0.1, 0.2], [0.5, 0.7]]))


def test_metrics_of_a_dataset_keep_their_order(tmp_path):
    table = [*rows([0.1, 0.2], "d", "map"), *rows([0.3, 0.4], "d", "mrr@10")]
    found = summary(run_of(tmp_path, {(0, "e"): table, (1, "e"): table}), step=1)
    assert [(row.metric, row.after.mean) for row in found] == [
        ("map", pytest.approx(0.15)),
        ("mrr@10", pytest.approx(0.35)),
    ]


def test_two_evaluators_with_a_dataset_of_the_same_name_are_not_mixed(tmp_path):
    tables = {(step, name): rows([value, value + 0.2]) for step in (0, 1) for name, value in (("x", 0.1), ("y", 0.7))}
    found = summary(run_of(tmp_path, tables), step=1)
    assert [(row.queries, row.after.mean) for row in found] == [(2, pytest.approx(0.2)), (2, pytest.approx(0.8))]


def test_a_single_query_has_no_interval_and_does_not_end_the_run_in_an_error(tmp_path):
    (row,) = summary(run_of(tmp_path, {(0, "e"): rows([0.5]), (1, "e"): rows([1.0])}), step=1)
    assert row.gain.mean == 0.75
    assert math.isnan(row.gain.low)
    assert row.cells()[6] == "+0.7500 [too few queries]"


def test_what_is_not_known_is_a_dash(tmp_path):
    """No evaluation before, no first stage; rows of an earlier version have no ceiling."""
    (row,) = summary_of(pd.DataFrame(rows([0.2, 0.4], base=np.nan), columns=COLUMNS))
    assert row.after.mean == pytest.approx(0.3)
    assert row.cells()[3:] == ("-", "-", row.cells()[5], "-", "-", "-")
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(as_table([row]))
    shown = console.export_text()
    for text in (shown, as_markdown([row])):
        assert "reranked" in text
        assert "training" not in text
        assert "first stage |" not in text


def test_cells_are_the_numbers_with_their_intervals():
    assert ROW.cells() == (
        "dev", "ndcg@10", "200", "0.2500 [0.2000, 0.3000]", "0.1250 [0.1000, 0.1500]", "0.5000 [0.4000, 0.6000]",
        "+0.2500 [+0.2000, +0.3000]", "1.0000 [1.0000, 1.0000]", "0.3333 [0.2500, 0.4000]",
    )  # fmt: skip
    assert len(ROW.cells()) == len(HEADERS)
    assert replace(ROW, before=UNKNOWN).cells()[4] == "-"


def test_markdown_is_a_table_for_each_protocol_which_is_named():
    page = as_markdown([ROW, replace(ROW, metric="trec_ndcg@10"), replace(ROW, dataset="other")])
    lines = page.splitlines()
    assert lines[0].startswith("Protocol st: as sentence-transformers")
    assert lines[2] == "| " + " | ".join(HEADERS) + " |"
    assert set(lines[3]) == set("| -")
    assert lines[4] == "| " + " | ".join(ROW.cells()) + " |"
    assert lines[5].startswith("| other |")
    assert lines[7].startswith("Protocol trec: as trec_eval")
    assert lines[11].startswith("| dev | trec_ndcg@10 |")
    assert {line.count("|") for line in lines if "|" in line} == {len(HEADERS) + 1}


def test_the_terminal_shows_every_cell_of_the_chosen_protocol():
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(as_table([ROW, replace(ROW, dataset="[red]x", metric="trec_map")]))
    text = console.export_text()
    parts = [part for cell in (*HEADERS, *ROW.cells(3)) for part in cell.replace(" [", "\n[").split("\n")]
    assert all(part in text for part in parts)
    assert "protocol st" in text
    assert "trec_map" not in text


def test_the_notebook_gets_the_same_cells():
    frame = as_frame([ROW])
    assert tuple(frame.columns) == HEADERS
    assert tuple(frame.iloc[0]) == ROW.cells()
