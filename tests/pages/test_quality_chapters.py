"""What a run's page says of its quality is what the summary, the failures and the calibration found."""

import math

import pytest
from made_runs import write_run

from crossrank.analysis.failures import failures
from crossrank.analysis.run_view import RunView, view
from crossrank.analysis.runs import RunFolder
from crossrank.analysis.summary import SummaryRow, shown, summary
from crossrank.evaluation.calibration import Calibration, reliability
from crossrank.evaluation.significance import Interval
from crossrank.pages import quality_chapters as quality
from crossrank.pages.page_parts import Fold, Grid, Plot, Queries, Text, Tiles
from crossrank.training.tracking import JsonlLogger


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return view(write_run(tmp_path_factory.mktemp("quality") / "run", strength=3.0))


@pytest.fixture
def bare(tmp_path):
    """A run that was stopped before it had evaluated anything."""
    JsonlLogger(tmp_path).log_metrics({"train/loss": 1.0}, step=3)
    return RunView(RunFolder(tmp_path))


def of(chapter, kind):
    return [part for part in chapter.parts if isinstance(part, kind)]


def texts(chapter):
    return " ".join(part.text for part in of(chapter, Text))


def test_the_headline_is_the_summary_of_the_monitored_metric(run):
    row = next(row for row in summary(run.run, run.step) if (row.dataset, row.metric) == ("mean", "ndcg@10"))
    (tiles,) = of(quality.headline(run), Tiles)
    told = {tile.label: f"{tile.value} {tile.detail}" for tile in tiles.tiles}
    assert told == {
        "first stage": shown(row.first_stage), "before training": shown(row.before), "after training": shown(row.after),
        "gain over the first stage": shown(row.gain, "+"), "ceiling of the same lists": shown(row.ceiling),
    }  # fmt: skip
    assert row.gain.low > 0
    assert "improves on the first stage" in texts(quality.headline(run))
    assert [tile.tone for tile in tiles.tiles if tile.tone] == ["good"]


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (Interval(0.1, 0.05, 0.15), "improves on the first stage"),
        (Interval(-0.1, -0.15, -0.05), "worse than the first stage"),
        (Interval(0.1, -0.05, 0.25), "not told apart"),
        (Interval(0.1, math.nan, math.nan), "too few queries"),
        (Interval(math.nan, math.nan, math.nan), "no first stage"),
    ],
)
def test_the_verdict_follows_the_interval(gain, said):
    whole = Interval(0.5, 0.4, 0.6)
    assert said in quality._verdict(SummaryRow("d", "m", 9, whole, whole, whole, gain, whole, whole))


def test_what_is_missing_is_said(bare, tmp_path):
    assert "has not finished: its last logged step is 3" in texts(quality.headline(bare))
    for chapter in (quality.headline, quality.curves, quality.results, quality.queries):
        assert "Nothing was evaluated" in texts(chapter(bare))
    assert "No calibration was fitted" in texts(quality.calibration(bare))
    assert [plot.title for plot in of(quality.curves(bare), Plot)] == ["Training loss"]


def test_an_average_that_was_kept_is_named_where_its_step_stands(tmp_path):
    """The steps are 4 and 8; the average's evaluation is numbered 9."""
    average = {
        "name": "ema", "rule": "Ema(decay=0.99)", "updates": 8, "against_step": 8, "value": 0.5, "against": 0.25,
        "difference": [0.25, 0.1, 0.4], "p": 0.001, "queries": 28, "exported": True,
    }  # fmt: skip
    kept = write_run(tmp_path / "kept", steps=(0, 4, 9), result={"averages": [average], "best_step": 9})
    found = view(kept)
    assert (found.step, found.last_step, found.averaged) == (9, 8, "ema")
    assert "at step 9, the average ema, kept as the best by eval/dev/mean/ndcg@10" in texts(quality.headline(found))
    grid = next(part for part in of(quality.results(found), Grid) if part.title == "Averaged weights")
    assert grid.rows[0][0] == "ema"
    assert "+0.2500 [+0.1000, +0.4000]" in grid.rows[0]
    assert "Step 9 is no step of the training" in grid.note
    lost = view(write_run(tmp_path / "lost", result={"averages": [average | {"exported": False}]}))
    assert (lost.last_step, lost.averaged) == (8, None)
    assert "the best step by" in texts(quality.headline(lost))


def test_a_pruned_run_says_when_it_was_stopped(tmp_path):
    found = view(write_run(tmp_path / "run", result={"pruned_at": 4}))
    assert "stopped the run after step 4" in texts(quality.headline(found))


def test_every_row_of_the_summary_is_in_the_results_first_stage_to_reranked(run):
    chapter = quality.results(run)
    grids = [*of(chapter, Grid), *(part for fold in of(chapter, Fold) for part in fold.parts)]
    rows = {tuple(row) for grid in grids for row in grid.rows}
    for row in summary(run.run, run.step):
        assert row.cells() in rows
    assert [plot.title for plot in of(chapter, Plot)] == [
        "dev: ndcg@10, first stage and reranked", "dev: gain with 95 % intervals",
    ]  # fmt: skip
    recall = next(grid for grid in grids if grid.title == "What the first stage found")
    assert [row[0] for row in recall.rows] == ["one", "two"]


def test_the_queries_are_those_of_the_failures(run):
    rows = run.rows_at(run.step, "dev")
    found = failures(rows, run.run.queries, run.run.scores(run.step), run.run.documents, "ndcg@10")
    helped, hurt = of(quality.queries(run), Queries)
    assert [query.question for query in helped.queries] == list(found.helped["question"])
    assert [query.relevant for query in hurt.queries] == list(found.hurt["relevant"])
    assert [query.change for query in helped.queries] == [f"{change:+.4f}" for change in found.helped["change"]]
    assert f"{found.counts.helped} helped, {found.counts.hurt} hurt" in texts(quality.queries(run))
    (bars,) = of(quality.queries(run), Plot)
    assert len(bars.figure.data[0].x) == 28


def test_the_calibration_is_that_of_the_export(run):
    chapter = quality.calibration(run)
    found = run.run.scores(run.step)
    found = found[found["first_stage_rank"] > 0]
    groups = found.groupby(["dataset", "query_id"], sort=False).ngroup()
    expected = reliability(Calibration(0.0).probability(found["score"]), found["relevant"], query_index=groups)
    quality_table = next(grid for grid in of(chapter, Grid) if "good" in grid.title)
    assert quality_table.rows[-1] == ("calibrated", shown(expected.brier), shown(expected.ece))


def test_a_run_that_kept_no_scores_has_its_chapters_all_the_same(tmp_path):
    folder = write_run(tmp_path / "run")
    for kind in ("scores", "queries", "documents"):
        for file in (folder / "evaluations" / kind).iterdir():
            file.unlink()
    old = view(folder)
    assert "No scores" in texts(quality.calibration(old))
    assert all(query.question == "" for part in of(quality.queries(old), Queries) for query in part.queries)
    assert of(quality.results(old), Grid)
