"""Trainings that a machine fails under: each ends whole, or in one sentence and goes on as if nothing had happened."""

import errno
import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import killed_run
import pandas as pd
import pytest
import wandb
from conftest import composed
from lightning.pytorch.loggers import Logger
from test_resume_exact import same_run

from crossrank.callbacks.step_rng import StepKeyedRNG
from crossrank.config import build_training_run
from crossrank.data.datamodule import MicroBatches
from crossrank.errors import CacheError, DataError, TrainingError
from crossrank.run import execute
from crossrank.training.checkpoints import newest_whole_state
from crossrank.training.tracking import Guarded, JsonlLogger
from crossrank.training.wandb_logger import finish_wandb

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*treespec, LeafSpec.*",
    "ignore:.*does not have many workers.*",
    "ignore:.*will be overridden.*",
    "ignore:.*dataloader is not resumable.*",
)
OPTIONS = [
    "data.max_steps=8", "callbacks.evaluation.every_n_steps=3", "callbacks.checkpoint.every_n_steps=2",
    "callbacks.throughput.every_n_steps=1", "callbacks.health.every_n_steps=4", "optimizer.lr=3e-3",
]  # fmt: skip


def build(folder, cache, *overrides):
    words = ["experiment=smoke", *OPTIONS, f"run_dir={folder}", f"cache_dir={cache}", *overrides]
    return build_training_run(composed(*words))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache_dir):
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    execute(build(folder, cache_dir))
    return folder


def at_call(monkeypatch, owner, name, number, act):
    """Have `act`, called with the same arguments, done before the n-th call of a method."""
    original, calls = getattr(owner, name), []

    def counted(*args, **options):
        calls.append(1)
        if len(calls) == number:
            act(*args, **options)
        return original(*args, **options)

    monkeypatch.setattr(owner, name, counted)


def kill_a_worker(*_):
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    time.sleep(20)  # torch's handler of SIGCHLD ends this


def test_a_killed_worker_is_one_sentence_and_the_run_goes_on(whole, tmp_path, cache_dir):
    run = build(tmp_path, cache_dir, "data.workers=2")
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, StepKeyedRNG, "on_train_batch_start", 6, kill_a_worker)
        with pytest.raises(TrainingError, match=r"was killed, as when .*: lower data\.workers") as caught:
            execute(run)
    assert "\n" not in str(caught.value)
    assert f"resume={tmp_path}" in str(caught.value)
    assert newest_whole_state(tmp_path / "checkpoints").step == 4
    execute(replace(build(tmp_path, cache_dir, "data.workers=2"), resumed=True))
    assert same_run(tmp_path, whole)


@pytest.mark.parametrize(("error", "whole_message"), [(DataError, True), (IndexError, False)])
def test_an_error_of_a_worker_is_named(error, whole_message, tmp_path, cache_dir, monkeypatch):
    """One of ours as it was raised; any other is a bug, whose stack trace says where."""
    original, message = MicroBatches.__getitem__, "document 4711 of row 48 is not there"

    def broken(self, position):
        if position == 6:
            raise error(message)
        return original(self, position)

    monkeypatch.setattr(MicroBatches, "__getitem__", broken)
    with pytest.raises(error, match=message) as caught:
        execute(build(tmp_path, cache_dir, "data.workers=2"))
    assert (str(caught.value) == message) == whole_message
    assert newest_whole_state(tmp_path / "checkpoints").step == 6


class Remote(Logger):
    """A logger whose server is gone from the n-th call on."""

    name, version = "remote", "1"

    def __init__(self, number):
        super().__init__()
        self.number, self.calls = number, 0

    def log_metrics(self, metrics, step=None):
        self.calls += 1
        if self.calls >= self.number:
            raise ConnectionError("the server\ncannot be reached")

    def log_hyperparams(self, params, *args, **kwargs):
        assert set(params["lineage"]) >= {"source", "pool", "rows"}


