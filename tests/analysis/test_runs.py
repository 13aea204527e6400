"""A run's folder, read back as tables."""

import json
import os

import pandas as pd
import pytest

from crossrank.analysis.runs import RunFolder, load_runs, newest_run
from crossrank.errors import DataError
from crossrank.training.tracking import JsonlLogger

COLUMNS = ["dataset", "query_id", "metric", "value", "base_value", "evaluator", "step"]


def write_run(folder, values=((0, 0.25), (3, 0.5)), finished=True):
    (folder / "evaluations").mkdir(parents=True)
    logger = JsonlLogger(folder)
    for step, value in values:
        logger.log_metrics({"train/loss": 1 - value, "train/lr": 1e-3}, step=step)
        rows = [("dev", "q", "map", value, 0.1, "held_out", step)]
        pd.DataFrame(rows, columns=COLUMNS).to_parquet(folder / "evaluations" / f"step={step:06d}-held_out.parquet")
    if finished:
        (folder / "result.json").write_text(json.dumps({"best_step": 3, "export": "export"}))
    return folder


def test_metrics_are_one_row_a_step_and_key(tmp_path):
    run = RunFolder(write_run(tmp_path / "run"))
    assert list(run.metrics.itertuples(index=False, name=None)) == [
        (0, "train/loss", 0.75),
        (0, "train/lr", 1e-3),
        (3, "train/loss", 0.5),
        (3, "train/lr", 1e-3),
    ]  # without the time


def test_wide_metrics_are_one_row_a_step_and_one_column_a_key(tmp_path):
    """What is logged at one step in several lines, in another order, or not finite, or not at all."""
    logger = JsonlLogger(tmp_path)
    logger.log_metrics({"train/loss": 0.5}, step=2)
    logger.log_metrics({"eval/a": 1, "train/lr": float("inf")}, step=2)
    logger.log_metrics({"eval/a": 0.25}, step=0)
    wide = RunFolder(tmp_path).wide_metrics
    wanted = pd.DataFrame(
        {"eval/a": [0.25, 1.0], "train/loss": [None, 0.5], "train/lr": [None, None]},
        index=pd.Index([0, 2], name="step"), dtype=float,
    )  # fmt: skip
    pd.testing.assert_frame_equal(wide, wanted)


def test_a_curve_is_indexed_by_step(tmp_path):
    curve = RunFolder(write_run(tmp_path / "run")).curve("train/loss")
    assert curve.to_dict() == {0: 0.75, 3: 0.5}


def test_a_value_that_was_not_finite_is_a_gap_in_the_curve(tmp_path):
    folder = write_run(tmp_path / "run")
    JsonlLogger(folder).log_metrics({"train/loss": float("nan")}, step=6)
    curve = RunFolder(folder).curve("train/loss")
    assert curve.dtype == float
    assert pd.isna(curve[6])
    assert curve[3] == 0.5


def test_a_key_that_was_never_logged_is_answered_with_those_that_were(tmp_path):
    with pytest.raises(DataError, match=r"never logged 'train/los'; it logged: train/loss, train/lr"):
        RunFolder(write_run(tmp_path / "run")).curve("train/los")


def test_evaluations_are_in_the_order_of_steps(tmp_path):
    run = RunFolder(write_run(tmp_path / "run", values=((1000, 0.3), (200, 0.2), (0, 0.1))))
    assert list(run.evaluations["step"]) == [0, 200, 1000]
    assert list(run.evaluations["value"]) == [0.1, 0.2, 0.3]
    assert list(run.evaluations.columns) == COLUMNS


def test_half_written_evaluations_are_not_read(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "evaluations" / ".step=000006-held_out.parquet").write_bytes(b"PAR1")
    assert list(RunFolder(folder).evaluations["step"]) == [0, 3]


def test_a_last_line_that_a_kill_cut_off_does_not_hide_the_others(tmp_path):
    folder = write_run(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 6, "train/lo')
    assert list(RunFolder(folder).curve("train/loss")) == [0.75, 0.5]


def test_a_broken_line_before_the_last_is_an_error_with_its_number(tmp_path):
    folder = write_run(tmp_path / "run")
    file = folder / "metrics.jsonl"
    file.write_text("{oops\n" + file.read_text())
    with pytest.raises(DataError, match=r"metrics\.jsonl, row 1"):
        _ = RunFolder(folder).metrics


def test_the_result_is_read(tmp_path):
    assert RunFolder(write_run(tmp_path / "run")).result["best_step"] == 3


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no metrics\.jsonl; a run's folder is wanted"):
        RunFolder(tmp_path)


def test_an_unfinished_run_says_so(tmp_path):
    JsonlLogger(tmp_path).log_metrics({"train/loss": 1.0}, step=1)
    run = RunFolder(tmp_path)
    with pytest.raises(DataError, match="has not finished"):
        _ = run.result
    with pytest.raises(DataError, match="no evaluation was written"):
        _ = run.evaluations


def test_several_runs_are_one_table_that_says_which_is_which(tmp_path):
    folders = [write_run(tmp_path / name) for name in ("one", "two")]
    table = load_runs(folders)
    assert list(table["run"]) == [str(folders[0])] * 2 + [str(folders[1])] * 2
    assert list(table.index) == [0, 1, 2, 3]


def test_the_newest_run_is_the_one_that_ended_last(tmp_path):
    old, new = write_run(tmp_path / "b" / "1"), write_run(tmp_path / "a" / "2")
    write_run(tmp_path / "c" / "3", finished=False)
    os.utime(old / "result.json", (1000, 1000))
    os.utime(new / "result.json", (2000, 2000))
    evaluated = tmp_path / "evaluate" / "4"
    evaluated.mkdir(parents=True)
    (evaluated / "result.json").write_text("{}")  # src.evaluate writes one too, and logs no metrics
    assert newest_run(tmp_path) == new


def test_no_finished_run_says_how_to_make_one(tmp_path):
    write_run(tmp_path / "run", finished=False)
    with pytest.raises(DataError, match="no finished run; make one with: make train"):
        newest_run(tmp_path)
