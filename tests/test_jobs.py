"""One job at a time, with a stand-in for the program that trains; whole sweeps are run in test_train.py."""

import json
import sys

import pytest
from conftest import ROOT, composed
from hydra import compose, initialize_config_dir

from crossrank.identity import job_key
from crossrank.jobs import Job

FINISHES = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1].removeprefix('resume=').strip('"'))
(folder / 'config-seen.yaml').write_text((folder / 'config.yaml').read_text())
(folder / 'runs').open('a').write('x')
(folder / 'result.json').write_text(json.dumps({'best_value': 0.25, 'best_step': 3, 'seconds': 1.0}))
"""
FAILS = "import sys; sys.exit(2)"
IS_KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
IS_STOPPED = "import sys; sys.exit(143)"


@pytest.fixture
def job(tmp_path):
    """Return a function that runs the job of some overrides by a program."""

    def run(code, *overrides):
        words = ["experiment=smoke", f"cache_dir={tmp_path / 'cache'}", *overrides]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose("train", [*words, f"run_dir={tmp_path / 'job'}"])
            return Job(tmp_path / "job", words, [sys.executable, "-c", code]).run(cfg)

    return run


def runs_of(tmp_path):
    file = tmp_path / "job" / "runs"
    return len(file.read_text()) if file.exists() else 0


def test_a_job_trains_by_a_program_of_its_own_and_returns_what_it_reached(job, tmp_path):
    assert job(FINISHES, "optimizer.lr=0.003") == 0.25
    assert "lr: 0.003" in (tmp_path / "job" / "config-seen.yaml").read_text()
    origin = json.loads((tmp_path / "job" / "origin.json").read_text())
    assert origin["overrides"][-1] == "optimizer.lr=0.003"


def test_what_is_done_is_not_done_again(job, tmp_path, caplog):
    assert [job(FINISHES), job(FINISHES)] == [0.25, 0.25]
    assert runs_of(tmp_path) == 1
    assert "job job was done before" in caplog.text


def test_a_finished_job_whose_code_was_another_says_so(job, tmp_path, caplog):
    job(FINISHES)
    (tmp_path / "job" / "provenance.json").write_text('{"code": {"fingerprint": "0123"}}')
    assert job(FINISHES) == 0.25
    assert "when crossrank's code was 0123 and is" in caplog.text
    assert f"to do it again remove {tmp_path / 'job'}" in caplog.text


@pytest.mark.parametrize(
    ("code", "said"), [(FAILS, "ended with exit code 2"), (IS_KILLED, "was killed by SIGKILL")], ids=["2", "SIGKILL"]
)
def test_a_job_that_fails_ends_no_sweep_and_waits_until_it_is_asked_for(code, said, job, tmp_path, caplog):
    assert job(code) is None
    assert said in json.loads((tmp_path / "job" / "failure.json").read_text())["error"]
    assert job(FINISHES) is None
    assert "waits for retry_failed=true" in caplog.text
    assert runs_of(tmp_path) == 0
    assert job(FINISHES, "retry_failed=true") == 0.25
    assert not (tmp_path / "job" / "failure.json").exists()


def test_what_the_training_itself_wrote_of_its_failure_is_kept(job, tmp_path):
    code = (
        "import pathlib, sys; folder = pathlib.Path(sys.argv[1].removeprefix('resume=').strip('\"'))\n"
        "(folder / 'failure.json').write_text('{\"error\": \"the loss is nan\"}'); sys.exit(2)"
    )
    assert job(code) is None
    assert json.loads((tmp_path / "job" / "failure.json").read_text()) == {"error": "the loss is nan"}


def test_a_config_that_the_gate_refuses_starts_no_program(job, tmp_path, caplog):
    assert job(FINISHES, "optimizer.lr=-1") is None
    assert runs_of(tmp_path) == 0
    assert "Invalid learning rate" in json.loads((tmp_path / "job" / "failure.json").read_text())["error"]
    assert "Traceback" not in caplog.text


def test_a_sweep_that_is_asked_to_stop_stops(job, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        job(IS_STOPPED)
    assert stopped.value.code == 143
    assert not (tmp_path / "job" / "failure.json").exists()
    assert job(FINISHES) == 0.25  # and goes on


def test_a_secret_among_the_overrides_is_not_written_down(job, tmp_path):
    job(FINISHES, "+callbacks.provenance.api_key=abc")
    assert "api_key=<hidden>" in (tmp_path / "job" / "origin.json").read_text()
    assert "=abc" not in (tmp_path / "job" / "origin.json").read_text()


def key(*overrides):
    return job_key(composed("experiment=smoke", "run_dir=a/b", "cache_dir=c", *overrides))


def test_a_job_is_told_by_what_it_trains():
    same = [key(), key("run_dir=x"), key("cache_dir=y"), key("logger=csv"), key("retry_failed=true"), key("seed=12")]
    assert len(set(same)) == 1
    others = [
        key("seed=13"),
        key("optimizer.lr=1e-5"),
        key("policy=hardest"),
        key("callbacks.evaluation.every_n_steps=1"),
    ]
    assert len({*same, *others}) == 5
    assert len(key()) == 8


def test_a_config_that_cannot_be_resolved_has_a_key_too():
    assert len(key("++seed=${nowhere}")) == 8
