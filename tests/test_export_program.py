"""The program as a person calls it."""

import hashlib
import json
import shutil

import pytest
from conftest import run_program


@pytest.fixture(scope="module")
def run_dir(smoke_run, tmp_path_factory):
    return shutil.copytree(smoke_run.folder, tmp_path_factory.mktemp("exported") / "run")


def test_a_dry_run_says_what_would_be_uploaded_and_where_it_lies(run_dir, tmp_path):
    folder = tmp_path / "model"
    done = run_program("src.export", str(run_dir), f"output={folder}", "push=org/name", "dry_run=true")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["run"], facts["export"], facts["step"]) == (str(run_dir), str(folder), 3)
    assert len(facts["parity"]) == 4
    found = {file["path"]: (file["bytes"], file["sha256"]) for file in facts["files"]}
    assert found == {
        file.name: (file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()) for file in folder.iterdir()
    }
    assert {"README.md", "model.safetensors", "parity.json"} <= set(found)
    assert "uploaded" not in facts
    assert "sentence-transformers" in done.stderr


def test_mistakes_are_one_sentence(run_dir, tmp_path):
    before = (run_dir / "export" / "config.json").stat().st_mtime_ns
    for words, said in (
        ((str(tmp_path),), "a run's folder is wanted"),
        ((), "run: required and missing"),
        ((str(run_dir), "push=name"), "names no owner"),
        ((str(run_dir), "push=org/name"), "HF_HUB_OFFLINE is set"),
        ((str(run_dir), "consumers=[no-such-python]"), "'no-such-python' is no program"),
        ((str(run_dir), f"output={run_dir}"), "would be replaced, and is no export"),
        ((str(run_dir), "+onxn=true"), "did you mean"),
    ):
        done = run_program("src.export", *words)
        assert done.returncode == 2, words
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert (run_dir / "export" / "config.json").stat().st_mtime_ns == before
