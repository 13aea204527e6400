"""The two commands' set-up, with a Python that only notes what it is asked to do."""

import os
import shutil
import subprocess

import pytest
from conftest import ROOT

FAKE = """#!/bin/sh
echo "$*" >> calls
case "$*" in
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-m pip install"*) if [ -e break ]; then sh -e ./break; fi ;;
esac
"""
INSTALL = "-m pip install -q --disable-pip-version-check -c constraints.txt -e .[dev]"
TRAIN = "-m src.train experiment=quickstart"


@pytest.fixture
def clone(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "python").write_text(FAKE)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def _make_train(clone):
    return _make(clone, "train")


def _make(clone, *words):
    """Return whether make succeeded, and what Python was asked to do."""
    (clone / "calls").write_text("")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", *words, f"PYTHON={clone / 'python'}"], cwd=clone, env=environment, capture_output=True, timeout=60
    )
    return done.returncode == 0, (clone / "calls").read_text().splitlines()


def test_the_first_call_sets_up_and_the_second_uses_it_again(clone):
    succeeded, calls = _make_train(clone)
    assert succeeded
    assert calls.index("-m venv .venv") < calls.index(INSTALL) < calls.index(TRAIN)
    assert _make_train(clone) == (True, [TRAIN])


def test_notebooks_are_filled_all_or_by_name(clone):
    _make_train(clone)
    assert _make(clone, "notebooks") == (True, ["-m notebooks.execute"])
    assert _make(clone, "notebooks", "NAMES=03 05") == (True, ["-m notebooks.execute 03 05"])


@pytest.mark.parametrize("mishap", ["exit 1", "kill -9 $PPID", "rm .venv/bin/python; kill -9 $PPID"])
def test_a_failed_or_interrupted_install_is_repeated(mishap, clone):
    (clone / "break").write_text(mishap)
    for _ in range(2):
        succeeded, calls = _make_train(clone)
        assert not succeeded
        assert INSTALL in calls
        assert TRAIN not in calls
    (clone / "break").unlink()
    succeeded, calls = _make_train(clone)
    assert succeeded
    assert calls.index(INSTALL) < calls.index(TRAIN)
    assert ("-m venv .venv" in calls) == mishap.startswith("rm")
    assert _make_train(clone) == (True, [TRAIN])


def test_new_requirements_are_installed(clone):
    _make_train(clone)
    later = (clone / ".venv" / ".ready").stat().st_mtime + 10
    os.utime(clone / "constraints.txt", (later, later))
    succeeded, calls = _make_train(clone)
    assert succeeded
    assert INSTALL in calls
    assert "-m venv .venv" not in calls
