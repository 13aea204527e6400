import json
import math
import socket
from types import SimpleNamespace

import pytest
import wandb

from crossrank.training.tracking import JsonlLogger, finish_wandb, forget_after, wandb_logger


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


@pytest.fixture
def no_key(tmp_path, monkeypatch):
    """A machine that W&B knows nothing of; to dial out fails the test."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(wandb.api, "_api", None, raising=False)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("dialled out"))
    wandb.teardown()  # it reads the environment once
    yield
    wandb.finish()
    wandb.teardown()


def _runs(folder):
    return sorted(path for path in (folder / "wandb").iterdir() if path.name.startswith("offline-run-"))


def test_wandb_without_a_key_is_offline_and_two_runs_in_a_row_are_two_runs(no_key, tmp_path, caplog):
    identities = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        logger = wandb_logger(str(folder), name, group="sweep")
        logger.log_metrics({"train/loss": 0.5}, step=1)
        identities.append(logger.experiment.id)
        assert logger.experiment.settings.mode == "offline"
        assert (logger.experiment.name, logger.experiment.group) == (name, "sweep")
        assert wandb.run is logger.experiment
        assert f"upload later with: wandb sync {folder}/wandb/offline-run-*" in caplog.text
        finish_wandb(failed=False)
        assert wandb.run is None
    assert len(set(identities)) == 2
    for name, identity in zip(("first", "second"), identities, strict=True):
        (run,) = _runs(tmp_path / name)
        assert run.name.endswith(identity)
        assert (run / f"run-{identity}.wandb").stat().st_size > 0


def test_closing_says_whether_the_run_failed(monkeypatch):
    codes = []
    monkeypatch.setattr(wandb, "run", object())
    monkeypatch.setattr(wandb, "finish", lambda exit_code: codes.append(exit_code))
    finish_wandb(failed=True)
    finish_wandb(failed=False)
    assert codes == [1, 0]


def test_closing_without_an_open_run_does_nothing(monkeypatch):
    monkeypatch.setattr(wandb, "run", None)
    monkeypatch.setattr(wandb, "finish", lambda **_: pytest.fail("nothing to finish"))
    finish_wandb(failed=False)


@pytest.mark.parametrize(("reachable", "mode"), [(True, "online"), (False, "offline")])
def test_with_a_key_the_server_decides_by_being_reachable(reachable, mode, no_key, monkeypatch, tmp_path):
    def connect(address, timeout):
        dialled.append(address)
        if not reachable:
            raise OSError("no route")
        return socket.socket()

    dialled, started = [], []
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example:8080")
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(wandb, "init", lambda **settings: started.append(settings) or SimpleNamespace(id="abc"))
    wandb_logger(str(tmp_path), "name")
    assert dialled == [("wandb.example", 8080)]
    assert [(s["mode"], s["name"], s["project"]) for s in started] == [(mode, "name", "crossrank")]


def test_a_mode_that_is_set_decides_without_asking_the_network(monkeypatch, tmp_path):
    started = []
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("dialled out"))
    monkeypatch.setattr(wandb, "init", lambda **settings: started.append(settings) or SimpleNamespace(id="abc"))
    wandb_logger(str(tmp_path), "name")
    assert started[0]["mode"] == "disabled"


def test_a_run_that_goes_on_is_one_run_there_too(monkeypatch, tmp_path):
    started = []
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", lambda **settings: started.append(settings) or SimpleNamespace(id="abc"))
    for _ in range(2):
        wandb_logger(str(tmp_path), "name")
    assert [(s["id"], s["resume"]) for s in started] == [(None, None), ("abc", "allow")]


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
