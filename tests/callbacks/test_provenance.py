import importlib.metadata
import json
import subprocess
import sys
from types import SimpleNamespace

import torch

from crossrank.callbacks import provenance
from crossrank.callbacks.provenance import PACKAGES, Provenance, changed_since, code_fingerprint


class Rows(list):
    fingerprints = {"source": "abc", "rows": "def"}  # noqa: RUF012


def _trainer():
    data = SimpleNamespace(rows=Rows(range(7)))
    return SimpleNamespace(datamodule=data, precision="32-true", global_step=9, is_global_zero=True)


def test_everything_known_before_training_is_on_disk_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/private/train.py", "experiment=smoke"])
    Provenance(str(tmp_path / "run")).on_train_start(_trainer(), None)
    facts = json.loads((tmp_path / "run" / "provenance.json").read_text())

    assert facts["packages"] == {name: importlib.metadata.version(name) for name in PACKAGES}
    assert facts["packages"]["torch"].startswith("2.")
    assert facts["data"] == {"rows": 7, "fingerprints": {"source": "abc", "rows": "def"}}
    assert facts["command"] == ["train.py", "experiment=smoke"]
    assert facts["precision"] == "32-true"
    assert facts["machine"]["threads"] == torch.get_num_threads()
    assert facts["code"].keys() == {"commit", "uncommitted_changes", "untracked", "fingerprint"}
    assert "training_seconds" not in facts


def test_what_is_needed_to_do_it_again_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "uncommitted_diff", lambda: "a diff\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "origin.json").write_text('{"overrides": ["experiment=smoke"]}')
    Provenance(str(run)).on_train_start(_trainer(), None)
    assert (run / "uncommitted.diff").read_text() == "a diff\n"
    installed = dict(line.split("==") for line in (run / "requirements.txt").read_text().splitlines())
    assert installed["torch"] == importlib.metadata.version("torch")
    assert json.loads((run / "provenance.json").read_text())["config"] == {"overrides": ["experiment=smoke"]}


def test_the_end_adds_the_steps_and_the_duration(tmp_path, monkeypatch):
    now = [1_800_000_000.0]
    for clock in ("time", "monotonic"):
        monkeypatch.setattr(f"crossrank.callbacks.provenance.time.{clock}", lambda: now[0])
    callback, trainer = Provenance(str(tmp_path)), _trainer()
    callback.on_train_start(trainer, None)
    started = json.loads(callback.file.read_text())
    now[0] += 12.34
    callback.on_train_end(trainer, None)
    ended = json.loads(callback.file.read_text())
    assert ended == {**started, "steps": 9, "training_seconds": 12.3}
    assert ended["started"] == "2027-01-15T08:00:00Z"


def test_code_outside_a_repository_has_no_commit_and_stops_nothing(tmp_path, monkeypatch):
    def no_git(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    callback = Provenance(str(tmp_path))
    callback.on_train_start(_trainer(), None)
    code = json.loads(callback.file.read_text())["code"]
    nothing = dict.fromkeys(("commit", "uncommitted_changes", "untracked"))
    assert code == {**nothing, "fingerprint": code_fingerprint()}
    assert not (tmp_path / "uncommitted.diff").exists()


def test_what_has_changed_since_a_run_was_started_is_named(tmp_path):
    callback = Provenance(str(tmp_path))
    assert changed_since(tmp_path) == []  # nothing is known
    callback.on_train_start(_trainer(), None)
    assert changed_since(tmp_path) == []
    facts = json.loads(callback.file.read_text())
    facts["packages"]["torch"] = "2.0.0"
    callback.file.write_text(json.dumps(facts))
    assert changed_since(tmp_path) == [f"torch was 2.0.0 and is {torch.__version__}"]


def test_a_run_that_goes_on_keeps_how_it_began(tmp_path):
    Provenance(str(tmp_path)).on_train_start(_trainer(), None)
    began = json.loads((tmp_path / "provenance.json").read_text())
    for _ in range(2):
        Provenance(str(tmp_path)).on_train_start(_trainer(), None)
    facts = json.loads((tmp_path / "provenance.json").read_text())
    assert {key: facts[key] for key in began} == began
    assert [again["after_step"] for again in facts["resumed"]] == [9, 9]


def test_the_command_that_is_written_down_holds_no_secret(tmp_path, monkeypatch):
    token = "hf_" + "a1B2" * 8
    monkeypatch.setattr(sys, "argv", ["train.py", "seed=3", "hydra.job.env_set.WANDB_API_KEY=s3cret", token])
    callback = Provenance(str(tmp_path))
    callback.on_train_start(_trainer(), None)
    text = callback.file.read_text()
    assert json.loads(text)["command"] == [
        "train.py", "seed=3", "hydra.job.env_set.WANDB_API_KEY=<hidden>", "<hidden>"
    ]  # fmt: skip
    assert "s3cret" not in text
