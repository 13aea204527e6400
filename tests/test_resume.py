"""Which run is gone on with, and what is refused; that going on is exact stands in test_resume_exact.py."""

import json
import shutil
import signal
import time

import program_server
import pytest
from conftest import composed, program_environment, run_program
from omegaconf import OmegaConf
from test_resume_exact import same_run

from crossrank.errors import ResumeError
from crossrank.resume import continued, newest_unfinished, refuse_or_warn, register_resolvers


@pytest.fixture(autouse=True)
def _resolver():
    register_resolvers()


def smoke(*overrides, run_dir="nowhere"):
    return composed("experiment=smoke", f"run_dir={run_dir}", *overrides)


def started(folder, *overrides, finished=False):
    folder.mkdir(parents=True)
    OmegaConf.save(smoke(*overrides, run_dir=folder), folder / "config.yaml", resolve=True)
    if finished:
        (folder / "result.json").write_text("{}")
    return folder


def test_without_resume_a_run_is_a_new_one(tmp_path):
    cfg = smoke()
    assert continued(cfg, [], tmp_path) == (cfg, False)


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ResumeError, match="holds a run already; go on with it by resume="):
        continued(smoke(), [], tmp_path)


def test_a_run_goes_on_with_its_own_config(tmp_path):
    """Whatever the command composes to: nothing else was asked for."""
    folder = started(tmp_path / "run", "optimizer.lr=0.5", "seed=3")
    cfg, resumed = continued(smoke(f"resume={folder}"), [f"resume={folder}", "cache_dir=elsewhere"], folder)
    assert resumed
    assert (cfg.optimizer.lr, cfg.seed, cfg.resume) == (0.5, 3, str(folder))


CHANGES = {
    ("optimizer.lr=0.25",): ["optimizer.lr was 0.001 and is 0.25"],
    ("seed=3", "data.pairs_per_step=4"): ["seed was 12 and is 3", "data.pairs_per_step was 8 and is 4"],
    ("~callbacks.throughput",): ["callbacks.throughput was {", "and is None"],
}


@pytest.mark.parametrize("overrides", CHANGES)
def test_another_config_is_refused_with_what_differs(overrides, tmp_path, caplog):
    folder = started(tmp_path / "run")
    given = ["experiment=smoke", f"resume={folder}", *overrides]
    with pytest.raises(ResumeError) as error:
        continued(smoke(f"resume={folder}", *overrides), given, folder)
    for difference in CHANGES[overrides]:
        assert difference in str(error.value)
    assert "resume_anyway=true" in str(error.value)
    anyway = smoke(f"resume={folder}", "resume_anyway=true", *overrides)
    assert continued(anyway, [*given, "resume_anyway=true"], folder) == (anyway, True)
    assert "goes on although its config is not what it was" in caplog.text


@pytest.mark.parametrize(
    "how",
    [
        ["data.workers=3"],
        ["trainer.accumulate_grad_batches=4"],
        ["trainer.gradient_cache=4"],
        ["trainer.devices=2", "+trainer.strategy=ddp"],
    ],
)
def test_how_the_work_is_shared_may_change(how, tmp_path):
    folder = started(tmp_path / "run")
    _, resumed = continued(smoke(f"resume={folder}", *how), ["experiment=smoke", *how], folder)
    assert resumed


def test_a_run_that_is_not_there_or_has_finished_is_refused(tmp_path):
    with pytest.raises(ResumeError, match=r"no run there, its config\.yaml is missing"):
        continued(smoke(f"resume={tmp_path}"), [], tmp_path)
    folder = started(tmp_path / "run", finished=True)
    with pytest.raises(ResumeError, match="has finished"):
        continued(smoke(f"resume={folder}"), [], folder)


@pytest.mark.parametrize("content", ["{oops", "- a list", "\x00"])
def test_a_broken_config_is_one_sentence(content, tmp_path):
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ResumeError, match=r"config\.yaml (cannot be read|holds no config)"):
        continued(smoke(f"resume={tmp_path}"), [], tmp_path)


def test_auto_takes_the_newest_unfinished_run_of_the_same_config(tmp_path):
    started(tmp_path / "a")
    started(tmp_path / "b", "data.workers=2")  # the same run, shared out differently
    started(tmp_path / "c", "seed=3")
    started(tmp_path / "d", finished=True)
    assert newest_unfinished(tmp_path, smoke("resume=auto")) == tmp_path / "b"
    assert newest_unfinished(tmp_path, smoke("resume=auto", "seed=4")) is None
    assert newest_unfinished(tmp_path / "nowhere", smoke()) is None


def test_auto_starts_anew_where_there_is_nothing_to_go_on_with(tmp_path):
    cfg = smoke("resume=auto")
    assert continued(cfg, ["experiment=smoke", "resume=auto"], tmp_path) == (cfg, False)


def test_the_run_folder_of_a_command(tmp_path):
    folder = started(tmp_path / "smoke" / "then")
    cfg = smoke()
    OmegaConf.set_struct(cfg, False)
    for resume, expected in ((None, "now"), ("auto", "then"), (str(tmp_path / "other"), "other")):
        cfg.resume = resume
        cfg.hydra = {"dir": f"${{run_folder:{tmp_path}/smoke/now}}"}
        assert cfg.hydra.dir.rpartition("/")[2] == expected
    assert folder.is_dir()


def test_nothing_changed_is_nothing_said(tmp_path, caplog):
    refuse_or_warn(tmp_path, "code", [], False)
    assert caplog.text == ""


def test_the_same_command_again_goes_on_with_a_run_that_was_killed(smoke_run, tmp_path):
    """resume=auto, from a folder of a user's own: the second command is the first one."""
    command = ["src.train", "experiment=smoke", "resume=auto", f"cache_dir={smoke_run.cache}"]
    process = program_server.start(command, tmp_path, program_environment())
    while process.is_alive() and not list(tmp_path.glob("runs/smoke/*/checkpoints/step=000003-*.ckpt")):
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (folder,) = (tmp_path / "runs" / "smoke").iterdir()
    assert not (folder / "result.json").exists()
    done = run_program(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"going on with {folder} after step" in done.stdout + done.stderr
    assert [path.name for path in (tmp_path / "runs" / "smoke").iterdir()] == [folder.name]
    assert same_run(folder, smoke_run.folder)


def test_the_program_goes_on_with_a_run_wherever_it_now_lies(smoke_run, tmp_path):
    """Stopped after its first checkpoint: as a kill would leave it."""
    folder = tmp_path / "moved"
    shutil.copytree(smoke_run.folder, folder)
    weights = (folder / "export" / "model.safetensors").read_bytes()
    (folder / "result.json").unlink()
    max((folder / "checkpoints").glob("step=*")).unlink()
    shutil.rmtree(folder / "export")
    done = run_program("src.train", f"resume={folder}", f"cache_dir={smoke_run.cache}")
    assert done.returncode == 0, done.stderr
    assert f"going on with {folder} after step 3" in done.stdout + done.stderr
    assert (folder / "export" / "model.safetensors").read_bytes() == weights
    lines = [(run / "metrics.jsonl").read_text().splitlines() for run in (folder, smoke_run.folder)]
    assert [json.loads(line)["step"] for line in lines[0]] == [json.loads(line)["step"] for line in lines[1]]
    resumed = json.loads((folder / "provenance.json").read_text())["resumed"]
    assert [again["after_step"] for again in resumed] == [3]
