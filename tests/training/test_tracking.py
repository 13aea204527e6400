import json
import math

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from crossrank.training.tracking import JsonlLogger, forget_after, sweep_of


def _lines(logger):
    return [json.loads(line) for line in logger.file.read_text().splitlines()]


def test_a_logged_step_is_one_line_of_json_that_is_there_at_once(tmp_path):
    logger = JsonlLogger(tmp_path)
    logger.log_metrics({"train/loss": 0.5, "train/lr": 1e-5}, step=1)
    assert len(_lines(logger)) == 1
    logger.log_metrics({"eval/mean/ndcg@10": 0.25}, step=2)
    first, second = _lines(logger)
    assert (first["step"], first["train/loss"], first["train/lr"]) == (1, 0.5, 1e-5)
    assert (second["step"], second["eval/mean/ndcg@10"]) == (2, 0.25)
    assert second["time"] >= first["time"]
    assert logger.file == tmp_path / "metrics.jsonl"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_json_cannot_hold_is_null(value, tmp_path):
    logger = JsonlLogger(tmp_path)
    logger.log_metrics({"train/loss": value}, step=1)
    assert _lines(logger)[0]["train/loss"] is None
    assert "NaN" not in logger.file.read_text()


def test_a_second_logger_of_the_same_run_appends(tmp_path):
    for step in (1, 2):
        JsonlLogger(tmp_path).log_metrics({"a": 1.0}, step=step)
    assert [line["step"] for line in _lines(JsonlLogger(tmp_path))] == [1, 2]


def test_hyperparameters_are_left_to_the_config_beside_the_record(tmp_path):
    logger = JsonlLogger(tmp_path)
    logger.log_hyperparams({"lr": 1.0})
    assert not logger.file.exists()
    assert (logger.name, logger.version) == ("jsonl", "")


def test_what_was_recorded_after_a_step_is_forgotten(tmp_path):
    logger = JsonlLogger(tmp_path)
    for step in (0, 2, 4, 6):
        logger.log_metrics({"x": step / 8}, step=step)
    kept = logger.file.read_text().splitlines()[:2]
    with logger.file.open("a") as stream:
        stream.write('{"step": 1, "x')  # a kill in the middle of a line
    folder = tmp_path / "evaluations" / "scores"
    folder.mkdir(parents=True)
    for name in ("step=000002-e.parquet", "step=000004-e.parquet", ".step=000002-e.parquet"):
        (folder / name).touch()
    forget_after(tmp_path, 2)
    assert logger.file.read_text().splitlines() == kept
    assert [file.name for file in folder.iterdir()] == ["step=000002-e.parquet"]
    forget_after(tmp_path, -1)
    assert logger.file.read_text() == ""
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("folder", "sweep"),
    [
        ("runs/quickstart/2026-01-02_03-04-05", None),
        ("runs/quickstart/lr_sweep/0", "quickstart/lr_sweep"),
        ("runs/quickstart_sweep", None),
    ],
)
def test_a_job_of_a_sweep_is_known_by_the_folder_above_it(folder, sweep, tmp_path):
    assert sweep_of(tmp_path / folder) == sweep


def test_tensorboard_holds_what_the_record_holds(tracked_run):
    events = EventAccumulator(str(tracked_run.folder / "tensorboard")).Reload()
    recorded = {}
    for line in (tracked_run.folder / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        step, _ = values.pop("step"), values.pop("time")
        for key, value in values.items():
            recorded.setdefault(key, []).append((step, pytest.approx(value, rel=1e-6)))  # float32
    assert set(events.Tags()["scalars"]) - {"hp_metric"} == set(recorded)
    for key, points in recorded.items():
        assert [(event.step, event.value) for event in events.Scalars(key)] == points
    settings = yaml.safe_load((tracked_run.folder / "tensorboard" / "hparams.yaml").read_text())
    assert settings["optimizer"]["lr"] == 1e-3
