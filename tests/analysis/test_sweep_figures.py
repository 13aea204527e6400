"""What the figures of a sweep draw, read back from the axes."""

import json

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from crossrank.analysis.sweep_figures import cost_and_quality, job_curves, job_table, seed_spread, values_by_job
from crossrank.analysis.sweeps import SweepFolder
from crossrank.errors import DataError
from crossrank.evaluation.significance import stratified_interval
from crossrank.training.tracking import JsonlLogger

KEY = "eval/dev_set/dev/map"
JOBS = {  # job: learning rate, seed, minutes, values of the four queries at step 2 and 4
    "a": (0.1, 1, 2.0, ([0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 0.75, 0.25])),
    "b": (0.2, 1, 3.0, ([0.5, 0.5, 0.5, 0.5], [1.0, 0.5, 0.75, 0.75])),
    "c": (0.1, 2, 4.0, ([0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.75, 0.75])),
    "d": (0.3, 1, 1.0, ([0.25, 0.25, 0.25, 0.25],)),  # was pruned
}
BASE = [0.5, 0.25, 0.25, 0.0]


def write_job(folder, rate, seed, minutes, values):
    (folder / "evaluations").mkdir(parents=True)
    logger = JsonlLogger(folder)
    for step, of_queries in zip((2, 4), values, strict=False):
        logger.log_metrics({KEY: float(np.mean(of_queries))}, step=step)
        rows = [
            ("dev", f"q{i}", "map", value, base) for i, (value, base) in enumerate(zip(of_queries, BASE, strict=True))
        ]
        table = pd.DataFrame(rows, columns=["dataset", "query_id", "metric", "value", "base_value"])
        name = f"step={step:06d}-dev_set.parquet"
        table.assign(evaluator="dev_set", step=step).to_parquet(folder / "evaluations" / name)
    facts = {"best_step": 2 * len(values), "best_value": float(np.mean(values[-1])), "seconds": 60 * minutes}
    pruned = {"pruned_at": 2} if len(values) == 1 else {}
    (folder / "result.json").write_text(json.dumps({"name": "s", "monitor": KEY} | facts | pruned))
    (folder / "job.json").write_text(json.dumps({"overrides": [f"optimizer.lr={rate}"]}))
    (folder / "config.yaml").write_text(
        f"run_dir: {folder}\ncache_dir: {folder}\nseed: {seed}\noptimizer:\n  lr: {rate}\n"
    )


@pytest.fixture
def sweep(tmp_path):
    for name, job in JOBS.items():
        write_job(tmp_path / name, *job)
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "job.json").write_text("{}")
    (tmp_path / "e" / "failure.json").write_text(json.dumps({"error": "the loss is nan"}))
    return SweepFolder(tmp_path)


@pytest.fixture
def axes():
    return Figure().subplots()


def test_values_have_the_interval_over_queries_the_best_on_top_and_pruned_ones_are_hollow(sweep, axes):
    values_by_job(sweep, axes)
    bars, points = axes.collections
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["seed=1, lr=0.3", "seed=1, lr=0.1", "seed=2, lr=0.1", "seed=1, lr=0.2"]
    np.testing.assert_allclose(points.get_offsets(), [(0.25, 0), (0.5, 1), (0.625, 2), (0.75, 3)])
    assert [same_color(face, "white") for face in points.get_facecolors()] == [True, False, False, False]
    for path, job in zip(bars.get_paths(), "dacb", strict=True):
        wanted = stratified_interval([JOBS[job][3][-1]])
        np.testing.assert_allclose(path.vertices[:, 0], [wanted.low, wanted.high])
    assert axes.lines[0].get_xdata()[0] == 0.25  # the first stage
    assert axes.get_xlabel() == f"{KEY} (95 % interval over queries)"


def test_the_best_jobs_curve_is_thick_and_a_pruned_one_ends_early(sweep, axes):
    job_curves(sweep, axes)
    *curves, first_stage = axes.lines
    found = {line.get_label(): (dict(zip(*line.get_data(), strict=True)), line.get_linewidth()) for line in curves}
    assert found == {
        "seed=1, lr=0.2": ({2: 0.5, 4: 0.75}, 3.0),
        "seed=2, lr=0.1": ({2: 0.0, 4: 0.625}, 1.2),
        "seed=1, lr=0.1": ({2: 0.25, 4: 0.5}, 1.2),
        "seed=1, lr=0.3": ({2: 0.25}, 1.2),
    }
    assert (first_stage.get_ydata()[0], first_stage.get_linestyle()) == (0.25, "--")


def test_seeds_of_one_choice_stand_in_one_column_with_their_mean(sweep, axes):
    """The two of lr=0.1 are 0.5 and 0.625: their standard deviation is 0.125 / sqrt(2)."""
    seed_spread(sweep, axes)
    dots = [part.get_offsets().tolist() for part in axes.collections[::2]]
    assert dots == [[[0, 0.75]], [[1, 0.625], [1, 0.5]]]
    means = [part.get_paths()[0].vertices[0, 1] for part in axes.collections[1::2]]
    assert means == [0.75, 0.5625]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["lr=0.2", "lr=0.1"]
    assert axes.get_title() == "A seed alone: standard deviation 0.0884"


def test_without_seeds_the_title_says_that_there_is_one_of_each(sweep, axes, tmp_path):
    (tmp_path / "c" / "result.json").unlink()
    seed_spread(SweepFolder(tmp_path), axes)
    assert axes.get_title() == "One seed of each"


def test_cost_joins_the_best_that_each_time_can_buy(sweep, axes):
    cost_and_quality(sweep, axes)
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [(1, 0.25), (2, 0.5), (3, 0.75), (4, 0.625)])
    (line,) = axes.lines
    assert list(line.get_ydata()) == [0.25, 0.5, 0.75, 0.75]
    assert [text.get_text() for text in axes.texts][2] == "seed=1, lr=0.2"


def test_the_table_has_a_row_a_job_the_failed_one_with_its_error(sweep):
    table = job_table(sweep)
    assert table["value"].tolist()[:4] == [0.75, 0.625, 0.5, 0.25]
    assert table["minutes"].tolist()[:4] == [3.0, 4.0, 2.0, 1.0]
    assert table[["state", "error"]].iloc[-1].tolist() == ["failed", "the loss is nan"]
    assert {"seed", "optimizer.lr"} <= set(table)


def test_a_sweep_of_which_nothing_has_finished_is_an_error(tmp_path, axes):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "job.json").write_text("{}")
    for draw in (values_by_job, job_curves, seed_spread, cost_and_quality):
        with pytest.raises(DataError, match="no job has finished with a value"):
            draw(SweepFolder(tmp_path), axes)
