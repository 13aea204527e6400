import os
import subprocess

import pytest
import torch

from crossrank.callbacks import surroundings
from crossrank.callbacks.surroundings import git_state, installed, machine, uncommitted_diff


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit, in which the code is made to believe it lies."""
    monkeypatch.setattr(surroundings, "__file__", str(tmp_path / "src" / "crossrank" / "callbacks" / "x.py"))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)

    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    (tmp_path / "code.py").write_text("a = 1\nb = 2\n")
    git("add", ".")
    git("commit", "-qm", "one")
    return tmp_path, git


def test_a_clean_repository_is_its_commit(repository):
    _, git = repository
    assert git_state() == {"commit": git("rev-parse", "HEAD").strip(), "uncommitted_changes": False, "untracked": []}
    assert uncommitted_diff() == ""


def test_the_diff_leads_from_the_commit_to_the_code(repository):
    folder, git = repository
    (folder / "code.py").write_text("a = 1\nb = 3\n")
    (folder / "new.py").write_text("")
    assert git_state()["uncommitted_changes"] is True
    assert git_state()["untracked"] == ["new.py"]
    diff = uncommitted_diff()
    git("checkout", "-q", "code.py")
    (folder / "the.diff").write_text(diff)
    git("apply", "the.diff")
    assert (folder / "code.py").read_text() == "a = 1\nb = 3\n"


def test_a_secret_in_a_diff_is_hidden_and_a_long_one_is_cut(repository, monkeypatch):
    folder, _ = repository
    (folder / "code.py").write_text("a = 1\ntoken = 'abc123'\n")
    assert "abc123" not in uncommitted_diff()
    monkeypatch.setattr(surroundings, "MOST_CHARACTERS", 40)
    assert uncommitted_diff().splitlines()[-1].startswith("# cut here: the diff has ")


def test_without_git_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(git_state().values()) == {None}
    assert uncommitted_diff() == ""


def test_the_machine_says_what_it_is():
    found = machine()
    assert found["cpus"] == os.cpu_count()
    assert found["threads"] == torch.get_num_threads()
    assert len(found["gpus"]) == torch.cuda.device_count()
    assert found["memory_gib"] is None or found["memory_gib"] > 0.1


def test_what_is_installed_can_be_installed_again():
    lines = installed().splitlines()
    assert f"torch=={torch.__version__}" in lines
    assert all(line.count("==") == 1 for line in lines)
    assert lines == sorted(lines, key=lambda line: line.partition("==")[0].lower())
