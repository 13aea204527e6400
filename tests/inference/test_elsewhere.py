import os
import sys

import exported
import numpy as np
import pytest

from crossrank.errors import ConfigError, ExportError
from crossrank.inference import elsewhere
from crossrank.inference.elsewhere import by_interpreter, refuse_missing
from crossrank.inference.in_memory import InMemory
from crossrank.inference.probe import Probe
from crossrank.models.export import export


def _program(place, script):
    file = place / "python"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def test_another_process_scores_the_same(tmp_path, monkeypatch):
    """This environment's own interpreter, to which nothing of ours is shown."""
    model, encoder = exported.built("modernbert-mean")
    folder = export(model, encoder, tmp_path / "model")
    (tmp_path / "transformers.py").write_text("raise RuntimeError('from the current folder')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    answers = by_interpreter(sys.executable, folder.relative_to(tmp_path), Probe(48))
    assert [answer["consumer"] for answer in answers] == ["transformers", "sentence-transformers"]
    for answer in answers:
        np.testing.assert_allclose(answer["logits"], InMemory(model, encoder).padded, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo one >&2; echo 'ModuleNotFoundError: No module named transformers' >&2; exit 1", "No module named trans"),
        ("exit 3", "exit code 3"),
        ("exit 0", "exit code 0"),
        ("exec sleep 9", "timed out"),
    ],
)
def test_one_that_does_not_answer_is_named_with_what_it_said(script, said, tmp_path, monkeypatch):
    monkeypatch.setattr(elsewhere, "SECONDS", 1.0)
    python = _program(tmp_path, script)
    with pytest.raises(ExportError, match=said) as error:
        by_interpreter(python, tmp_path, Probe(48))
    assert python in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_program_is_refused_beforehand(tmp_path):
    refuse_missing([])
    refuse_missing([sys.executable, os.path.basename(sys.executable)])  # noqa: PTH119
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="2 problems") as error:
        refuse_missing([sys.executable, str(tmp_path / "file"), "no-such-python"])
    assert "consumers: 'no-such-python' is no program" in str(error.value)
