"""What the figures draw, read back from the axes."""

import logging
import sys

import matplotlib as mpl

mpl.use("Agg")

import pandas as pd
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from crossrank.analysis.figures import (
    budget_curves,
    evaluation_curves,
    query_changes,
    save_budget_figure,
    training_curve,
)
from crossrank.analysis.runs import RunFolder
from crossrank.errors import DataError
from crossrank.training.tracking import JsonlLogger

VALUES = {0: [0.1, 0.3, 0.2], 4: [0.5, 0.4, 0.0]}
BASE = [0.2, 0.1, 0.3]


@pytest.fixture
def run(tmp_path):
    logger = JsonlLogger(tmp_path)
    (tmp_path / "evaluations").mkdir()
    for step, values in VALUES.items():
        logger.log_metrics({"train/loss": 1.0 / (1 + step)}, step=step)
        rows = [
            (dataset, f"q{i}", metric, value * scale, base * scale)
            for dataset, scale in (("one", 1.0), ("two", 0.5))
            for metric in ("map", "ndcg@10")
            for i, (value, base) in enumerate(zip(values, BASE, strict=True))
        ]
        table = pd.DataFrame(rows, columns=["dataset", "query_id", "metric", "value", "base_value"])
        table.assign(evaluator="e", step=step).to_parquet(tmp_path / "evaluations" / f"step={step:06d}-e.parquet")
    return RunFolder(tmp_path)


@pytest.fixture
def axes():
    return Figure().subplots()


def test_training_curve_is_the_logged_loss(run, axes):
    training_curve(run, axes)
    (line,) = axes.lines
    assert list(line.get_xdata()) == [0, 4]
    assert list(line.get_ydata()) == pytest.approx([1.0, 0.2])
    assert axes.get_xlabel() == "optimizer step"
    assert "loss" in axes.get_ylabel()


def test_evaluation_curves_are_means_with_the_first_stage_dashed_in_the_same_colour(run, axes):
    evaluation_curves(run, "map", axes)
    assert len(axes.lines) == 4
    for i, scale in enumerate((1.0, 0.5)):
        model, first_stage = axes.lines[2 * i : 2 * i + 2]
        assert list(model.get_xdata()) == [0, 4]
        assert list(model.get_ydata()) == pytest.approx([0.2 * scale, 0.3 * scale])
        assert list(first_stage.get_ydata()) == pytest.approx([0.2 * scale, 0.2 * scale])
        assert (model.get_linestyle(), first_stage.get_linestyle()) == ("-", "--")
        assert same_color(model.get_color(), first_stage.get_color())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]
    assert axes.get_ylabel() == "map"


def test_query_changes_are_sorted_and_coloured_by_sign(run, axes):
    query_changes(run, "map", 4, axes)
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx(sorted([0.3, 0.3, -0.3, 0.15, 0.15, -0.15]))
    for bar in axes.patches:
        assert same_color(bar.get_facecolor(), "tab:red" if bar.get_height() < 0 else "tab:green")
    assert "4" in axes.get_title()


@pytest.mark.parametrize("draw", [lambda run, axes: evaluation_curves(run, "mapp", axes),
                                  lambda run, axes: query_changes(run, "map", 5, axes)])  # fmt: skip
def test_asking_for_what_is_not_there_is_an_error_and_not_an_empty_figure(run, axes, draw):
    with pytest.raises(DataError, match=r"map|step"):
        draw(run, axes)


def test_a_run_that_logged_no_loss_is_an_error(tmp_path, axes):
    JsonlLogger(tmp_path).log_metrics({"other": 1.0}, step=1)
    with pytest.raises(DataError, match="train/loss"):
        training_curve(RunFolder(tmp_path), axes)


BUDGET = [  # max length, depth, value, p50_ms
    (64, 0, 0.3, 0.0), (64, 5, 0.4, 2.0), (64, 20, 0.45, 8.0),
    (128, 0, 0.3, 0.0), (128, 5, 0.5, 4.0), (128, 20, 0.6, 16.0),
]  # fmt: skip


def budget(*evaluators):
    columns = ["max_length", "depth", "value", "p50_ms"]
    frames = [
        pd.DataFrame(BUDGET, columns=columns).assign(evaluator=name, dataset=dataset, metric="ndcg@10")
        for name in evaluators
        for dataset in ("one", "mean")
    ]
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(low=frame["value"] - 0.1, high=frame["value"] + 0.2)


def test_budget_curves_are_a_line_a_length_with_its_band_and_depths_at_the_points(axes):
    budget_curves(budget("e"), axes)
    *lines, first_stage = axes.lines
    assert [line.get_label() for line in lines] == ["64 tokens", "128 tokens"]
    assert [list(line.get_xdata()) for line in lines] == [[2, 8], [4, 16]]
    assert [list(line.get_ydata()) for line in lines] == [[0.4, 0.45], [0.5, 0.6]]
    assert (first_stage.get_ydata()[0], first_stage.get_linestyle()) == (0.3, "--")
    assert [(text.get_text(), text.xy) for text in axes.texts] == [
        ("5", (2.0, 0.4)), ("20", (8.0, 0.45)), ("5", (4.0, 0.5)), ("20", (16.0, 0.6)),
    ]  # fmt: skip
    for band, (low, high) in zip(axes.collections, [(0.3, 0.65), (0.4, 0.8)], strict=True):
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((low, high))
    assert (axes.get_ylabel(), axes.get_xscale()) == ("ndcg@10", "log")
    assert "latency" in axes.get_xlabel()


def test_budget_curves_of_several_evaluators_are_several_axes(axes, tmp_path):
    with pytest.raises(DataError, match="one evaluator"):
        budget_curves(budget("e", "f"), axes)
    with pytest.raises(DataError, match="mean over datasets"):
        budget_curves(budget("e").query("dataset == 'one'"), axes)
    assert save_budget_figure(budget("e", "f"), tmp_path / "budget.png")
    assert (tmp_path / "budget.png").read_bytes()[:4] == b"\x89PNG"


def test_without_matplotlib_the_log_says_what_to_install(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not save_budget_figure(budget("e"), tmp_path / "budget.png")
    (warning,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert "pip install -e '.[notebooks]'" in warning
    assert not (tmp_path / "budget.png").exists()
