import io
import json
import sys
from pathlib import Path

import pytest
from rich.table import Table

from crossrank.analysis.closing import close


@pytest.fixture
def ended(monkeypatch):
    """Return a function that ends a program whose standard output is a terminal, or none."""

    def run(terminal, *arguments):
        out, err = io.StringIO(), io.StringIO()
        out.isatty = lambda: terminal
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        close(*arguments)
        return out.getvalue(), err.getvalue()

    return run


def table():
    made = Table("dataset", "ndcg@10")
    made.add_row("dev", "0.5040")
    return made


FACTS = {"best_step": 3, "run": Path("a/b"), "rows": [{"gain": (0.5, float("nan"), float("inf"))}]}


def test_a_person_gets_tables_and_words(ended):
    out, err = ended(True, [table()], ["model    a/[b]/export"], FACTS)
    assert "0.5040" in out
    assert "model    a/[b]/export" in out  # and no markup is read into a path
    assert "best_step" not in out + err


def test_a_program_gets_one_line_of_json_and_nothing_else(ended):
    out, err = ended(False, [table()], ["model    x"], FACTS)
    assert out.count("\n") == 1
    assert json.loads(out) == {"best_step": 3, "run": "a/b", "rows": [{"gain": [0.5, None, None]}]}
    assert "0.5040" in err
    assert "model    x" in err


def test_a_long_line_is_not_broken(ended):
    _, err = ended(False, [], [f"try it   {'x' * 400}"], {})
    assert "x" * 400 in err
