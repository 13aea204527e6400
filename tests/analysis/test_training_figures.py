"""What the figures of a training draw, read back from the axes."""

import json

import matplotlib as mpl

mpl.use("Agg")

import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from crossrank.analysis.runs import RunFolder
from crossrank.analysis.training_figures import (
    losses_by_rank,
    monitored_curve,
    score_separation,
    throughput,
    time_shares,
)
from crossrank.errors import DataError
from crossrank.training.tracking import JsonlLogger

KEY = "eval/dev_set/dev/map"
SPEEDS = {1: 10.0, 2: 40.0, 4: 30.0}
HEALTH = {  # by step
    2: {"positive_score": 0.5, "negative_score": -0.25, "loss_of_rank_0": 0.9, "loss_of_rank_1": 0.7,
        "loss_of_rank_3_to_5": 0.3, "loss_of_rank_from_6": 0.2},
    4: {"positive_score": 1.5, "negative_score": -1.25, "loss_of_rank_0": 0.8, "loss_of_rank_1": 0.6,
        "loss_of_rank_3_to_5": 0.1, "loss_of_rank_from_6": 0.0},
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    logger = JsonlLogger(tmp_path)
    for step, value in {0: 0.25, 2: 0.75, 4: 0.5}.items():
        logger.log_metrics({KEY: value, f"{KEY}_low": value - 0.125, f"{KEY}_high": value + 0.25,
                            "eval/dev_set/dev/base_map": 0.375}, step=step)  # fmt: skip
    for step, speed in SPEEDS.items():
        shares = {"train/evaluation_share": 0.5 / step, "train/data_wait_share": 0.25, "train/padding_share": 0.0}
        logger.log_metrics({"train/pairs_per_second": speed} | shares, step=step)
    for step, values in HEALTH.items():
        logger.log_metrics({f"health/{name}": value for name, value in values.items()}, step=step)
    result = {"best_step": 2, "monitor": KEY, "seconds": 90.0}
    (tmp_path / "result.json").write_text(json.dumps(result))
    return RunFolder(tmp_path)


@pytest.fixture
def axes():
    return Figure().subplots()


def lines(axes):
    return {line.get_label(): dict(zip(*line.get_data(), strict=True)) for line in axes.lines}


def test_the_monitored_metric_has_its_band_its_first_stage_and_the_kept_step(run, axes):
    monitored_curve(run, axes)
    value, base, kept = axes.lines
    assert dict(zip(*value.get_data(), strict=True)) == {0: 0.25, 2: 0.75, 4: 0.5}
    assert (list(base.get_ydata()), base.get_linestyle()) == ([0.375] * 3, "--")
    assert (list(kept.get_xdata()), list(kept.get_ydata()), kept.get_marker()) == ([2], [0.75], "*")
    (band,) = axes.collections
    corners = {tuple(point) for point in band.get_paths()[0].vertices}
    assert {(0.0, 0.125), (0.0, 0.5), (2.0, 0.625), (2.0, 1.0), (4.0, 0.375), (4.0, 0.75)} <= corners
    assert (axes.get_title(), axes.get_ylabel()) == ("Kept: step 2", "map of dev")


def test_speed_is_drawn_from_zero_with_its_median(run, axes):
    throughput(run, axes)
    speed, median = axes.lines
    assert dict(zip(*speed.get_data(), strict=True)) == SPEEDS
    assert (median.get_ydata()[0], median.get_label()) == (30.0, "median 30")
    assert axes.get_ylim()[0] == 0


def test_shares_are_in_percent_and_the_title_has_the_time_of_the_whole_run(run, axes):
    time_shares(run, axes)
    assert lines(axes) == {
        "evaluating, of all time so far": {1: 50.0, 2: 25.0, 4: 12.5},
        "waiting for data, of training time": dict.fromkeys(SPEEDS, 25.0),
        "padding, of all tokens": dict.fromkeys(SPEEDS, 0.0),
    }
    assert "1.5 minutes" in axes.get_title()


def test_answers_are_green_and_negatives_red(run, axes):
    score_separation(run, axes)
    assert lines(axes) == {"answers": {2: 0.5, 4: 1.5}, "negatives": {2: -0.25, 4: -1.25}}
    answers, negatives = axes.lines
    assert same_color(answers.get_color(), "tab:green")
    assert same_color(negatives.get_color(), "tab:red")


def test_losses_are_in_the_order_of_the_ranks(run, axes):
    losses_by_rank(run, axes)
    assert list(lines(axes).items()) == [
        ("answers", {2: 0.9, 4: 0.8}),
        ("negatives of rank 1", {2: 0.7, 4: 0.6}),
        ("negatives of rank 3 to 5", {2: 0.3, 4: 0.1}),
        ("negatives of rank 6 and beyond", {2: 0.2, 4: 0.0}),
    ]


def test_a_run_without_the_health_callback_is_an_error_that_names_it(tmp_path, axes):
    JsonlLogger(tmp_path).log_metrics({"train/loss": 1.0}, step=1)
    with pytest.raises(DataError, match="the callback health does"):
        losses_by_rank(RunFolder(tmp_path), axes)
