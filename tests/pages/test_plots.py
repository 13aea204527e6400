import math

import pandas as pd
import pytest
from made_runs import HOSTILE, write_run

from crossrank.analysis.run_view import view
from crossrank.analysis.summary import summary
from crossrank.evaluation.calibration import reliability
from crossrank.evaluation.significance import Interval
from crossrank.pages import plots


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return view(write_run(tmp_path_factory.mktemp("plots") / "run"))


def test_a_curve_is_what_was_logged(run):
    (line,) = plots.curves(run, {"loss": "train/loss"}, "loss").data
    assert (line.x, line.y) == ((0, 4, 8), (1.0, 0.2, 0.111111))
    assert plots.curves(run, {"loss": "train/los"}, "loss") is None


def test_a_metric_has_a_band_and_its_first_stage(run):
    traces = {trace.name: trace for trace in plots.metric_curves(run, "dev", "ndcg@10").data if trace.fill is None}
    assert set(traces) == {f"{name}{stage}" for name in ("mean", "one", "two") for stage in ("", ", first stage")}
    assert list(traces["one"].y) == pytest.approx(list(run.run.curve("eval/dev/one/ndcg@10")), abs=1e-6)
    assert list(traces["one, first stage"].y) == pytest.approx(
        list(run.run.curve("eval/dev/one/base_ndcg@10")), abs=1e-6
    )
    bands = [trace for trace in plots.metric_curves(run, "dev", "ndcg@10").data if trace.fill]
    low, high = (list(run.run.curve(f"eval/dev/mean/ndcg@10_{end}")) for end in ("low", "high"))
    assert list(bands[0].y) == pytest.approx(low + high[::-1], abs=1e-6)
    assert list(bands[0].x) == [0, 4, 8, 8, 4, 0]
    assert plots.metric_curves(run, "dev", "ndcg@20") is None


def test_one_dataset_is_drawn_once_without_its_mean(tmp_path):
    found = plots.metric_curves(view(write_run(tmp_path / "run", datasets=("one",))), "dev", "ndcg@10")
    assert [trace.name for trace in found.data] == ["one", "one", "first stage"]


def test_of_many_datasets_only_the_mean_has_a_band(tmp_path):
    run = view(write_run(tmp_path / "run", datasets=tuple("abcde"), steps=(0, 4)))
    bands = [trace.name for trace in plots.metric_curves(run, "dev", "ndcg@10").data if trace.fill]
    assert bands == ["mean"]


def test_a_long_line_is_thinned_and_keeps_its_ends():
    values = pd.Series(range(50_001))
    found = plots.thinned(values)
    assert len(found) == plots.MOST
    assert (found.iloc[0], found.iloc[-1]) == (0, 50_000)
    assert len(plots.thinned(values[:5])) == 5


def test_what_is_no_number_is_a_gap(tmp_path):
    folder = write_run(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "train/loss": null}\n')
    assert plots.curves(view(folder), {"loss": "train/loss"}, "loss").data[0].y[-1] is None


@pytest.mark.parametrize("text", HOSTILE)
def test_plotly_is_given_no_tag(text):
    drawn = plots.intervals({text: Interval(0.5, 0.4, 0.7)}, text)
    for shown in (drawn.data[0].y[0], drawn.layout.xaxis.title.text):
        assert "<" not in shown
    assert drawn.data[0].x == (0.5,)
    assert drawn.data[0].error_x.array == pytest.approx((0.2,))
    assert drawn.data[0].error_x.arrayminus == pytest.approx((0.1,))


def test_a_mean_without_an_interval_has_no_bar():
    drawn = plots.intervals({"a": Interval(0.5, math.nan, math.nan)}, "x")
    assert (drawn.data[0].error_x.array, drawn.data[0].error_x.arrayminus) == ((0.0,), (0.0,))


def test_each_dataset_is_joined_from_first_stage_to_reranked(run):
    rows = [row for row in summary(run.run, run.step) if row.metric == "ndcg@10"]
    *lines, first, reranked = plots.reranking(rows).data
    assert list(first.x) == pytest.approx([row.first_stage.mean for row in rows], abs=1e-6)
    assert list(reranked.x) == pytest.approx([row.after.mean for row in rows], abs=1e-6)
    assert [line.x for line in lines] == list(zip(first.x, reranked.x, strict=True))


def test_queries_stand_from_hurt_to_helped_in_two_colours():
    (bars,) = plots.query_changes(pd.Series([0.5, -0.25, 0.0]), "ndcg@10").data
    assert bars.y == (-0.25, 0.0, 0.5)
    assert bars.marker.color == ("var(--bad)", "var(--good)", "var(--good)")


def test_the_diagram_holds_each_bin_with_its_interval():
    found = reliability([0.1, 0.1, 0.9, 0.9], [0, 0, 1, 0])
    diagonal, line = plots.reliability_diagram({"calibrated": found}).data
    assert (diagonal.x, diagonal.y) == ((0, 1), (0, 1))
    assert (line.x, line.y) == ((0.1, 0.9), (0.0, 0.5))
    assert line.error_y.array[1] == pytest.approx(found.bins[1].share_high - 0.5, abs=1e-6)
