"""Who a process is, and a training by a command of its own; that several train as one stands in test_processes.py."""

import os
import signal
import sys
import threading
import time

import pytest

from crossrank.errors import ConfigError, TrainingError
from crossrank.training.processes import RANKS, SIGNALS, rank, run_apart, told_by


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch):
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, 0), ({"LOCAL_RANK": "3"}, 3), ({"LOCAL_RANK": "1", "RANK": "5"}, 5), ({"SLURM_PROCID": "2"}, 2)],
)
def test_the_environment_tells_the_rank(environment, expected, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rank() == expected
    assert (told_by() in environment) == bool(environment)


@pytest.mark.parametrize("value", ["", "first", "-1", "1.0", " 1", "²", "9" * 5000])
def test_a_rank_that_is_no_number_is_a_config_error(value, monkeypatch):
    monkeypatch.setenv("RANK", value)
    with pytest.raises(ConfigError, match="environment variable RANK: counts processes from 0, got"):
        rank()


def apart(code, folder, monkeypatch, nodes=1):
    """Have Python code stand for the program."""
    run_apart([sys.executable, "-c", code], folder, "seed: 1\n", nodes, ["resume='x y'", "cache_dir=z"])


def test_the_program_goes_on_with_the_config_that_was_written(tmp_path, monkeypatch):
    code = (
        f"import pathlib, sys; folder = pathlib.Path({str(tmp_path)!r})\n"
        "(folder / 'seen').write_text('|'.join([*sys.argv[1:], (folder / 'config.yaml').read_text()]))"
    )
    apart(code, tmp_path, monkeypatch)
    assert (tmp_path / "seen").read_text() == "resume='x y'|cache_dir=z|seed: 1\n"


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("raise SystemExit(2)", "ended with exit code 2"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
    ],
)
def test_a_job_that_fails_is_a_training_error(code, end, tmp_path, monkeypatch):
    """So that the other jobs of a sweep run all the same."""
    with pytest.raises(TrainingError, match=f"the job in {tmp_path} {end}; go on with resume={tmp_path}"):
        apart(code, tmp_path, monkeypatch)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_reaches_the_job_and_ends_the_sweep(number, tmp_path, monkeypatch):
    code = (
        f"import pathlib, signal, sys, time; signal.signal({int(number)}, lambda n, _: sys.exit(128 + n))\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch(); time.sleep(60)"
    )

    def tell():
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before = [signal.getsignal(each) for each in SIGNALS]
    thread = threading.Thread(target=tell)
    thread.start()
    with pytest.raises(SystemExit) as end:
        apart(code, tmp_path, monkeypatch)
    thread.join()
    assert end.value.code == 128 + number
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize(("nodes", "environment"), [(2, {}), (1, {"LOCAL_RANK": "0"}), (1, {"SLURM_PROCID": "0"})])
def test_where_something_else_starts_the_processes_a_sweep_is_refused(nodes, environment, tmp_path, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="under torchrun or srun start the jobs one by one, without -m"):
        apart("raise AssertionError", tmp_path, monkeypatch, nodes)
    assert not list(tmp_path.iterdir())
