import math

import pandas as pd
import pytest
from made_runs import HOSTILE, write_sweep

from crossrank.analysis.sweeps import SweepFolder
from crossrank.evaluation.significance import Interval, SeedVariance
from crossrank.pages import sweep_plots
from crossrank.pages.sweep_study import SeedGroup

JOBS = pd.DataFrame(
    {"job": ["x", "y", "z"], "value": [0.9, 0.6, 0.3], "optimizer.lr": [1e-3, 1e-4, 1e-5], "kind": ["b", "a", "b"],
     "depth": [2, 4, 3]}
)  # fmt: skip


def test_a_job_is_a_line_through_its_choices_the_best_on_top():
    drawn = sweep_plots.parallel_coordinates(JOBS, ["optimizer.lr", "kind", "depth"], "ndcg@10")
    worst, middle, best = drawn.data
    assert best.y == (1.0, 0.0, 0.0, 1.0)
    assert middle.y == pytest.approx((0.5, 1.0, 1.0, 0.5))  # the rate by its logarithm, the depth as it is
    assert worst.y == (0.0, 0.0, 0.5, 0.0)
    assert best.line.color != middle.line.color
    assert drawn.layout.xaxis.ticktext == ("lr", "kind", "depth", "ndcg@10")
    assert {note.text for note in drawn.layout.annotations} == {
        "0.001", "0.0001", "1e-05", "a", "b", "2", "3", "4", "0.9", "0.6", "0.3",
    }  # fmt: skip
    assert "depth: 2" in best.text[0]


def test_a_choice_that_hardly_any_jobs_share_shows_its_ends():
    jobs = pd.DataFrame({"job": range(9), "value": [0.5] * 9, "a": range(9), "b": list("abcdefghi")})
    drawn = sweep_plots.parallel_coordinates(jobs, ["a", "b"], "m")
    assert [note.text for note in drawn.layout.annotations] == ["0", "8", "a", "i", "0.5"]


@pytest.mark.parametrize("text", HOSTILE)
def test_plotly_is_given_no_tag(text):
    jobs = pd.DataFrame({"job": [text], "value": [1.0], text: [text]})
    drawn = sweep_plots.parallel_coordinates(jobs, [text], text)
    shown = [*drawn.layout.xaxis.ticktext, *(note.text for note in drawn.layout.annotations)]
    shown += [line for one in drawn.data[0].text for line in one.split("<br>")]
    assert not [one for one in shown if "<" in one]


def test_keys_that_end_alike_are_told_apart():
    keys = ["a.lr", "b.lr", "c.seed", "seed"]
    assert sweep_plots.short_names(keys) == {key: key for key in keys}
    assert sweep_plots.short_names(["a.lr", "seed"]) == {"a.lr": "lr", "seed": "seed"}


def test_every_job_has_its_curve_the_best_on_top(tmp_path):
    sweep = SweepFolder(write_sweep(tmp_path / "sweep"))
    drawn = sweep_plots.job_curves(sweep.runs, sweep.monitor, sweep.best)
    assert {line.name for line in drawn.data} == {"job01", "job02", "job11", "job12"}
    top = drawn.data[-1]
    assert top.name == sweep.best
    assert list(top.y) == pytest.approx(list(sweep.runs[sweep.best].curve(sweep.monitor)), abs=1e-6)
    assert sweep_plots.job_curves(sweep.runs, "eval/other", sweep.best) is None


def test_importance_is_a_bar_a_choice():
    (bars,) = sweep_plots.importances({"lr": 0.75, "<b>": 0.25}).data
    assert (bars.x, bars.y) == ((0.75, 0.25), ("lr", "&lt;b&gt;"))


def test_each_seed_is_a_ring_around_the_mean_with_its_interval():
    both = SeedVariance(0.5, 0.1, 0.1, 0.1, 0.1, Interval(0.5, 0.2, 0.8))
    groups = {"a": SeedGroup({}, ["x", "y"], [0.4, 0.6], both), "b": SeedGroup({}, ["z"], [0.3], None)}
    means, rings = sweep_plots.seeds(groups, "m").data
    assert (means.x, means.y) == ((0.5, 0.3), ("a", "b"))
    assert means.error_x.array == pytest.approx((0.3, 0.0))
    assert (rings.x, rings.y) == ((0.4, 0.6, 0.3), ("a", "a", "b"))
    assert math.isclose(groups["a"].mean, 0.5)
