"""What a tracker shows of a run, worked by hand on a run of three questions."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from crossrank.analysis.published import best_step, query_table, score_curves, values_at
from crossrank.analysis.runs import RunFolder
from crossrank.training.tracking import JsonlLogger

MONITOR = "eval/e/d/ndcg@10"


@pytest.fixture
def run(tmp_path):
    logger = JsonlLogger(tmp_path)
    for step, value in ((0, 0.9), (2, 0.25), (4, 0.5), (6, 0.5), (8, math.nan)):
        logger.log_metrics({MONITOR: value, "eval/seconds": 2.0}, step=step)
        logger.log_metrics({"train/loss": 1.0}, step=step)
    folder = tmp_path / "evaluations"
    (folder / "scores").mkdir(parents=True)
    (folder / "queries").mkdir()
    rows = [
        ("d", query, metric, value, base, first, place, "e", 4)
        for query, first, place, values in (
            ("q1", 1.0, 2.0, ((1.0, 0.5), (1.0, 0.75))),
            ("q2", math.nan, math.nan, ((0.0, 0.0), (0.0, 0.0))),
            ("q3", 3.0, 1.0, ((0.25, 1.0), (0.5, 1.0))),
        )
        for metric, (value, base) in zip(("map", "ndcg@10"), values, strict=True)
    ]
    names = ["dataset", "query_id", "metric", "value", "base_value", "first_rank", "base_rank", "evaluator", "step"]
    pd.DataFrame(rows, columns=names).to_parquet(folder / "step=000004-e.parquet")
    asked = [("d", f"q{i}", f"question {i}", 1, 10 * i, 0.5, "e") for i in (3, 2, 1)]
    names = ["dataset", "query_id", "question", "positives", "candidates", "recall", "evaluator"]
    pd.DataFrame(asked, columns=names).to_parquet(folder / "queries" / "e.parquet")
    return tmp_path


def scores(run, pairs):
    """Each pair is (score, relevant, rank in the first stage), of evaluator e but for the last, which is of another."""
    rows = [("d", "q1", str(i), rank, score, relevant, "e", 4) for i, (score, relevant, rank) in enumerate(pairs)]
    rows += [("d", "q1", "x", 1, 99.0, True, "f", 4)]
    names = ["dataset", "query_id", "document_id", "first_stage_rank", "score", "relevant", "evaluator", "step"]
    pd.DataFrame(rows, columns=names).to_parquet(run / "evaluations" / "scores" / "step=000004-e.parquet")
    (run / "export").mkdir(exist_ok=True)
    calibration = {"calibration": {"shift": 1.0, "temperature": 2.0, "bias": 0.5}}
    (run / "export" / "calibration.json").write_text(json.dumps(calibration))


def test_the_best_step_is_the_first_of_the_highest_after_training_began(run):
    assert best_step(RunFolder(run), MONITOR) == 4
    assert best_step(RunFolder(run), "eval/e/d/map") is None


def test_the_values_of_a_step_are_those_of_evaluations(run):
    assert values_at(RunFolder(run), 2) == {MONITOR: 0.25}
    assert values_at(RunFolder(run), 8) == {}
    assert values_at(RunFolder(run), 3) == {}


def test_a_question_is_a_row_and_a_metric_three_columns(run):
    table = query_table(RunFolder(run), 4)
    assert list(table.columns) == [
        "evaluator", "dataset", "query_id", "question", "candidates", "recall", "base_rank", "first_rank", "map",
        "map first stage", "map change", "ndcg@10", "ndcg@10 first stage", "ndcg@10 change",
    ]  # fmt: skip
    wanted = [
        ("e", "d", "q1", "question 1", 10, 0.5, 2.0, 1.0, 1.0, 0.5, 0.5, 1.0, 0.75, 0.25),
        ("e", "d", "q2", "question 2", 20, 0.5, math.nan, math.nan, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        ("e", "d", "q3", "question 3", 30, 0.5, 1.0, 3.0, 0.25, 1.0, -0.75, 0.5, 1.0, -0.5),
    ]
    pd.testing.assert_frame_equal(table, pd.DataFrame(wanted, columns=table.columns), check_dtype=False)


def test_of_too_many_questions_the_same_are_shown_at_each_step(run):
    shown = [list(query_table(RunFolder(run), 4, rows=2)["query_id"]) for _ in range(2)]
    assert shown[0] == shown[1] == sorted(shown[0])
    assert len(shown[0]) == 2


def test_without_the_questions_their_ids_are_shown(run):
    (run / "evaluations" / "queries" / "e.parquet").unlink()
    assert list(query_table(RunFolder(run), 4).columns[:5]) == [
        "evaluator", "dataset", "query_id", "base_rank", "first_rank",
    ]  # fmt: skip


def test_the_curves_are_of_the_candidates_and_their_calibrated_probabilities(run):
    """Two candidates in one bin of ten, one in another; what the first stage missed does not count."""
    scores(run, [(0.2, False, 1), (0.24, True, 2), (4.2, True, 3), (-50.0, True, 0)])
    spread, held = score_curves(RunFolder(run), 4, "e")
    middles, relevant = spread.lines["relevant"]
    width = 4.0 / 40
    assert (spread.axis, middles[0], middles[-1]) == ("logit", pytest.approx(0.25), pytest.approx(4.15))
    assert relevant == pytest.approx([0.5 / width, *[0] * 38, 0.5 / width])
    assert spread.lines["other"][1] == pytest.approx([1 / width, *[0] * 39])
    low, high = expit((np.array([0.2, 0.24]) - 1) / 2 + 0.5).mean(), expit((4.2 - 1) / 2 + 0.5)
    assert held.lines["found"] == (pytest.approx([low, high]), [0.5, 1.0])
    assert held.lines["as it should be"] == ([0, 1], [0, 1])


@pytest.mark.parametrize("pairs", [[], [(0.0, False, 1), (1.0, False, 2)], [(math.nan, True, 1), (1.0, False, 2)]])
def test_without_scores_of_both_kinds_there_is_no_curve(pairs, run):
    scores(run, pairs)
    assert score_curves(RunFolder(run), 4, "e") == []


def test_without_any_scores_there_is_no_curve(run):
    assert score_curves(RunFolder(run), 4, "e") == []