def refused():
    raise ConnectionError("the server\ncannot be reached")


@pytest.mark.parametrize(("build_logger", "calls"), [(refused, None), (Remote, 4)])
def test_a_logger_that_fails_is_left_out_with_one_warning(build_logger, calls, whole, tmp_path, cache_dir, caplog):
    """Its network is down at the start, or from the fourth point on."""
    made = []

    def logger():
        made.append(build_logger(calls) if calls else build_logger())
        return made[0]

    execute(replace(build(tmp_path, cache_dir), loggers={"remote": logger}))
    (told,) = (line for line in caplog.messages if "remote" in line)
    assert "logger remote failed and is left out from now on (ConnectionError: the server cannot be reached)" in told
    assert [made_logger.calls for made_logger in made] == [calls] * (calls is not None)  # asked once more and no more
    assert same_run(tmp_path, whole)


class Failing(Logger):
    """Fails in one place and knows what else it was asked."""

    root_dir = log_dir = save_dir = "there"
    group_separator, experiment = "-", "run 1"

    def __init__(self, place):
        super().__init__()
        self.place, self.asked = place, []

    def _ask(self, name, value=None):
        self.asked.append(name)
        if name == self.place:
            raise OSError("no route to host")
        return value

    name = property(lambda self: self._ask("name", "failing"))
    version = property(lambda self: self._ask("version", 3))

    def log_metrics(self, metrics, step=None):
        self._ask("log_metrics")

    def log_hyperparams(self, params, *args, **kwargs):
        self._ask("log_hyperparams")

    def log_graph(self, model, input_array=None):
        self._ask("log_graph")

    def after_save_checkpoint(self, checkpoint_callback):
        self._ask("after_save_checkpoint")

    def save(self):
        self._ask("save")

    def finalize(self, status):
        self._ask("finalize")


CALLS = {
    "log_metrics": ({"a": 1.0}, 1), "log_hyperparams": ({},), "log_graph": (None,), "after_save_checkpoint": (None,),
    "save": (), "finalize": ("success",),
}  # fmt: skip


def ask_everything(logger):
    for name, arguments in CALLS.items():
        getattr(logger, name)(*arguments)
    return [getattr(logger, name) for name in ("name", "version", "root_dir", "log_dir", "save_dir", "experiment")]


@pytest.mark.parametrize("place", [*CALLS, "name", "version"])
def test_wherever_a_logger_fails_it_is_asked_nothing_more(place, caplog):
    inner = Failing(place)
    guarded = Guarded("failing", lambda: inner)
    ask_everything(guarded)
    assert ask_everything(guarded) == [None] * 6
    assert inner.asked == [*CALLS, "name", "version"][: len(inner.asked)]
    assert inner.asked[-1] == place
    assert len(caplog.messages) == 1


def test_a_logger_that_works_is_asked_everything(caplog):
    inner = Failing("nowhere")
    guarded = Guarded("failing", lambda: inner)
    assert ask_everything(guarded) == ["failing", 3, "there", "there", "there", "run 1"]
    assert guarded.group_separator == "-"
    assert inner.asked == [*CALLS, "name", "version"]
    assert not caplog.messages


def test_a_warning_about_a_logger_tells_no_secret(caplog):
    def refuse():
        raise ConnectionError("https://me:s3cret@server/x?api_key=s3cret: refused")

    Guarded("remote", refuse)
    (told,) = caplog.messages
    assert "https://<hidden>@server/x?api_key=<hidden>" in told
    assert "s3cret" not in told


def test_a_network_that_is_down_when_wandb_closes_ends_no_run(monkeypatch, caplog):
    def finish(exit_code):
        raise ConnectionError("the server\ncannot be reached")

    monkeypatch.setattr(wandb, "run", object())
    monkeypatch.setattr(wandb, "finish", finish)
    finish_wandb(0)
    (told,) = caplog.messages
    assert "W&B: the run could not be closed (the server cannot be reached)" in told


def read_only(monkeypatch, folder):
    """Refuse folders and locks below `folder` as a file system that is mounted read-only does, to root as well."""
    mkdir, opened = os.mkdir, os.open

    def below(path):
        return str(path).startswith(str(folder))

    def make(path, *args, **options):
        if below(path) and not Path(path).exists():
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return mkdir(path, *args, **options)

    def open_file(path, flags, *args, **options):
        if below(path) and flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *args, **options)

    monkeypatch.setattr(os, "mkdir", make)
    monkeypatch.setattr(os, "open", open_file)


def test_a_read_only_cache_serves_what_it_holds_and_is_named_for_what_it_lacks(whole, tmp_path, cache_dir, monkeypatch):
    read_only(monkeypatch, cache_dir)
    execute(build(tmp_path / "held", cache_dir))
    assert same_run(tmp_path / "held", whole)
    with pytest.raises(
        CacheError, match=r"cannot write .*: Read-only file system; choose another place with cache_dir"
    ):
        execute(build(tmp_path / "lacking", cache_dir / "empty"))
    assert not (tmp_path / "lacking" / "checkpoints").exists()


def half_a_line(logger, *_, **__):
    with logger.file.open("a") as stream:
        stream.write('{"step": 5, "ti')
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(logger.file))


def half_a_table(table, path, **_):
    path.write_bytes(b"PAR1")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


FULL = {  # the call that finds the disk full, and the last step whose state is there
    "metrics.jsonl": (JsonlLogger, "log_metrics", 9, half_a_line, 4),
    "evaluations": (pd.DataFrame, "to_parquet", 8, half_a_table, 4),  # the first is of leaks
}


@pytest.mark.parametrize("what", FULL)
def test_a_full_disk_spoils_nothing_that_was_recorded(what, whole, tmp_path, cache_dir):
    owner, name, number, act, step = FULL[what]
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, owner, name, number, act)
        with pytest.raises(TrainingError, match=f"the disk is full while writing {tmp_path}/{what}.* free some space"):
            execute(build(tmp_path, cache_dir))
    assert newest_whole_state(tmp_path / "checkpoints").step == step
    lines = (tmp_path / "metrics.jsonl").read_text().split("\n")[:-1]
    assert {json.loads(line)["step"] for line in lines} >= {0, 1, 2, 3, 4}
    execute(replace(build(tmp_path, cache_dir), resumed=True))
    assert same_run(tmp_path, whole)


def test_a_clock_that_jumps_back_changes_nothing(whole, tmp_path, cache_dir, monkeypatch):
    """Rates and durations are of a clock that cannot be set; the newest state is the one of the highest step."""
    now, asked, year = time.time, [], 365 * 86_400

    def jumping():
        asked.append(1)
        return now() - year * (len(asked) > 10)

    monkeypatch.setattr(time, "time", jumping)
    result = execute(build(tmp_path, cache_dir))
    assert len(asked) > 15
    assert same_run(tmp_path, whole)
    assert 0 < result.seconds < 600
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["time"] < lines[0]["time"]  # it did jump
    assert all(line["train/pairs_per_second"] > 0 for line in lines if "train/pairs_per_second" in line)
    newest = newest_whole_state(tmp_path / "checkpoints")
    os.utime(newest.file, (now() - year, now() - year))
    assert newest_whole_state(tmp_path / "checkpoints") == newest


@pytest.mark.thorough  # data/test_cache.py has two processes that want one folder
def test_two_runs_fill_one_cache_at_once(tmp_path):
    options = [*OPTIONS, f"cache_dir={tmp_path / 'cache'}", "trainer.threads=1"]
    processes = [killed_run.start(options, str(tmp_path / name), pages=False) for name in "ab"]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert same_run(tmp_path / "a", tmp_path / "b")
    assert not [file for file in (tmp_path / "cache").rglob("*") if ".tmp-" in file.name]
